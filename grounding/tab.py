"""The segmentation tab: picture + prompt -> labelled masks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from grounding.grounders import GROUNDERS
from grounding.images import fetch_image, open_image
from grounding.overlay import HEADERS, annotations, draw_regions, phrase_colours, table_rows
from grounding.pipeline import Models, ModelStore, Result, run
from grounding.segmenters import SEGMENTERS
from page import hand_over_file, page_errors

SAMPLES = Path(__file__).parent.parent / "assets" / "samples" / "segmentation"
FULL_WEIGHTS_HELP = (
    "They know only the drawn objects of the samples. For photos, start the app where the Hugging "
    "Face hub can be reached, without `--weights demo` and `--offline`: the public weights are "
    "then downloaded at first use."
)

Infer = Callable[[str, str, Image.Image, str, float], Result]


def read_picture(path: str | None, url: str) -> Image.Image:
    """Return the picture of an address if there is one, else the uploaded one.

    Raises:
        ValueError: If there is neither or it is no picture.
    """
    if url.strip():
        return fetch_image(url.strip())
    if not path:
        raise ValueError("Choose a picture first: upload, paste or take one, or give its address.")
    return open_image(path)


def describe(result: Result, models: Models, threshold: float) -> str:
    """Say in Markdown what was found, how fast, and which weights were in use."""
    count = len(result.masks)
    missing = [phrase for phrase in result.phrases if phrase not in result.regions.labels]
    lines = []
    if count:
        lines.append(f"**Found {count} {'region' if count == 1 else 'regions'}.**")
    if missing:
        names = ", ".join(f"“{_plain(phrase)}”" for phrase in missing)
        lines.append(
            f"**Nothing found for {names}** with a score of at least {threshold:.2f}. "
            "A lower threshold or other words may help."
        )
    times = " · ".join(f"{stage} {seconds:.2f} s" for stage, seconds in result.seconds.items())
    lines.append(f"Time: {times}.")
    sources = models.grounder_source, models.segmenter_source
    names = " and ".join(dict.fromkeys(source.name for source in sources))
    if any(source.demo for source in sources):
        lines.append(f"⚠️ In use: **{names}**. {FULL_WEIGHTS_HELP}")
    else:
        lines.append(f"Weights in use: {names}.")
    return "\n\n".join(lines)


def _plain(text: str) -> str:
    """Escape what Markdown or HTML would read as markup."""
    return "".join(f"&#{ord(c)};" if not (c.isalnum() or c.isspace()) else c for c in text)


def _samples() -> list[list[str]]:
    rows = json.loads((SAMPLES / "samples.json").read_text())
    return [[str(SAMPLES / row["file"]), row["prompt"]] for row in rows]


def build_tab(store: ModelStore, gpu: Callable[[Infer], Infer]) -> None:
    """Build the tab inside the current `gr.Blocks`.

    Args:
        store: The models.
        gpu: Wraps the function that needs a GPU (`spaces.GPU` on ZeroGPU).
    """

    @gpu
    def infer(
        grounder: str, segmenter: str, image: Image.Image, prompt: str, threshold: float
    ) -> Result:
        # By name: ZeroGPU calls this in another process, and models are no arguments to send.
        return run(store.get(grounder, segmenter), image, prompt, threshold)

    def segment(
        image: str | None,
        url: str,
        prompt: str,
        grounder: str,
        segmenter: str,
        threshold: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio hands it over)
    ) -> tuple[Any, ...]:
        """Find what the prompt names in a picture and outline it.

        Args:
            image: The picture; not needed when url is given.
            url: Address of a picture, or empty.
            prompt: What to look for: phrases separated by commas, line ends or full stops.
            grounder: Model that finds regions by text.
            segmenter: Model that refines regions to masks.
            threshold: Lowest score of a region, from 0 to 1.
            progress: Shows on the page how far a download is.

        Returns:
            The picture with its masks, the grounder's own answer, a table and a status text.
        """
        with page_errors():
            picture = read_picture(image, url)
            models = store.get(grounder, segmenter, lambda share, text: progress(share, desc=text))
            progress(1.0, desc="Looking for regions")
            result = infer(grounder, segmenter, picture, prompt, threshold)
        colours = phrase_colours(result.phrases)
        shown = annotations(picture, result.regions.labels, result.masks.masks)
        return (
            gr.AnnotatedImage(value=shown, color_map=colours),
            draw_regions(picture, result.regions, colours),
            table_rows(result.regions, result.masks),
            describe(result, models, threshold),
        )

    samples = _samples()
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            image = gr.Image(
                value=samples[0][0],
                type="filepath",
                label="Picture",
                sources=["upload", "clipboard", "webcam"],
                height=360,
                elem_id="seg-image",
            )
            url = gr.Textbox(
                label="Or the address of a picture",
                placeholder="https://…",
                max_lines=1,
                elem_id="seg-url",
            )
            prompt = gr.Textbox(
                value=samples[0][1],
                label="What to look for",
                placeholder="a dog, the blue car",
                info="Several phrases: separate them with commas, or one per line.",
                lines=1,
                max_lines=5,
                elem_id="seg-prompt",
            )
            button = gr.Button("Run", variant="primary", elem_id="seg-run")
            with gr.Row():
                grounder = gr.Dropdown(
                    list(GROUNDERS), label="Grounder", info="finds regions by text"
                )
                segmenter = gr.Dropdown(
                    list(SEGMENTERS), label="Segmenter", info="refines them to masks"
                )
            first = next(iter(GROUNDERS.values()))
            threshold = gr.Slider(
                0.05, 0.95, first.threshold, step=0.01, label="Threshold", elem_id="seg-threshold"
            )
            gr.Examples(samples, [image, prompt], label="Samples", elem_id="seg-samples")
        with gr.Column(scale=6, min_width=320):
            result = gr.AnnotatedImage(label="Masks", height=460, elem_id="seg-result")
            status = gr.Markdown(f"Weights: {store.weights.describe()}", elem_id="seg-status")
            regions = gr.Image(
                label="What the grounder saw",
                height=360,
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="seg-regions",
            )
            table = gr.Dataframe(
                headers=HEADERS, label="Found", interactive=False, elem_id="seg-table"
            )

    hand_over_file(image)
    # Both or neither: an old address must not win over a new upload.
    gr.on([image.upload, image.input], lambda: "", None, url, api_visibility="private")
    grounder.change(
        lambda name: GROUNDERS[name].threshold, grounder, threshold, api_visibility="private"
    )
    inputs = [image, url, prompt, grounder, segmenter, threshold]
    gr.on(
        [button.click, prompt.submit, url.submit],
        segment,
        inputs,
        [result, regions, table, status],
        api_name="segment",
        concurrency_id="models",
        concurrency_limit=1,
        show_progress_on=[result],
    )
