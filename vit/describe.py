"""What the ViT tab says of an answer and of a checkpoint, in Markdown."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from common.images import MAX_SIDE
from vit.crop import Crop

if TYPE_CHECKING:
    from vit.predictor import Prediction

FEW = 12  # classes, which are named
SAID = ("confusion", "test_accuracy", "test_images", "data")  # metrics with a place of their own


def describe_answer(prediction: "Prediction", truth: str | None, size: tuple[int, int]) -> str:
    """Say what the answer is, whether it is right, and what part was looked at.

    Args:
        prediction: The answer.
        truth: The true label, if the picture is a sample.
        size: Width and height of the whole picture, in pixels.
    """
    best, probability = max(prediction.probabilities.items(), key=lambda item: item[1])
    answer = f"## {escape(best)}, {probability:.0%}"
    if truth is not None:
        verdict = "✓ right" if truth == best else "✗ wrong"
        if truth not in prediction.probabilities:
            verdict = "not a class of this model"
        return f"{answer}\nTrue label: **{escape(truth)}** — {verdict}"
    left, top, right, bottom = prediction.box
    part = f"{right - left} × {bottom - top} of the {size[0]} × {size[1]} pixels"
    if (right, bottom) == size and (left, top) == (0, 0):
        part = "all"
    elif prediction.box == Crop().box(size):
        part = f"the middle {right - left} × {bottom - top}"
    width, height = prediction.seen.size
    shrunk = f" (used at {size[0]} × {size[1]} pixels)" if max(size) == MAX_SIDE else ""
    seen = f"{part} of your picture{shrunk}, scaled to {width} × {height} pixels"
    return f"{answer}\nThe model saw {seen}."


def count_classes(classes: Sequence[str]) -> str:
    """Say how many classes there are.

    >>> count_classes(["cat"]), count_classes(["cat", "dog"])
    ('1 class', '2 classes')
    """
    return "1 class" if len(classes) == 1 else f"{len(classes)} classes"


def describe_checkpoint(name: str, facts: dict[str, Any]) -> str:
    """Say in a sentence or two which model answers, how good it is, and on which data.

    Args:
        name: What the page calls it.
        facts: Of `vit.facts.read_facts`.
    """
    metrics, count = facts["metrics"], facts["parameters"]
    parameters = f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"
    classes = facts["classes"]
    named = f" ({escape(', '.join(classes))})" if len(classes) <= FEW else ""
    return (
        f"Model: **{escape(name)}**, a ViT with {parameters} parameters, "
        f"**{metrics['test_accuracy']:.1%}** right on the {metrics['test_images']:,} test pictures "
        f"of {escape(metrics['data'])}. It knows {count_classes(classes)}{named} and always "
        "answers with one of them."
    )


def describe_details(facts: dict[str, Any]) -> str:
    """List the accuracy, the sizes, the recipe and the rest of the metrics."""
    metrics = facts["metrics"]
    recipe, *earlier = _recipes(facts["recipe"])
    others = {key: value for key, value in metrics.items() if key not in SAID}
    rows = [
        ("Accuracy", f"{metrics['test_accuracy']:.2%} of {metrics['test_images']:,} test pictures"),
        ("Data", metrics["data"]),
        ("Parameters", f"{facts['parameters']:,}"),
        ("Sizes", _listed(facts["config"])),
        ("Recipe", _listed(recipe)),
        ("Training", _listed(others)),
    ]
    rows += [("Before that" if i else "Before", _listed(r)) for i, r in enumerate(earlier)]
    return "\n".join(f"- **{key}**: {escape(text)}" for key, text in rows)


def _recipes(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the recipe of a run, then those of the runs whose weights it began with."""
    plain = {key: value for key, value in recipe.items() if key != "started_from"}
    before = recipe.get("started_from")
    return [plain, *(_recipes(before["recipe"]) if before else [])]


def _listed(values: dict[str, Any]) -> str:
    said = {key: value for key, value in values.items() if value not in ("", [])}
    numbers = {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in said.items()}
    return ", ".join(f"{key} {value}" for key, value in numbers.items())
