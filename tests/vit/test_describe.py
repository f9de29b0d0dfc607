from html import escape
from typing import Any

import pytest
import torch
from PIL import Image

from vit.describe import describe_answer, describe_checkpoint, describe_details
from vit.model import ViTConfig
from vit.predictor import Prediction

FACTS: dict[str, Any] = {
    "config": {"image_size": 32, "depth": 6},
    "classes": ["a", "b"],
    "recipe": {"lr": 0.001, "epochs": 9, "teacher": "", "lengthened": []},
    "metrics": {
        "test_accuracy": 0.875,
        "test_images": 1234,
        "data": "<colours>",
        "confusion": [[1, 2], [3, 4]],
        "device": "cpu",
    },
    "parameters": 3_210_000,
}


def prediction(box: tuple[int, int, int, int], *classes: str) -> Prediction:
    probabilities = dict(zip(classes, (0.75, 0.25), strict=True))
    seen = Image.new("RGB", (8, 8))
    return Prediction(probabilities, torch.empty(0), ViTConfig(), seen, box)


@pytest.mark.parametrize(
    ("classes", "verdict"),
    [
        (("airplane", "<b>"), "✓ right"),
        (("<b>", "airplane"), "✗ wrong"),
        (("oak", "ash"), "not a class of this model"),
    ],
)
def test_verdict(classes: tuple[str, str], verdict: str) -> None:
    text = describe_answer(prediction((0, 0, 8, 8), *classes), "airplane", (8, 8))
    assert text == f"## {escape(classes[0])}, 75%\nTrue label: **airplane** — {verdict}"


@pytest.mark.parametrize(
    ("box", "size", "part"),
    [
        ((0, 0, 40, 40), (40, 40), "all"),
        ((12, 0, 52, 40), (64, 40), "the middle 40 × 40"),
        ((0, 0, 40, 40), (64, 40), "40 × 40 of the 64 × 40 pixels"),  # moved
        ((20, 20, 40, 40), (40, 40), "20 × 20 of the 40 × 40 pixels"),  # the corner of a square
    ],
)
def test_what_was_seen(box: tuple[int, int, int, int], size: tuple[int, int], part: str) -> None:
    text = describe_answer(prediction(box, "a", "b"), None, size)
    assert f"The model saw {part} of your picture, scaled to 8 × 8 pixels." in text


def test_checkpoint() -> None:
    text = describe_checkpoint("my <run>", FACTS)
    assert text.startswith(
        "Model: **my &lt;run&gt;**, a ViT with 3.2 M parameters, **87.5%** right"
    )
    assert "on the 1,234 test pictures of &lt;colours&gt;. It knows 2 classes (a, b) and" in text


@pytest.mark.parametrize(("count", "named"), [(1, True), (12, True), (13, False)])
def test_few_classes_are_named(count: int, named: bool) -> None:
    text = describe_checkpoint("run", FACTS | {"classes": [f"<{i}" for i in range(count)]})
    assert (f"&lt;{count - 1}) and always" in text) == named


def test_details() -> None:
    assert describe_details(FACTS).splitlines() == [
        "- **Accuracy**: 87.50% of 1,234 test pictures",
        "- **Data**: &lt;colours&gt;",
        "- **Parameters**: 3,210,000",
        "- **Sizes**: image_size 32, depth 6",
        "- **Recipe**: lr 0.001, epochs 9",  # without a teacher
        "- **Training**: device cpu",
    ]


def test_details_of_a_run_that_began_with_weights_of_another() -> None:
    first = {"epochs": 3}
    second = {"epochs": 2, "started_from": {"recipe": first, "metrics": {"epoch": 3}}}
    recipe = {"epochs": 1, "started_from": {"recipe": second, "metrics": {}}}
    lines = describe_details(FACTS | {"recipe": recipe}).splitlines()
    assert "- **Recipe**: epochs 1" in lines
    assert lines[-2:] == ["- **Before**: epochs 2", "- **Before that**: epochs 3"]
    recipe = {"epochs": 0, "started_from": {"recipe": recipe, "metrics": {}}}
    lines = describe_details(FACTS | {"recipe": recipe}).splitlines()
    assert lines[-2:] == ["- **Before that**: epochs 2", "- **Before that**: epochs 3"]
