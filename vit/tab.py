"""The ViT tab: picture -> class probabilities and where the model looked.

torch is imported with the first picture, so that the page is up before.
"""

import json
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
from PIL import Image

from page import hand_over_file, page_errors
from vit.heatmap import enlarge, overlay

if TYPE_CHECKING:
    from vit.checkpoint import Checkpoint
    from vit.predictor import Prediction, Predictor

SAMPLES = Path(__file__).parent.parent / "assets" / "samples" / "cifar10"
HEAD_FUSIONS = ("mean", "max", "min")  # the keys of vit.rollout.HEAD_FUSIONS
FIRST = 7  # the sample shown when the page opens
SIDE = 448  # of the shown pictures, in pixels
CSS = """
#vit-samples .grid-wrap { max-height: none; min-height: 0; }
#vit-samples .grid-container { grid-template-columns: repeat(5, minmax(0, 1fr)); gap: 6px; }
#vit-samples .thumbnail-item { min-width: 0; }
#vit-samples .caption-label {
    left: 0; right: 0; bottom: 0; max-width: none; margin: 0; padding: 1px 2px; border: 0;
    border-radius: 0; font-size: 10.5px; line-height: 1.4; text-align: center; }
#vit-image img { width: 100%; height: 100%; object-fit: contain; }
#vit-note { padding: 4px 8px; }
"""
ROLLOUT_HELP = """Attention rollout multiplies the attention of all layers, residual connections
included, and shows how much of each patch has reached what the answer is read from: the class token
or, in a model without one, all patches together. It is the same for every class. Dark to yellow is
lowest to highest *within this picture*."""

Answer = tuple[dict[str, float], Image.Image, Image.Image, str]
OpenImage = Callable[[str], Image.Image]


def load_samples() -> list[tuple[Image.Image, str]]:
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


def explain(
    prediction: "Prediction", picture: Image.Image, fusion: str, ratio: float
) -> Image.Image:
    """Lay the attention rollout over the part of `picture` that the model saw.

    Raises:
        ValueError: If `fusion` or `ratio` is none that `attention_rollout` takes.
    """
    from vit.rollout import attention_map, attention_rollout

    prefix = prediction.config.num_prefix_tokens
    rollout = attention_rollout(prediction.attentions, fusion, ratio, prefix)
    heat = attention_map(rollout, prediction.config.grid_size, prefix)[0].numpy()
    return overlay(picture.crop(prediction.box), heat, SIDE)


def build_tab(checkpoint_path: Path, device: str, open_image: OpenImage) -> None:
    """Build the tab inside the current `gr.Blocks`.

    Args:
        checkpoint_path: File written by `train_vit.py`; read at the first picture.
        device: Torch device on which the model runs.
        open_image: Opens an uploaded file as an upright RGB picture, or raises a ValueError with
            a sentence for the user.
    """

    @cache
    def load() -> "Predictor":
        from vit.predictor import Predictor

        return Predictor(checkpoint_path, device)

    samples = load_samples()
    truths = {(picture.size, picture.tobytes()): label for picture, label in samples}

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
            if not image:
                raise ValueError("Choose a picture first: pick one, or upload, paste or take one.")
            picture = open_image(image)
            prediction = load().predict(picture)
            shown = explain(prediction, picture, head_fusion, discard_ratio)
        truth = truths.get((picture.size, picture.tobytes()))
        text = describe(prediction, truth, picture.size)
        note = f"{text}\n\n{describe_checkpoint(load().checkpoint)}"
        return prediction.probabilities, shown, enlarge(prediction.seen, SIDE), note

    def refresh(
        image: str | None, head_fusion: str, discard_ratio: float
    ) -> Answer | tuple[None, None, None, str]:
        return classify(image, head_fusion, discard_ratio) if image else (None, None, None, "")

    def pick(event: gr.SelectData) -> Image.Image:
        return samples[event.index][0]

    with gr.Row():
        with gr.Column(scale=4, min_width=320):
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
            button = gr.Button("Classify", variant="primary", elem_id="vit-classify")
            gr.HTML(f"<style>{CSS}</style>", padding=False)
        with gr.Column(scale=7, min_width=320):
            with gr.Row():
                heat = gr.Image(
                    label="Where it looked",
                    format="png",
                    interactive=False,
                    elem_id="vit-overlay",
                )
                seen = gr.Image(
                    label="What the model saw",
                    format="png",
                    interactive=False,
                    elem_id="vit-seen",
                )
            with gr.Row():
                label = gr.Label(
                    label="Class probabilities",
                    num_top_classes=5,
                    show_heading=False,
                    min_width=280,
                    elem_id="vit-label",
                )
                with gr.Column(min_width=280):
                    note = gr.Markdown(
                        "The model is being loaded …", label="Note", elem_id="vit-note"
                    )
            with gr.Accordion("Attention rollout", open=True):
                gr.Markdown(ROLLOUT_HELP)
                with gr.Row():
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

    hand_over_file(image)
    gallery.select(pick, None, image, api_visibility="private")
    inputs, outputs = [image, fusion, ratio], [label, heat, seen, note]
    button.click(classify, inputs, outputs, api_name="classify", show_progress_on=[heat])
    # No triggers: when the page opens and whenever an input changes.
    gr.on(
        None,
        refresh,
        inputs,
        outputs,
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="always_last",
    )
