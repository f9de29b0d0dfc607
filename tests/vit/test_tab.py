import asyncio
from collections import Counter
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from PIL import Image

from vit import rollout, tab, view
from vit.model import ViTConfig
from vit.predictor import Prediction

Handler = Callable[..., tuple[Any, ...]]


def open_image(path: str) -> Image.Image:
    if path.endswith(".txt"):
        raise ValueError("<b>This</b> is no picture.")
    with Image.open(path) as image:
        return image.convert("RGB")


def build(checkpoint: Path) -> gr.Blocks:
    async def inside() -> gr.Blocks:
        with gr.Blocks() as blocks:
            tab.build_tab(checkpoint, "cpu", open_image)
        return blocks

    # Outside of an event loop Gradio makes its own ones and never closes them.
    return asyncio.run(inside())


def handler(page: gr.Blocks, name: str) -> Handler:
    return next(fn.fn for fn in page.fns.values() if fn.name == name)


@pytest.fixture
def page(tiny_checkpoint: Path) -> gr.Blocks:
    return build(tiny_checkpoint)


@pytest.fixture
def classify(page: gr.Blocks) -> Handler:
    return handler(page, "classify")


def test_samples() -> None:
    samples = tab.load_samples()
    assert set(Counter(label for _, label in samples).values()) == {3}
    assert len(samples) == 30
    assert {picture.size for picture, _ in samples} == {(32, 32)}
    assert len({picture.tobytes() for picture, _ in samples}) == 30


def test_fusions_are_those_of_rollout() -> None:
    assert tuple(rollout.HEAD_FUSIONS) == tab.HEAD_FUSIONS


def test_classify_is_the_only_public_event(page: gr.Blocks) -> None:
    public = [fn.api_name for fn in page.fns.values() if fn.api_visibility == "public"]
    assert public == ["classify"]


def test_a_sample(tmp_path: Path, classify: Handler) -> None:
    picture, label = tab.load_samples()[3]
    picture.save(tmp_path / "any name.png")
    probabilities, overlay, seen, note = classify(str(tmp_path / "any name.png"), "max", 0.5)
    assert list(probabilities) == ["red", "green", "blue"]
    assert overlay.size == seen.size == (view.SIDE, view.SIDE)
    assert f"True label: **{label}** — not a class of this model" in note
    assert "**87.5%** right on the 1,234 test pictures of colours" in note


@pytest.mark.parametrize(
    ("classes", "verdict"),
    [(("airplane", "<b>"), "✓ right"), (("<b>", "airplane"), "✗ wrong")],
)
def test_verdict(classes: tuple[str, str], verdict: str) -> None:
    probabilities = dict(zip(classes, (0.75, 0.25), strict=True))
    seen = Image.new("RGB", (8, 8))
    prediction = Prediction(probabilities, torch.empty(0), ViTConfig(), seen, (0, 0, 8, 8))
    text = tab.describe(prediction, "airplane", (8, 8))
    assert text == f"### {escape(classes[0])}, 75%\nTrue label: **airplane** — {verdict}"


@pytest.mark.parametrize(
    "options",
    [
        {"pool": "mean"},
        {"pool": "seq", "stem": "conv"},
        {"distilled": True},
        {"image_size": 12, "patch_size": 4},
        {"classes": ("a & b", "7")},
    ],
    ids=str,
)
def test_any_checkpoint(
    tmp_path: Path, make_checkpoint: Callable[..., Path], options: dict[str, Any]
) -> None:
    classify = handler(build(make_checkpoint(**options)), "classify")
    tab.load_samples()[0][0].save(tmp_path / "own.png")
    probabilities, overlay, seen, note = classify(str(tmp_path / "own.png"), "mean", 0.5)
    assert tuple(probabilities) == options.get("classes", ("red", "green", "blue"))
    assert overlay.size == seen.size == (view.SIDE, view.SIDE)
    assert f"It knows {len(probabilities)} classes" in note


def test_an_own_picture(tmp_path: Path, classify: Handler) -> None:
    Image.new("RGB", (64, 40), (0, 90, 200)).save(tmp_path / "own.png")
    _, overlay, seen, note = classify(str(tmp_path / "own.png"), "mean", 0.0)
    assert seen.getpixel((0, 0)) == (0, 90, 200)
    assert overlay.getpixel((0, 0)) != (0, 90, 200)
    assert "True label" not in note
    assert "The model saw the middle 40 × 40 of your picture, scaled to 8 × 8 pixels." in note


@pytest.mark.parametrize(
    ("image", "fusion", "message"),
    [
        (None, "mean", "Choose a picture first"),
        ("a.txt", "mean", "&lt;b&gt;This&lt;/b&gt; is no picture."),  # text, never HTML
        ("own.png", "sum", "head_fusion is &#x27;sum&#x27;"),
    ],
)
def test_errors_are_sentences(
    tmp_path: Path, classify: Handler, image: str | None, fusion: str, message: str
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "own.png")
    with pytest.raises(gr.Error) as caught:
        classify(image and str(tmp_path / image), fusion, 0.0)
    assert caught.value.message.startswith(message)


def test_a_page_without_checkpoint_opens_and_says_so(tmp_path: Path) -> None:
    classify = handler(build(tmp_path / "none.safetensors"), "classify")
    Image.new("RGB", (8, 8)).save(tmp_path / "own.png")
    with pytest.raises(gr.Error, match="is not a checkpoint"):
        classify(str(tmp_path / "own.png"), "mean", 0.0)


def test_no_picture_empties_the_page(page: gr.Blocks) -> None:
    assert handler(page, "look")(None) == (None, None, "")
    heat, other, seen = tab.draw(None, tab.NOTHING, view.BEST, view.ROLLOUT, view.BEST)
    assert (heat, other.value, other.visible, seen) == (None, None, False, None)
