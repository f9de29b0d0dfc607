"""The right column of the segmentation tab: the answer, and what can be done with it.

That includes what it is shown by: moving the threshold needs no model.
"""

from dataclasses import dataclass

import gradio as gr

from grounding.compare import HEADERS as COMPARE_HEADERS
from grounding.display import MASKS
from grounding.export import PARTS
from grounding.grounders import GROUNDERS
from grounding.overlay import HEADERS
from grounding.retouch import BOX, HELP, TOOLS
from grounding.session import EVERYTHING
from grounding.settings import RANGES, THRESHOLDS, Settings
from web.page import QUIET, show_gallery

SESSION_SECONDS = 4 * 3600  # since the latest run


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
    at_work: gr.State


@dataclass(frozen=True)
class Outputs:
    """Hold the components of the right column, and what is kept between events."""

    result: gr.AnnotatedImage
    status: gr.Markdown
    slider: gr.Slider  # of the threshold
    more: list[gr.Slider | gr.Checkbox]
    details: list[gr.Column]  # hold what there is to see and to do once there is an answer
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


def _build_comparison() -> Comparison:
    with gr.Column(visible=False, elem_id="seg-comparison") as column:
        gr.Markdown("**All grounders, side by side**")
        gallery = show_gallery("Grounders side by side", 3, format="png", elem_id="seg-gallery")
        numbers = gr.Dataframe(
            headers=COMPARE_HEADERS,
            label="In numbers",
            interactive=False,
            buttons=["copy"],
            elem_id="seg-numbers",
        )
        said = gr.Markdown(elem_id="seg-compared")
    return Comparison(column, gallery, numbers, said, gr.State(False))


def _build_slider() -> gr.Slider:
    first = next(iter(GROUNDERS.values()))
    return gr.Slider(
        *THRESHOLDS,
        first.threshold,
        step=0.01,
        label="Threshold",
        info="Needs no new run, except for CLIPSeg's outlines.",
        buttons=[],  # "reset" tells nobody, and goes back to the first grounder's
        elem_id="seg-threshold",
    )


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
        # Gradio would refuse a click where the server has forgotten the answer, and say it wrongly.
        phrase.preprocess = lambda chosen: chosen
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
        canvas = gr.Image(
            label="Click here",
            show_label=False,  # it would lie over a corner, where somebody may want to click
            alt_text="The picture with its masks, to click on",
            interactive=False,
            format="jpeg",
            buttons=["fullscreen"],
            elem_id="seg-canvas",
        )
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
    with gr.Column(elem_id="seg-answer"):
        result = gr.AnnotatedImage(label=MASKS, height=460, format="jpeg", elem_id="seg-result")
        with gr.Row():
            # Beside each other: the words get longer and shorter while the slider is moved.
            with gr.Column(scale=4, min_width=280, elem_id="seg-moved"):
                slider, more = _build_slider(), _build_more()
            with gr.Column(scale=5, min_width=280, elem_id="seg-said"):
                status = gr.Markdown(f"Weights: {weights}", label="Status", elem_id="seg-status")
        with gr.Column(visible=False) as found:
            table = _build_table()
            part, pack = _build_download()
    with gr.Column(visible=False, elem_id="seg-details") as details:
        stages = gr.ImageSlider(
            label="Before SAM 2 (left) and after",
            interactive=False,
            format="jpeg",  # which takes a twentieth of the time of WebP
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
        slider=slider,
        more=more,
        details=[found, details],
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
