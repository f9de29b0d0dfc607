"""The segmentation tab: its components, and which of them an event takes and changes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from PIL import Image

from grounding.compare import HEADERS as COMPARE_HEADERS
from grounding.events import Events, Fetch, Infer, show, show_stages
from grounding.grounders import GROUNDERS
from grounding.images import fetch_image
from grounding.overlay import HEADERS, Style
from grounding.pipeline import ModelStore, propose
from grounding.segmenters import SEGMENTERS
from grounding.select import Choice, Proposals
from grounding.session import Settings
from page import hand_over_file

SAMPLES = Path(__file__).parent.parent / "assets" / "samples" / "segmentation"
SESSION_SECONDS = 3600
CLICK_DOWNLOAD = "document.querySelector('#seg-zip').click()"
PROMPT_HELP = (
    "Separate phrases with commas. “a dog: 0.4” gives a phrase its own threshold; "
    "“a dog -collar” takes the collar away."
)


def _samples() -> list[list[str]]:
    rows = json.loads((SAMPLES / "samples.json").read_text())
    return [[str(SAMPLES / row["file"]), row["prompt"]] for row in rows]


@dataclass(frozen=True)
class Inputs:
    """Hold the components of the left column."""

    image: gr.Image
    url: gr.Textbox
    prompt: gr.Textbox
    run: gr.Button
    compare: gr.Button
    grounder: gr.Dropdown
    segmenter: gr.Dropdown
    threshold: gr.Slider
    more: list[gr.Slider | gr.Checkbox]


@dataclass(frozen=True)
class Outputs:
    """Hold the components of the right column, and what is kept between events."""

    result: gr.AnnotatedImage
    status: gr.Markdown
    stages: gr.ImageSlider
    table: gr.Dataframe
    regions: gr.Image
    pack: gr.Button
    file: gr.DownloadButton
    gallery: gr.Gallery
    numbers: gr.Dataframe
    comparison: gr.Column
    session: gr.State
    settings: gr.State


def _build_picture(sample: list[str], urls: bool) -> tuple[gr.Image, gr.Textbox, gr.Textbox]:
    image = gr.Image(
        value=sample[0],
        type="filepath",
        label="Picture",
        sources=["upload", "clipboard", "webcam"],
        height=360,
        alt_text="The picture to look at",
        elem_id="seg-image",
    )
    url = gr.Textbox(
        label="Or the address of a picture",
        placeholder="https://…",
        max_lines=1,
        visible=urls,
        elem_id="seg-url",
    )
    prompt = gr.Textbox(
        value=sample[1],
        label="What to look for",
        placeholder="a dog, the blue car",
        info=PROMPT_HELP,
        lines=1,
        max_lines=5,
        elem_id="seg-prompt",
    )
    return image, url, prompt


def _build_more() -> list[gr.Slider | gr.Checkbox]:
    """Build the settings that few need, in the order of `read_settings`."""
    choice, style = Choice(0.0), Style()
    with gr.Accordion("More settings", open=False, elem_id="seg-more"):
        return [
            gr.Slider(1, choice.count, choice.count, step=1, label="Most detections"),
            gr.Slider(0, 20, choice.min_area, step=0.1, label="Smallest area, % of the picture"),
            gr.Checkbox(choice.best_only, label="Only the best of each phrase"),
            gr.Checkbox(choice.whole, label="Boxes around the whole picture count"),
            gr.Slider(0.1, 1, style.opacity, step=0.05, label="Opacity of the areas"),
            gr.Slider(0, 6, style.outline, step=1, label="Width of the outlines"),
        ]


def _build_inputs(urls: bool) -> Inputs:
    samples = _samples()
    image, url, prompt = _build_picture(samples[0], urls)
    with gr.Row():
        run = gr.Button("Run", variant="primary", elem_id="seg-run", scale=3, min_width=120)
        compare = gr.Button("Compare all", elem_id="seg-compare", scale=2, min_width=120)
    with gr.Row():
        grounder = gr.Dropdown(list(GROUNDERS), label="Grounder", info="finds regions by text")
        segmenter = gr.Dropdown(list(SEGMENTERS), label="Segmenter", info="refines them to masks")
    first = next(iter(GROUNDERS.values()))
    threshold = gr.Slider(
        0.05,
        0.95,
        first.threshold,
        step=0.01,
        label="Threshold",
        info="After a run it can be moved without another.",
        elem_id="seg-threshold",
    )
    more = _build_more()
    gr.Examples(samples, [image, prompt], label="Samples", elem_id="seg-samples")
    return Inputs(image, url, prompt, run, compare, grounder, segmenter, threshold, more)


def _build_comparison() -> tuple[gr.Column, gr.Gallery, gr.Dataframe]:
    with gr.Column(visible=False, elem_id="seg-comparison") as column:
        gallery = gr.Gallery(
            label="Grounders side by side",
            columns=3,
            height="auto",
            object_fit="contain",
            format="png",
            interactive=False,
            elem_id="seg-gallery",
        )
        numbers = gr.Dataframe(
            headers=COMPARE_HEADERS, label="In numbers", interactive=False, wrap=True
        )
        gr.Markdown(
            "<small>SAM 2 reads the picture once; the first row's time includes that.</small>"
        )
    return column, gallery, numbers


def _build_table() -> gr.Dataframe:
    return gr.Dataframe(
        headers=HEADERS,
        datatype=["bool", "number", "str", "number", "number", "str", "number"],
        type="array",
        label="Found: untick a row to hide it",
        interactive=True,
        static_columns=list(range(1, len(HEADERS))),
        buttons=["copy"],
        elem_id="seg-table",
    )


def _build_outputs(weights: str) -> Outputs:
    comparison, gallery, numbers = _build_comparison()
    return Outputs(
        comparison=comparison,
        gallery=gallery,
        numbers=numbers,
        result=gr.AnnotatedImage(label="Masks", height=460, elem_id="seg-result"),
        status=gr.Markdown(f"Weights: {weights}", elem_id="seg-status"),
        table=_build_table(),
        stages=gr.ImageSlider(
            label="What the grounder proposed (left), what SAM 2 made of it (right)",
            interactive=False,
            max_height=460,
            elem_id="seg-stages",
        ),
        pack=gr.Button("Download everything (ZIP)", elem_id="seg-pack"),
        file=gr.DownloadButton("ZIP", visible="hidden", elem_id="seg-zip"),
        # For the API, which returns this picture by itself too.
        regions=gr.Image(label="What the grounder saw", interactive=False, visible=False),
        session=gr.State(None, time_to_live=SESSION_SECONDS),
        settings=gr.State(Settings()),
    )


def _wire_inputs(inputs: Inputs) -> None:
    hand_over_file(inputs.image)
    # Both or neither: an old address must not win over a new upload.
    gr.on(
        [inputs.image.upload, inputs.image.input],
        lambda: "",
        None,
        inputs.url,
        api_visibility="private",
    )
    # Only a person's choice: a link to settings brings its own threshold.
    inputs.grounder.input(
        lambda name: GROUNDERS[name].threshold,
        inputs.grounder,
        inputs.threshold,
        api_visibility="private",
    )


def _wire_run(inputs: Inputs, outputs: Outputs, events: Events) -> None:
    asked = [inputs.image, inputs.url, inputs.prompt, inputs.grounder, inputs.segmenter]
    started = gr.on(
        [inputs.run.click, inputs.prompt.submit, inputs.url.submit],
        events.segment,
        [*asked, inputs.threshold, outputs.settings],
        [outputs.result, outputs.regions, outputs.table, outputs.status, outputs.session],
        api_name="segment",
        concurrency_id="models",
        concurrency_limit=1,
        show_progress_on=[outputs.result],
    )
    # A step of its own, so that the answer to an API client stays as short as it was.
    started.success(
        show_stages,
        [outputs.session, outputs.settings, inputs.threshold],
        [outputs.stages, outputs.comparison],
        api_visibility="private",
        show_progress="hidden",
    )


def _wire_look(inputs: Inputs, outputs: Outputs, events: Events) -> None:
    """Let the page answer from what is already computed."""
    shown = [outputs.result, outputs.regions, outputs.table, outputs.status, outputs.stages]
    state = [outputs.session, outputs.settings, inputs.threshold]
    quiet = {
        "api_visibility": "private",
        "show_progress": "hidden",
        "trigger_mode": "always_last",
    }
    inputs.threshold.input(show, state, shown, **quiet)
    gr.on(
        [component.input for component in inputs.more],
        events.configure,
        [outputs.session, inputs.threshold, *inputs.more],
        [outputs.settings, *shown],
        **quiet,
    )
    outputs.table.input(events.tick, [*state, outputs.table], [outputs.session, *shown], **quiet)
    packed = outputs.pack.click(events.pack, state, outputs.file, api_visibility="private")
    # The file arrives on the page a moment after the event that brings it.
    packed.success(None, js=f"() => setTimeout(() => {{ {CLICK_DOWNLOAD} }}, 300)")


def _wire_compare(inputs: Inputs, outputs: Outputs, events: Events) -> None:
    started = inputs.compare.click(
        lambda: gr.Column(visible=True), None, outputs.comparison, api_visibility="private"
    )
    started.success(
        events.compare,
        [inputs.image, inputs.url, inputs.prompt, inputs.segmenter, outputs.settings],
        [outputs.gallery, outputs.numbers],
        api_name="compare",
        concurrency_id="models",
        concurrency_limit=1,
        show_progress_on=[outputs.gallery],
    )


def build_tab(
    store: ModelStore, gpu: Callable[[Infer], Infer], fetch: Fetch | None = fetch_image
) -> list[gr.components.Component]:
    """Build the tab inside the current `gr.Blocks`.

    Args:
        store: The models.
        gpu: Wraps the function that needs a GPU (`spaces.GPU` on ZeroGPU).
        fetch: Opens the address of a picture; without it there is no field for addresses.

    Returns:
        The components that a link sets: prompt, grounder, segmenter and threshold.
    """

    @gpu
    def infer(
        grounder: str, segmenter: str, image: Image.Image, prompt: str, threshold: float
    ) -> Proposals:
        # By name: ZeroGPU calls this in another process, and models are no arguments to send.
        return propose(store.get(grounder, segmenter), image, prompt, threshold)

    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            inputs = _build_inputs(urls=fetch is not None)
        with gr.Column(scale=6, min_width=320):
            outputs = _build_outputs(store.weights.describe())
    _wire_inputs(inputs)
    events = Events(store, infer, fetch)
    _wire_run(inputs, outputs, events)
    _wire_look(inputs, outputs, events)
    _wire_compare(inputs, outputs, events)
    return [inputs.prompt, inputs.grounder, inputs.segmenter, inputs.threshold]
