from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vit import report
from vit.confusion import MANY

HISTORY = [
    {"epoch": 1, "loss": 2.0},
    {"epoch": 2, "loss": 1.5, "test_accuracy": 0.5},
    {"epoch": 3, "loss": 1.0, "test_accuracy": 0.75},
]


def test_write_csv(tmp_path: Path) -> None:
    for rows in (HISTORY[:1], HISTORY[:2]):  # the second replaces the first
        report.write_csv(tmp_path / "log.csv", rows)
    assert (tmp_path / "log.csv").read_text().split() == [
        "epoch,loss,test_accuracy",
        "1,2.0,",
        "2,1.5,0.5",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_write_tensorboard(tmp_path: Path) -> None:
    for row in HISTORY:
        report.write_tensorboard(tmp_path, row)
    values = {}
    for path in sorted(tmp_path.iterdir()):
        events = EventAccumulator(str(path)).Reload()
        for scalar in events.Scalars("loss"):
            values[scalar.step] = scalar.value
    assert values == {1: 2.0, 2: 1.5, 3: 1.0}


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return {colour for _, colour in image.convert("RGB").getcolors(10**6)}


def test_plot_curve(tmp_path: Path) -> None:
    report.plot_curve(tmp_path / "curve.png", HISTORY, "test accuracy")
    assert colours(tmp_path / "curve.png") >= {(31, 119, 180), (255, 127, 14)}  # blue and orange


@pytest.mark.parametrize(
    ("confusion", "darkest"),
    [
        (torch.tensor([[3, 0], [0, 5]]), (8, 48, 107)),  # all right: the map's darkest blue
        (torch.zeros(2, 2, dtype=torch.int64), (0, 0, 0)),  # a class without pictures
    ],
)
def test_plot_confusion(
    tmp_path: Path, confusion: torch.Tensor, darkest: tuple[int, int, int]
) -> None:
    report.plot_confusion(tmp_path / "new" / "confusion.png", confusion, ("cat", "dog"))
    seen = colours(tmp_path / "new" / "confusion.png")
    assert darkest in seen
    assert (247, 251, 255) in seen  # no share at all


def test_dollar_signs_in_a_class_name_are_no_formula(tmp_path: Path) -> None:
    report.plot_confusion(tmp_path / "confusion.png", torch.eye(2).long(), ("a$$", "$5 to $6"))
    assert colours(tmp_path / "confusion.png")


def test_plot_confusion_of_many_classes_has_no_text(tmp_path: Path) -> None:
    count = MANY + 1
    confusion = torch.full((count, count), 7)
    report.plot_confusion(
        tmp_path / "confusion.png", confusion, [f"class {i}" for i in range(count)]
    )
    with Image.open(tmp_path / "confusion.png") as image:
        middle = image.convert("RGB").crop((300, 250, 500, 350))
    assert len(middle.getcolors()) == 1, "no numbers in the cells"


def test_plot_bars(tmp_path: Path) -> None:
    bars = {"test": [[70.0], [60.0, 62.0, 64.0]], "train": [[80.0], [90.0, 91.0]]}
    report.plot_bars(tmp_path / "bars.png", "depth", ("4", "6"), bars)
    assert colours(tmp_path / "bars.png") >= {(31, 119, 180), (255, 127, 14)}


def test_without_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "USES", {"no_such_package": "pictures", "csv": "tables"})
    report.announce_missing_packages()
    assert capsys.readouterr().out == (
        "No pictures: no_such_package is missing; pip install -r requirements-train.txt\n"
    )
    monkeypatch.setattr(report, "_is_installed", lambda _: False)
    report.write_tensorboard(tmp_path / "logs", HISTORY[0])
    report.plot_curve(tmp_path / "curve.png", HISTORY, "test accuracy")
    report.plot_confusion(tmp_path / "confusion.png", torch.eye(2), ("cat", "dog"))
    report.plot_bars(tmp_path / "bars.png", "depth", ("4",), {"test": [[70.0]]})
    assert not list(tmp_path.iterdir())
