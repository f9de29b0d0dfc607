"""The ViT tab: picture -> class probabilities and where the model looked.

torch is imported with the first picture, so that the page is up before.
"""

import json
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr
from PIL import Image

from page import hand_over_file, page_errors
from vit.facts import read_facts
from vit.heatmap import enlarge
from vit.panels import build_heads, build_learned, build_patch, build_test
from vit.view import (
    BEST,
    CLASS_METHODS,
    LAYER,
    METHODS,
    ROLLOUT,
    SECOND,
    SIDE,
    Look,
    Settings,
    explain,
    title,
)

if TYPE_CHECKING:
    from vit.checkpoint import Checkpoint
    from vit.predictor import Prediction, Predictor

SAMPLES = Path(__file__).parent.parent / "assets" / "samples" / "cifar10"
HEAD_FUSIONS = ("mean", "max", "min")  # the keys of vit.rollout.HEAD_FUSIONS
FIRST = 7  # the sample shown when the page opens
NOTHING = "nothing"  # to compare with
UNKNOWN = {"config": {"depth": 2, "num_heads": 2}, "classes": []}  # of a missing checkpoint
QUIET = {"api_visibility": "private", "show_progress": "hidden"}
CSS = """
#vit-samples .grid-wrap { max-height: none; min-height: 0; }
#vit-samples .grid-container { grid-template-columns: repeat(5, minmax(0, 1fr)); gap: 6px; }
#vit-samples .thumbnail-item { min-width: 0; }
#vit-samples .caption-label {
    left: 0; right: 0; bottom: 0; max-width: none; margin: 0; padding: 1px 2px; border: 0;
    border-radius: 0; font-size: 10.5px; line-height: 1.4; text-align: center; }
#vit-image img { width: 100%; height: 100%; object-fit: contain; }
#vit-note { padding: 4px 8px; }
.vit-sheet .image-container, .vit-sheet .image-frame { overflow-x: auto; }
.vit-sheet img { min-width: 600px; }
"""
COLOURS_HELP = "Dark to yellow is lowest to highest *within one map*."

Answer = tuple[dict[str, float], Image.Image, Image.Image, str]
Seen = tuple[Look | None, dict[str, float] | None, str]
Samples = list[tuple[Image.Image, str]]
OpenImage = Callable[[str], Image.Image]


def load_samples() -> Samples:
    """Read the bundled test pictures (RGB, 32x32) with their true labels."""
    rows = json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8"))

    def read(name: str) -> Image.Image:
        with Image.open(SAMPLES / name) as image:
            return image.convert("RGB")

    return [(read(row["file"]), row["label"]) for row in rows]


def describe_checkpoint(checkpoint: "Checkpoint") -> str:
    """Say in Markdown which model answers, how good it is, and on which data."""
    metrics = checkpoint.metrics
    millions = sum(p.numel() for p in checkpoint.model.parameters()) / 1e6
    return (
        f"Model: ViT with {millions:.1f} M parameters, **{metrics['test_accuracy']:.1%}** right on "
        f"the {metrics['test_images']:,} test pictures of {escape(metrics['data'])}. It knows "
        f"{len(checkpoint.classes)} classes and always answers with one of them."
    )


def describe(prediction: "Prediction", truth: str | None, size: tuple[int, int]) -> str:
    """Say in Markdown what the answer is, whether it is right, and what part was looked at."""
    best, probability = max(prediction.probabilities.items(), key=lambda item: item[1])
    answer = f"### {escape(best)}, {probability:.0%}"
    left, top, right, bottom = prediction.box
    if truth is not None:
        verdict = "✓ right" if truth == best else "✗ wrong"
        if truth not in prediction.probabilities:
            verdict = "not a class of this model"
        return f"{answer}\nTrue label: **{escape(truth)}** — {verdict}"
    part = "all" if (right, bottom) == size else f"the middle {right - left} × {bottom - top}"
    width, height = prediction.seen.size
    return f"{answer}\nThe model saw {part} of your picture, scaled to {width} × {height} pixels."


def build_tab(checkpoint_path: Path, device: str, open_image: OpenImage) -> None:
    """Build the tab inside the current `gr.Blocks`.

    Args:
        checkpoint_path: File written by `train_vit.py`; read at the first picture.
        device: Torch device on which the model runs.
        open_image: Opens an uploaded file as an upright RGB picture, or raises a ValueError with
            a sentence for the user.
    """
    facts = read_facts(checkpoint_path) or UNKNOWN
    samples, session = load_samples(), gr.State()
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            image, button = _build_input(samples)
        with gr.Column(scale=7, min_width=320):
            answer = _build_answer()
            settings = _build_settings(facts)
    shared = [settings.fusion, settings.ratio, *settings.layers]
    mapped = [settings.method, settings.label, *shared]
    pictures = [answer.heat, answer.other, answer.seen]
    drawings = [
        build_patch(session, pictures, facts["config"]["depth"]),
        build_heads(session),
        build_test(session, mapped),
    ]
    build_learned(session)

    classify, look = _make_handlers(checkpoint_path, device, open_image, samples)
    # For the API alone: the page itself keeps the answer in `session`.
    gr.on(
        [],
        classify,
        [image, settings.fusion, settings.ratio],
        [answer.label, answer.heat, answer.seen, answer.note],
        api_name="classify",
    )
    inputs = [session, settings.other_method, settings.other_label, *mapped]
    seen = [session, answer.label, answer.note]
    # No triggers: when the page opens and whenever the picture changes.
    opened = gr.on(None, look, [image], seen, **QUIET, trigger_mode="always_last")
    pressed = button.click(look, [image], seen, api_visibility="private", show_progress_on=seen[1])
    for event in (opened, pressed):
        event = event.success(draw, inputs, pictures, **QUIET)
        for drawing in drawings:
            event = event.success(*drawing, **QUIET)
    changes = [component.change for component in inputs[1:]]
    redrawn = gr.on(changes, draw, inputs, pictures, **QUIET, trigger_mode="always_last")
    redrawn.success(*drawings[-1], **QUIET)  # the test was about another map


def _make_handlers(
    checkpoint_path: Path, device: str, open_image: OpenImage, samples: Samples
) -> tuple[Callable[..., Answer], Callable[..., Seen]]:
    """Return the handlers that classify a picture: of the API, and of the page."""

    @cache
    def load() -> "Predictor":
        from vit.predictor import Predictor

        return Predictor(checkpoint_path, device)

    truths = {(picture.size, picture.tobytes()): label for picture, label in samples}

    def first_look(image: str | None) -> tuple[Look, str]:
        if not image:
            raise ValueError("Choose a picture first: pick one, or upload, paste or take one.")
        picture = open_image(image)
        seen = Look(load(), load().predict(picture), picture)
        truth = truths.get((picture.size, picture.tobytes()))
        text = describe(seen.prediction, truth, picture.size)
        return seen, f"{text}\n\n{describe_checkpoint(load().checkpoint)}"

    def classify(image: str | None, head_fusion: str, discard_ratio: float) -> Answer:
        """Classify a picture with the Vision Transformer and show where it looked.

        Args:
            image: The picture.
            head_fusion: How the heads of a layer are fused: mean, max or min.
            discard_ratio: Share of the lowest attention to leave out, from 0 to 0.95.

        Returns:
            Probabilities, the rollout over the picture, what the model saw, and a text.
        """
        with page_errors():
            seen, text = first_look(image)
            shown = explain(seen, Settings(head_fusion=head_fusion, discard_ratio=discard_ratio))
        return seen.prediction.probabilities, shown, enlarge(seen.prediction.seen, SIDE), text

    def look(image: str | None) -> Seen:
        if not image:
            return None, None, ""
        with page_errors():
            seen, text = first_look(image)
        return seen, seen.prediction.probabilities, text

    return classify, look


def draw(
    look: Look | None, other_method: str, other_label: str, method: str, label: str, *shared: Any
) -> tuple[dict[str, Any] | None, dict[str, Any] | None, Image.Image | None]:
    """Draw the map, the one to compare with, and what the model saw; no forward pass needed."""
    if look is None:
        return None, gr.Image(None, visible=False), None

    def update(settings: Settings) -> dict[str, Any]:
        with page_errors():
            return gr.Image(explain(look, settings), label=title(look, settings), visible=True)

    other = gr.Image(None, visible=False)
    if other_method != NOTHING:
        other = update(Settings(other_method, other_label, *shared))
    seen = enlarge(look.prediction.seen, SIDE)
    return update(Settings(method, label, *shared)), other, seen


def _build_input(samples: Samples) -> tuple[gr.Image, gr.Button]:
    """Build the left column: samples, own picture, button."""
    gr.Markdown("**Pick a CIFAR-10 test picture**, shown with its true label:")
    gallery = gr.Gallery(
        samples,
        label="CIFAR-10 test pictures",
        show_label=False,
        columns=5,
        height="auto",
        selected_index=FIRST,
        format="png",
        object_fit="cover",
        allow_preview=False,
        buttons=[],
        interactive=False,
        elem_id="vit-samples",
    )
    image = gr.Image(
        value=samples[FIRST][0],
        type="filepath",
        format="png",
        label="Or your own picture",
        sources=["upload", "clipboard", "webcam"],
        height=220,
        elem_id="vit-image",
    )
    hand_over_file(image)

    def pick(event: gr.SelectData) -> Image.Image:
        return samples[event.index][0]

    gallery.select(pick, None, image, api_visibility="private")
    button = gr.Button("Classify", variant="primary", elem_id="vit-classify")
    gr.HTML(f"<style>{CSS}</style>", padding=False)
    return image, button


class _Answer(NamedTuple):
    heat: gr.Image
    other: gr.Image
    seen: gr.Image
    label: gr.Label
    note: gr.Markdown


def _build_answer() -> _Answer:
    """Build what the model says and where it looked."""

    def picture(name: str, **options: Any) -> gr.Image:
        return gr.Image(
            label=name,
            format="png",
            interactive=False,
            min_width=210,
            buttons=["fullscreen", "download"],
            **options,
        )

    with gr.Row():
        heat = picture("Where it looked", elem_id="vit-overlay")
        other = picture("To compare", elem_id="vit-other", visible=False)
        seen = picture("What the model saw", elem_id="vit-seen")
    with gr.Row():
        label = gr.Label(
            label="Class probabilities",
            num_top_classes=5,
            show_heading=False,
            min_width=280,
            elem_id="vit-label",
        )
        with gr.Column(min_width=280):
            note = gr.Markdown("The model is being loaded …", label="Note", elem_id="vit-note")
    return _Answer(heat, other, seen, label, note)


class _Controls(NamedTuple):
    method: gr.Dropdown
    label: gr.Dropdown
    other_method: gr.Dropdown
    other_label: gr.Dropdown
    fusion: gr.Radio
    ratio: gr.Slider
    layers: list[gr.components.Component]  # first, last, layer, head


def _build_settings(facts: dict[str, Any]) -> _Controls:
    """Build the choice of the map and, folded, of one to compare with."""
    classes = [BEST, SECOND, *facts["classes"]]
    with gr.Accordion("How the map is made", open=True):
        with gr.Row():
            method = gr.Dropdown(list(METHODS), label="Method", elem_id="vit-method")
            label = gr.Dropdown(classes, label="For class", visible=False, elem_id="vit-class")
        help_text = gr.Markdown(f"{METHODS[ROLLOUT]} {COLOURS_HELP}")
        with gr.Row() as fusing:
            fusion, ratio = _build_fusion()
        with gr.Row() as ranged:
            first, last = _build_range(facts["config"]["depth"])
        with gr.Row(visible=False) as single:
            layer, head = _build_single(facts["config"])
        with gr.Row():
            compared = [NOTHING, *METHODS]
            other = gr.Dropdown(compared, label="Compare with", elem_id="vit-other-method")
            other_label = gr.Dropdown(
                classes, value=SECOND, label="For class", visible=False, elem_id="vit-other-class"
            )

    def adapt(method: str, other: str) -> tuple[Any, ...]:
        both = {method, other}
        return (
            f"{METHODS[method]} {COLOURS_HELP}",
            gr.Dropdown(visible=method in CLASS_METHODS),
            gr.Dropdown(visible=other in CLASS_METHODS),
            gr.Row(visible=ROLLOUT in both),
            gr.Row(visible=bool(both - {LAYER, NOTHING})),
            gr.Row(visible=LAYER in both),
        )

    outputs = [help_text, label, other_label, fusing, ranged, single]
    gr.on([method.change, other.change], adapt, [method, other], outputs, **QUIET)
    return _Controls(method, label, other, other_label, fusion, ratio, [first, last, layer, head])


def _build_fusion() -> tuple[gr.Radio, gr.Slider]:
    fusion = gr.Radio(
        list(HEAD_FUSIONS),
        value="mean",
        label="Head fusion",
        info="how the heads of a layer become one",
        elem_id="vit-fusion",
    )
    ratio = gr.Slider(
        0,
        0.95,
        0,
        step=0.05,
        label="Discard ratio",
        info="share of the lowest attention left out in every layer",
        elem_id="vit-discard",
    )
    return fusion, ratio


def _build_range(depth: int) -> tuple[gr.Slider, gr.Slider]:
    first = gr.Slider(1, depth, 1, step=1, label="From layer", elem_id="vit-first")
    last = gr.Slider(1, depth, depth, step=1, label="To layer", elem_id="vit-last")
    return first, last


def _build_single(config: dict[str, Any]) -> tuple[gr.Slider, gr.Slider]:
    depth, heads = config["depth"], config["num_heads"]
    layer = gr.Slider(1, depth, depth, step=1, label="Layer", elem_id="vit-layer")
    head = gr.Slider(
        0, heads, 0, step=1, label="Head", info="0 is the mean of all", elem_id="vit-head"
    )
    return layer, head
