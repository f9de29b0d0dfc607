"""What a run leaves to look at: a table, TensorBoard logs and pictures.

TensorBoard and matplotlib are imported where they are used; without them nothing is drawn.
"""

import csv
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from torch import Tensor

from vit.checkpoint import replacing
from vit.confusion import MANY, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, float]
USES = {"tensorboard": "TensorBoard logs", "matplotlib": "PNG pictures"}


def announce_missing_packages() -> None:
    """Print a line for each package that is not installed and what there will not be."""
    for package, use in USES.items():
        if not _is_installed(package):
            print(f"No {use}: {package} is missing; pip install -r requirements-train.txt")


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as a CSV file with the columns of all of them; a missing value stays empty.

    The whole file is written each time, so that a resumed run repeats no row.

    Raises:
        ValueError: If it cannot be written; the old file is still there.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_tensorboard(folder: Path, row: Row) -> None:
    """Add the values of a row with an "epoch" to the logs in `folder`, if TensorBoard is there."""
    if not _is_installed("tensorboard"):
        return
    from torch.utils.tensorboard import SummaryWriter

    # One event file an epoch: nothing stays open, so a run that is killed has all its logs.
    with SummaryWriter(str(folder)) as writer:
        for name in row.keys() - {"epoch"}:
            writer.add_scalar(name, row[name], global_step=int(row["epoch"]))


def plot_curve(path: Path, history: Sequence[Row], accuracy_name: str) -> None:
    """Draw the training loss and the accuracy by epoch, if matplotlib is there.

    Args:
        path: Where to write the PNG.
        history: Rows with "epoch", "loss" and, where it was tested, "test_accuracy" in [0, 1].
        accuracy_name: What the accuracy is called in the picture.
    """
    if not _is_installed("matplotlib"):
        return
    axes = _new_axes()
    axes.plot(*_column(history, "loss"), color="tab:orange")
    axes.set(xlabel="epoch", ylabel="training loss (orange)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    right = axes.twinx()
    epochs, accuracies = _column(history, "test_accuracy")
    right.plot(epochs, [100 * value for value in accuracies], color="tab:blue", marker=".")
    right.set(ylabel=f"{accuracy_name} in % (blue)")
    _save(path, axes)


def plot_confusion(path: Path, confusion: Tensor, classes: Sequence[str]) -> None:
    """Draw a confusion matrix: int64 (K, K), true classes down, answers across.

    With more than 30 classes it has no names and numbers.
    """
    if not _is_installed("matplotlib"):
        return
    axes = _new_axes()
    shares = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="answer", ylabel="true class")
    named = [short(name) for name in classes] if len(classes) <= MANY else []
    places = range(len(named))
    axes.set_yticks(places, named, parse_math=False)  # a dollar sign in a name is one
    axes.set_xticks(places, named, rotation=90, parse_math=False)
    for row in places:
        for column in places:
            shade = "white" if shares[row, column] > 0.5 else "black"
            count = str(int(confusion[row, column]))
            axes.text(column, row, count, ha="center", va="center", color=shade, fontsize=7)
    _save(path, axes)


def plot_bars(
    path: Path, title: str, names: Sequence[str], bars: dict[str, list[list[float]]]
) -> None:
    """Draw groups of horizontal bars: for each of `names` one bar of every list in `bars`.

    A bar is as long as the mean of its values; a line goes from the lowest to the highest.
    """
    if not _is_installed("matplotlib"):
        return
    axes = _new_axes()
    height = 0.8 / len(bars)
    for number, (label, values) in enumerate(bars.items()):
        places = [place + number * height for place in range(len(names))]
        means = [mean(runs) for runs in values]
        below = [middle - min(runs) for middle, runs in zip(means, values, strict=True)]
        above = [max(runs) - middle for middle, runs in zip(means, values, strict=True)]
        drawn = axes.barh(places, means, height, label=label, xerr=(below, above), capsize=3)
        axes.bar_label(drawn, fmt="%.1f", padding=3)
    axes.set(title=title, yticks=[place + 0.4 - height / 2 for place in range(len(names))])
    axes.set_yticklabels(names)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=len(bars), frameon=False)
    _save(path, axes)


def _new_axes() -> "Axes":
    from matplotlib.figure import Figure  # not pyplot: it would look for a display

    return Figure(figsize=(7, 5), layout="constrained").add_subplot()


def _save(path: Path, axes: "Axes") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    axes.figure.savefig(path, dpi=120)


def _column(history: Sequence[Row], name: str) -> tuple[list[float], list[float]]:
    rows = [row for row in history if name in row]
    return [row["epoch"] for row in rows], [row[name] for row in rows]
