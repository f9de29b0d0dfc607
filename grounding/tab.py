"""The segmentation tab: its components, and which of them an event takes and changes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from grounding.batch import LIMIT
from grounding.compare import HEADERS as COMPARE_HEADERS
from grounding.core import Clicks, Masks, Regions
from grounding.events import Events, Fetch, show
from grounding.export import PARTS
from grounding.grounders import GROUNDERS
from grounding.images import fetch_image
from grounding.overlay import HEADERS, Style
from grounding.pipeline import ModelStore, propose
from grounding.retouch import BOX, HELP, TOOLS
from grounding.segmenters import SEGMENTERS
from grounding.select import Choice, Proposals
from grounding.session import EVERYTHING, Settings
from page import hand_over_file

SAMPLES = Path(__file__).parent.parent / "assets" / "samples" / "segmentation"
SESSION_SECONDS = 3600
# Requests that are seen to at once. Only one runs a model (see `Events`); while another waits for a
# slow server of pictures, it holds up nobody.
SLOTS = 4
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
QUIET = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
CLICK_DOWNLOAD = "document.querySelector('#seg-zip').click()"
PROMPT_HELP = (
    "Separate phrases with commas. “a dog: 0.4” gives a phrase its own threshold; "
    "“a dog -collar” takes the collar away."
)


def _samples() -> list[list[str]]:
    rows = json.loads((SAMPLES / "samples.json").read_text())
    return [[str(SAMPLES / row["file"]), row["prompt"]] for row in rows]


@dataclass(frozen=True)
class Several:
    """Hold the components that take several pictures."""

    files: gr.File
    run: gr.Button
    results: gr.Column
    file: gr.File
    gallery: gr.Gallery
    text: gr.Textbox


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
    several: Several


@dataclass(frozen=True)
class Correction:
    """Hold the components for correcting an answer by hand."""

    tool: gr.Radio
    phrase: gr.Dropdown
    canvas: gr.Image
    x: gr.Number
    y: gr.Number
    apply: gr.Button
    undo: gr.Button


@dataclass(frozen=True)
class Outputs:
    """Hold the components of the right column, and what is kept between events."""

    result: gr.AnnotatedImage
    status: gr.Markdown
    stages: gr.ImageSlider
    table: gr.Dataframe
    regions: gr.Image
    data: gr.JSON
    correction: Correction
    part: gr.Dropdown
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
        value="",  # which makes it optional for programs
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


def _build_several() -> Several:
    with gr.Accordion("Several pictures at once", open=False, elem_id="seg-several"):
        gr.Markdown(
            "All of them are asked for the prompt above, with its settings; the ZIP has a folder "
            "for each."
        )
        files = gr.File(label=f"Up to {LIMIT} pictures", file_count="multiple", height=140)
        run = gr.Button("Run on all", elem_id="seg-run-all")
        with gr.Column(visible=False) as results:
            file = gr.File(label="All files", interactive=False, elem_id="seg-all-zip")
            text = gr.Textbox(label="What came of them", interactive=False, elem_id="seg-all-text")
            gallery = gr.Gallery(
                label="Pictures with their masks",
                columns=2,
                height="auto",
                format="jpeg",
                elem_id="seg-all-gallery",
            )
    return Several(files, run, results, file, gallery, text)


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
    more, several = _build_more(), _build_several()
    gr.Examples(samples, [image, prompt], label="Samples", elem_id="seg-samples")
    return Inputs(image, url, prompt, run, compare, grounder, segmenter, threshold, more, several)


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


def _build_correction() -> Correction:
    with gr.Accordion("Correct by hand", open=False, elem_id="seg-correct"):
        tool = gr.Radio(
            list(TOOLS), value=TOOLS[0], label="Tool", info=HELP[TOOLS[0]], elem_id="seg-tool"
        )
        phrase = gr.Dropdown([], label="The box holds", visible=False, elem_id="seg-box-phrase")
        canvas = gr.Image(
            label="Click here",
            alt_text="The picture with its masks, to click on",
            interactive=False,
            format="jpeg",
            buttons=["fullscreen"],
            elem_id="seg-canvas",
        )
        with gr.Row(equal_height=True):
            # For those who cannot use a mouse.
            x, y = (
                gr.Number(
                    label=f"{name}, pixels",
                    min_width=90,
                    elem_id=f"seg-{name}",
                )
                for name in "xy"
            )
            apply = gr.Button("Apply there", min_width=110, elem_id="seg-apply")
            undo = gr.Button("Undo", min_width=90, elem_id="seg-undo")
    tool.change(
        lambda name: (gr.Radio(info=HELP[name]), gr.Dropdown(visible=name == BOX)),
        tool,
        [tool, phrase],
        api_visibility="private",
        show_progress="hidden",
    )
    return Correction(tool, phrase, canvas, x, y, apply, undo)


def _build_download() -> tuple[gr.Dropdown, gr.Button, gr.DownloadButton]:
    with gr.Row():
        part = gr.Dropdown(
            [EVERYTHING, *PARTS],
            label="What to take home",
            container=False,
            min_width=160,
            elem_id="seg-part",
        )
        pack = gr.Button("Download", min_width=160, elem_id="seg-pack")
    return part, pack, gr.DownloadButton("File", visible="hidden", elem_id="seg-zip")


def _build_outputs(weights: str) -> Outputs:
    comparison, gallery, numbers = _build_comparison()
    result = gr.AnnotatedImage(label="Masks", height=460, elem_id="seg-result")
    status = gr.Markdown(f"Weights: {weights}", elem_id="seg-status")
    table = _build_table()
    part, pack, file = _build_download()
    return Outputs(
        comparison=comparison,
        gallery=gallery,
        numbers=numbers,
        result=result,
        status=status,
        table=table,
        stages=gr.ImageSlider(
            label="What the grounder proposed (left), what SAM 2 made of it (right)",
            interactive=False,
            max_height=460,
            elem_id="seg-stages",
        ),
        correction=_build_correction(),
        part=part,
        pack=pack,
        file=file,
        # For the API, which returns this picture and the bare facts too.
        data=gr.JSON(label="Detections", visible=False),
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
    models = {"concurrency_id": "models", "concurrency_limit": SLOTS}
    gr.on(
        [inputs.run.click, inputs.prompt.submit, inputs.url.submit],
        events.run,
        [*asked, inputs.threshold, outputs.settings],
        [
            outputs.session,
            *_shown(outputs),
            outputs.correction.phrase,
            outputs.comparison,
        ],
        api_visibility="private",
        show_progress_on=[outputs.result],
        **models,
    )
    # For programs: without what the page keeps between events.
    gr.on(
        [],
        events.segment,
        [*asked, inputs.threshold],
        [*_shown(outputs)[:4], outputs.data],
        api_name="segment",
        **models,
    )


def _state(inputs: Inputs, outputs: Outputs) -> list[gr.components.Component]:
    return [outputs.session, outputs.settings, inputs.threshold]


def _shown(outputs: Outputs) -> list[gr.components.Component]:
    return [
        outputs.result,
        outputs.regions,
        outputs.table,
        outputs.status,
        outputs.stages,
        outputs.correction.canvas,
    ]


def _wire_correction(inputs: Inputs, outputs: Outputs, events: Events) -> None:
    tools, state, shown = outputs.correction, _state(inputs, outputs), _shown(outputs)
    corrected = [*state, tools.tool, tools.phrase]
    models = {
        "api_visibility": "private",
        "concurrency_id": "models",
        "concurrency_limit": SLOTS,
        "show_progress_on": [tools.canvas],
        "trigger_mode": "once",
    }
    tools.canvas.select(events.click, corrected, [outputs.session, *shown], **models)
    tools.apply.click(
        events.correct, [*corrected, tools.x, tools.y], [outputs.session, *shown], **models
    )
    tools.undo.click(events.undo, state, [outputs.session, *shown], **QUIET)


def _wire_several(inputs: Inputs, outputs: Outputs, events: Events) -> None:
    several = inputs.several
    started = several.run.click(
        lambda: gr.Column(visible=True), None, several.results, api_visibility="private"
    )
    started.success(
        events.batch,
        [
            several.files,
            inputs.prompt,
            inputs.grounder,
            inputs.segmenter,
            inputs.threshold,
            outputs.settings,
        ],
        [several.file, several.gallery, several.text],
        api_visibility="private",
        concurrency_id="models",
        concurrency_limit=SLOTS,
        show_progress_on=[several.text],
    )


def _wire_look(inputs: Inputs, outputs: Outputs, events: Events) -> None:
    """Let the page answer from what is already computed."""
    state, shown, quiet = _state(inputs, outputs), _shown(outputs), QUIET
    inputs.threshold.input(show, state, shown, **quiet)
    gr.on(
        [component.input for component in inputs.more],
        events.configure,
        [outputs.session, inputs.threshold, *inputs.more],
        [outputs.settings, *shown],
        **quiet,
    )
    outputs.table.input(events.tick, [*state, outputs.table], [outputs.session, *shown], **quiet)
    packed = outputs.pack.click(
        events.pack, [*state, outputs.part], outputs.file, api_visibility="private"
    )
    # The file arrives on the page a moment after the event that brings it.
    packed.success(None, js=f"() => setTimeout(() => {{ {CLICK_DOWNLOAD} }}, 300)")


def _wire_compare(inputs: Inputs, outputs: Outputs, events: Events) -> None:
    started = inputs.compare.click(
        lambda: gr.Column(visible=True), None, outputs.comparison, api_visibility="private"
    )
    started.success(
        events.compare,
        [inputs.image, inputs.url, inputs.prompt, inputs.segmenter],
        [outputs.gallery, outputs.numbers, outputs.data],
        api_name="compare",
        concurrency_id="models",
        concurrency_limit=SLOTS,
        show_progress_on=[outputs.gallery],
    )


def build_tab(
    store: ModelStore,
    gpu: Callable[[Callable[..., Any]], Callable[..., Any]],
    fetch: Fetch | None = fetch_image,
) -> list[gr.components.Component]:
    """Build the tab inside the current `gr.Blocks`.

    Args:
        store: The models.
        gpu: Wraps the functions that need a GPU (`spaces.GPU` on ZeroGPU).
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

    @gpu
    def draw(
        grounder: str,
        segmenter: str,
        image: Image.Image,
        what: Regions | tuple[np.ndarray, Clicks],
    ) -> Masks:
        model = store.get(grounder, segmenter).segmenter
        return (
            model.segment(image, what) if isinstance(what, Regions) else model.refine(image, *what)
        )

    with gr.Row(elem_id="seg-row"):
        with gr.Column(scale=4, min_width=320, elem_id="seg-left"):
            inputs = _build_inputs(urls=fetch is not None)
        with gr.Column(scale=6, min_width=320, elem_id="seg-right"):
            outputs = _build_outputs(store.weights.describe())
    _wire_inputs(inputs)
    events = Events(store, infer, draw, fetch)
    _wire_run(inputs, outputs, events)
    _wire_look(inputs, outputs, events)
    _wire_compare(inputs, outputs, events)
    _wire_correction(inputs, outputs, events)
    _wire_several(inputs, outputs, events)
    return [inputs.prompt, inputs.grounder, inputs.segmenter, inputs.threshold]
