"""The components of the segmentation tab, and how they lie on the page."""

import json
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from gradio.context import Context
from gradio.events import Dependency

from grounding.batch import LIMIT
from grounding.compare import HEADERS as COMPARE_HEADERS
from grounding.compare import HELP as COMPARE_HELP
from grounding.export import PARTS
from grounding.grounders import GROUNDERS
from grounding.overlay import HEADERS
from grounding.retouch import BOX, HELP, TOOLS
from grounding.segmenters import SEGMENTERS
from grounding.session import EVERYTHING
from grounding.settings import RANGES, THRESHOLDS, Settings
from page import QUIET

SAMPLES = Path(__file__).parent.parent / "assets" / "samples" / "segmentation"
PHOTOS = SAMPLES.with_name("photos")
SESSION_SECONDS = 4 * 3600  # since the latest run
CSS = """
#seg-result img.mask:not(.inactive) { opacity: 1; }
#seg-table, #seg-numbers, #seg-samples, #seg-photos { max-width: calc(100vw - 32px);
    overflow-x: auto; }
/* Rows are switched off by their box; nothing else of the table is to be edited. */
#seg-table .add-row-container, #seg-table .add-row-button, #seg-table .header-icons,
#seg-table .cell-menu, #seg-table .cell-menu-button, #seg-table .selection-button {
    display: none; }
#seg-point { align-items: end; }
#seg-status p { margin: .2em 0; }
#seg-gallery .grid-wrap, #seg-all-gallery .grid-wrap { max-height: none; min-height: 0; }
#seg-gallery .grid-container { grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
#seg-gallery .caption-label { left: 0; right: 0; bottom: 0; max-width: none; margin: 0;
    border-radius: 0; text-align: center; white-space: normal; font-size: 12px; }
#seg-gallery .thumbnail-item { padding-bottom: 24px; }
#seg-all-gallery .caption-label { left: 0; right: 0; bottom: 0; max-width: none; margin: 0;
    border-radius: 0; text-align: center; font-size: 12px; }
#seg-all-gallery .thumbnail-item { padding-bottom: 24px; }
#seg-image img { width: 100%; height: 100%; object-fit: contain; }
#seg-table:not(:has(tbody td)) { display: none; }
/* Four tools to a line. */
#seg-tool .wrap { gap: 6px; }
#seg-tool label { padding: 6px 7px; gap: 4px; }
#seg-tool label span { margin-left: 0; }
#seg-point button { margin-bottom: 12px; }
/* The labels and the buttons would cover a picture that is wide and low. */
#seg-stages .slider-wrap, #seg-canvas .image-container { padding-top: 40px; }
/* When the answer grows, it stays in sight, and not the samples. */
#seg-left, #seg-samples, #seg-photos { overflow-anchor: none; }
/* Samples are tiles: a picture with its prompt below. */
:is(#seg-samples, #seg-photos) thead { display: none; }
:is(#seg-samples, #seg-photos) table { display: block; }
:is(#seg-samples, #seg-photos) tbody { display: grid; gap: 6px;
    grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); }
:is(#seg-samples, #seg-photos) tr { display: block; border-radius: 6px; cursor: pointer; }
:is(#seg-samples, #seg-photos) td { display: block; border: 0 !important; padding: 4px;
    text-align: center; font-size: 12px; line-height: 1.25; }
/* On a phone the answer comes before the samples. */
@media (max-width: 720px) {
    #seg-row { flex-direction: column; flex-wrap: nowrap; }
    #seg-left { display: contents; }
    #seg-right { order: 1; }
    #seg-samples, #seg-photos { order: 2; }
    #seg-row, #seg-row > *, #seg-right { min-width: 0 !important; max-width: 100%; }
    #seg-result { height: auto !important; }
    #seg-gallery .thumbnail-item { padding-bottom: 40px; }
}
"""
PROMPT_HELP = (
    "Separate phrases with commas. “a dog: 0.4” gives a phrase its own threshold; "
    "“a dog -collar” takes the collar away."
)


def load_samples(folder: Path) -> list[list[str]]:
    """Return the path of each sample picture in a folder, its prompt, and an empty address."""
    rows = json.loads((folder / "samples.json").read_text())
    return [[str(folder / row["file"]), row["prompt"], ""] for row in rows]


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
    picked: list[Dependency]  # a sample was


@dataclass(frozen=True)
class Correction:
    """Hold the components for correcting an answer by hand."""

    tool: gr.Radio
    phrase: gr.Dropdown
    canvas: gr.Image
    x: gr.Textbox
    y: gr.Textbox
    apply: gr.Button
    undo: gr.Button


@dataclass(frozen=True)
class Comparison:
    """Hold the components that show all grounders side by side."""

    column: gr.Column  # holds the others
    gallery: gr.Gallery
    numbers: gr.Dataframe
    said: gr.Markdown


@dataclass(frozen=True)
class Outputs:
    """Hold the components of the right column, and what is kept between events."""

    result: gr.AnnotatedImage
    status: gr.Markdown
    details: gr.Column  # holds what there is to see and to do once there is an answer
    stages: gr.ImageSlider
    table: gr.Dataframe
    regions: gr.Image
    data: gr.JSON
    correction: Correction
    part: gr.Dropdown
    pack: gr.Button
    file: gr.DownloadButton
    comparison: Comparison
    session: gr.State
    settings: gr.State
    threshold: gr.State  # of what is shown; the slider may be set for another grounder
    key: gr.Textbox  # of the answer that is shown; a state may already be of the next


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
    """Build the settings that few need, in the order of `RANGES`."""
    usual = Settings().values()

    def slider(name: str, step: float, label: str) -> gr.Slider:
        return gr.Slider(*RANGES[name], usual[name], step=step, label=label, buttons=[])

    with gr.Accordion("More settings", open=False, elem_id="seg-more"):
        return [
            slider("count", 1, "Maximum number of detections"),
            slider("min_area", 0.1, "Smallest area, % of the picture"),
            gr.Checkbox(bool(usual["best_only"]), label="Only the best of each phrase"),
            gr.Checkbox(bool(usual["whole"]), label="Allow boxes around the whole picture"),
            slider("opacity", 0.05, "Opacity of the areas"),
            slider("outline", 1, "Width of the outlines"),
        ]


def _build_several() -> Several:
    with gr.Accordion("Several pictures at once", open=False, elem_id="seg-several"):
        gr.Markdown(
            "Each is searched for what the prompt above says, with the same settings. The ZIP has "
            "a folder for each."
        )
        files = gr.File(label=f"Up to {LIMIT} pictures", file_count="multiple", height=200)
        # Gradio itself makes an empty file beside each, which nobody deletes (gradio 6.31).
        files.preprocess = lambda uploads: [upload.path for upload in uploads or ()]
        run = gr.Button("Run on all", elem_id="seg-run-all")
        with gr.Column(visible=False) as results:
            file = gr.File(label="ZIP", interactive=False, elem_id="seg-all-zip")
            text = gr.Textbox(label="Result", interactive=False, elem_id="seg-all-text")
            gallery = gr.Gallery(
                label="Pictures with their masks",
                show_label=False,  # it would lie over the first picture
                columns=2,
                height="auto",
                object_fit="contain",
                format="jpeg",
                elem_id="seg-all-gallery",
            )
    return Several(files, run, results, file, gallery, text)


def build_inputs(urls: bool) -> Inputs:
    """Build the left column; with `urls` there is a field for addresses."""
    samples = load_samples(SAMPLES)
    image, url, prompt = _build_picture(samples[0], urls)
    with gr.Row():
        run = gr.Button("Run", variant="primary", elem_id="seg-run", min_width=120)
        compare = gr.Button("Compare all", elem_id="seg-compare", min_width=120)
    with gr.Row():
        # Wide enough for the longest choice; on a phone each has a line of its own.
        grounder = gr.Dropdown(
            list(GROUNDERS),
            label="Grounder",
            info="finds regions by text",
            min_width=210,
            elem_id="seg-grounder",
        )
        segmenter = gr.Dropdown(
            list(SEGMENTERS), label="Segmenter", info="refines them to masks", min_width=210
        )
    first = next(iter(GROUNDERS.values()))
    threshold = gr.Slider(
        *THRESHOLDS,
        first.threshold,
        step=0.01,
        label="Threshold",
        info="Moving it needs no new run, but for CLIPSeg's outlines; another grounder does.",
        buttons=[],  # "reset" tells nobody, and goes back to the first grounder's
        elem_id="seg-threshold",
    )
    more, several = _build_more(), _build_several()
    asked = [image, prompt, url]  # an old address must not win over a sample
    shown = [0, 1]
    examples = [
        gr.Examples(rows, asked, label=label, elem_id=elem_id, visible_columns=shown)
        for rows, label, elem_id in (
            (samples, "Samples", "seg-samples"),
            (load_samples(PHOTOS), "Photos, for the real models", "seg-photos"),
        )
    ]
    picked = [example.load_input_event for example in examples]
    for event in picked:  # the last sample that is clicked counts, and not the first (gradio 6.31)
        Context.root_block.fns[event["id"]].trigger_mode = "always_last"
    return Inputs(
        image, url, prompt, run, compare, grounder, segmenter, threshold, more, several, picked
    )


def _build_comparison() -> Comparison:
    with gr.Column(visible=False, elem_id="seg-comparison") as column:
        gr.Markdown("**All grounders, side by side**")
        gallery = gr.Gallery(
            label="Grounders side by side",
            show_label=False,  # it would lie over the first picture
            columns=3,
            height="auto",
            object_fit="contain",
            format="png",
            interactive=False,
            elem_id="seg-gallery",
        )
        numbers = gr.Dataframe(
            headers=COMPARE_HEADERS,
            label="In numbers",
            interactive=False,
            buttons=["copy"],
            elem_id="seg-numbers",
        )
        said = gr.Markdown(COMPARE_HELP, elem_id="seg-compared")
    return Comparison(column, gallery, numbers, said)


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
            show_label=False,  # it would lie over a corner, where somebody may want to click
            alt_text="The picture with its masks, to click on",
            interactive=False,
            format="jpeg",
            buttons=["fullscreen"],
            elem_id="seg-canvas",
        )
        with gr.Row(elem_id="seg-point"):
            # For those who cannot use a mouse.
            x, y = (
                # No gr.Number, which shows 0 where it is empty.
                gr.Textbox(
                    label=f"{name}, pixels",
                    max_lines=1,
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
        **QUIET,
    )
    return Correction(tool, phrase, canvas, x, y, apply, undo)


def _build_download() -> tuple[gr.Dropdown, gr.Button]:
    with gr.Row():
        part = gr.Dropdown(
            [EVERYTHING, *PARTS],
            label="What to take home",
            container=False,
            min_width=160,
            elem_id="seg-part",
        )
        pack = gr.Button("Download", min_width=160, elem_id="seg-pack")
    return part, pack


def build_outputs(weights: str) -> Outputs:
    """Build the right column; `weights` says which are going to be used."""
    comparison = _build_comparison()
    result = gr.AnnotatedImage(label="Masks", height=460, elem_id="seg-result")
    status = gr.Markdown(f"Weights: {weights}", label="Status", elem_id="seg-status")
    with gr.Column(visible=False, elem_id="seg-details") as details:
        table = _build_table()
        part, pack = _build_download()
        stages = gr.ImageSlider(
            label="Before SAM 2 (left) and after",
            interactive=False,
            max_height=460,
            elem_id="seg-stages",
        )
        correction = _build_correction()
    # Not in the column: whenever that is shown, Gradio 6.31 shows what is hidden in it, too.
    file = gr.DownloadButton("File", visible="hidden", elem_id="seg-zip")
    return Outputs(
        comparison=comparison,
        result=result,
        status=status,
        details=details,
        table=table,
        stages=stages,
        correction=correction,
        part=part,
        pack=pack,
        file=file,
        # For the API, which returns this picture and the bare facts too.
        data=gr.JSON(label="Detections", visible=False),
        regions=gr.Image(label="What the grounder saw", interactive=False, visible=False),
        session=gr.State(None, time_to_live=SESSION_SECONDS),
        settings=gr.State(Settings()),
        threshold=gr.State(),
        key=gr.Textbox(visible=False),
    )
