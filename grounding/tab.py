"""The segmentation tab: which components an event takes and changes."""

from collections.abc import Callable
from filecmp import cmp
from typing import Any

import gradio as gr
import numpy as np
from gradio.context import Context
from gradio.events import Dependency
from PIL import Image

from grounding import display
from grounding.core import Clicks, Masks, Regions
from grounding.divider import MEND_DIVIDER
from grounding.events import Events, Fetch
from grounding.inputs import SAMPLES, Inputs, load_samples
from grounding.layout import build_page
from grounding.outputs import Outputs
from grounding.pipeline import propose
from grounding.select import Proposals
from grounding.store import ModelStore
from grounding.weights import Origin, Source
from web.page import LATEST, QUIET, bring, hand_over_download, one_by_one

# Requests that are seen to at once. Only one runs a model (see `Events`); while another waits for a
# slow server of pictures, it holds up nobody. What is asked again at work comes after that.
MODELS: dict[str, Any] = {
    "concurrency_id": "models",
    "concurrency_limit": 4,
    "trigger_mode": "always_last",
}


# Where a field is empty, which will be said, that field is to stay in sight.
PROMPT = 'document.querySelector("#seg-prompt textarea").value.trim()'
FILLED = f"""{PROMPT} && (
    document.querySelector("#seg-image img") ?? document.querySelector("#seg-url input")?.value)"""
FILES = f'{PROMPT} && document.querySelector("#seg-several .file-preview")'
# On a phone the answer lies below the settings and above the samples, out of sight.
SHOW_ANSWER = bring(
    "#seg-right",
    f"({FILLED}) && (seen.height < 200 || above > (found.rootBounds ?? seen).height / 2)",
)
# What was found, or that nothing was, unless somebody has gone elsewhere meanwhile.
SHOW_WORDS = bring(
    "#seg-status p:nth-of-type(2)",
    """matchMedia("(min-width: 721px)").matches && seen.height > 0
            && element.getBoundingClientRect().top >= found.boundingClientRect.bottom""",
    watched="#seg-result",
    block="nearest",
)
SHOW_NEW_WORDS = f"""key => {{
    const status = document.querySelector("#seg-status")
    // The page may still be scrolling to the answer.
    const showAtRest = before => requestAnimationFrame(() => {{
        const {{top}} = status.getBoundingClientRect()
        if (top === before) ({SHOW_WORDS})()
        else showAtRest(top)
    }})
    if (key && status.dataset.key !== key) showAtRest()
    status.dataset.key = key
}}"""
# It comes in above an earlier answer, which stays where it is seen.
SHOW_COMPARISON = bring("#seg-comparison", "above > 0")
SHOW_PROGRESS = bring("#seg-all-text", FILES, block="nearest")
# The one event of Run, and none of their own, so that the last thing asked for is answered last.
PRESS_RUN = "() => document.querySelector('#seg-run').click()"
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def _wire_inputs(inputs: Inputs, outputs: Outputs) -> None:
    # An old address must not win over a new upload; a picture that goes leaves it alone.
    first, *_ = load_samples(SAMPLES)[0]

    def forget(path: str | None) -> Any:
        # The page also says so of the picture it opens with, beside the address of a link.
        return gr.skip() if not path or cmp(path, first, shallow=False) else ""

    inputs.image.change(forget, inputs.image, inputs.url, **QUIET)
    inputs.image.upload(lambda: "", None, inputs.url, **QUIET)  # of that very file, too
    gr.on(
        [inputs.image.change, inputs.url.change],
        display.name_masks,
        [outputs.session, outputs.key, inputs.image, inputs.url],
        outputs.result,
        **_beside(outputs),
    )


def _wire_run(inputs: Inputs, outputs: Outputs, samples: list[Dependency], events: Events) -> None:
    asked = [inputs.image, inputs.url, inputs.prompt, inputs.grounder, inputs.segmenter]
    pressed = [inputs.run.click, inputs.prompt.submit, inputs.url.submit]
    ran = gr.on(
        pressed,
        events.run,
        [*asked, outputs.slider],
        [outputs.session, outputs.threshold, outputs.correction.phrase],
        api_visibility="private",
        show_progress_on=[outputs.result],
        **MODELS,
    )
    for picked in samples:
        picked.success(None, js=PRESS_RUN)
    gr.on([*pressed, inputs.compare.click], None, js=SHOW_ANSWER)
    # A step of its own: the threshold and the settings may have been moved meanwhile.
    shown = [outputs.threshold, *_shown(outputs)]
    compared = outputs.comparison
    rest = [*outputs.details, compared.column, compared.said, outputs.settings]
    now = [
        outputs.session,
        outputs.key,
        inputs.image,
        inputs.url,
        compared.at_work,
        outputs.slider,
        inputs.grounder,
        *outputs.more,
    ]
    revealed = ran.success(display.reveal, now, [*shown, *rest], **_beside(outputs))
    revealed.success(None, outputs.key, js=SHOW_NEW_WORDS)
    # For programs: without what the page keeps between events.
    gr.on(
        [],
        events.segment,
        [*_build_given(inputs), inputs.grounder, inputs.segmenter, _build_threshold(outputs)],
        [outputs.result, outputs.regions, outputs.table, outputs.status, outputs.data],
        api_name="segment",
        **MODELS,
    )


def _build_given(inputs: Inputs) -> list[gr.components.Component]:
    """Build picture, address and prompt for programs: the page's sample is no default for them."""
    image = gr.Image(type="filepath", label=inputs.image.label, visible=False)
    return [image, inputs.url, gr.Textbox(label=inputs.prompt.label, visible=False)]


def _build_threshold(outputs: Outputs) -> gr.Number:
    """Build the threshold for programs: without one it is that of the grounder they choose."""
    threshold = gr.Number(label=outputs.slider.label, visible=False)
    threshold.preprocess = lambda given: given  # `segment` says more of what is wrong with it
    return threshold


def _show() -> gr.Column:
    return gr.Column(visible=True)


def _begin_comparison() -> tuple[gr.Column, bool]:
    return gr.Column(visible=True), True


def _show_if(answer: object) -> gr.Column:
    """Hide the place of an answer that was refused, unless there is an earlier one."""
    return gr.Column(visible=bool(answer))


def _state(outputs: Outputs) -> list[gr.components.Component]:
    return [outputs.session, outputs.settings, outputs.threshold]


def _beside(outputs: Outputs) -> dict[str, Any]:
    """Return options that leave the progress of a run, which Gradio would take away, in sight."""
    # Each reads what is kept when it begins, and the page must end with the last of them.
    return one_by_one("shown") | {"show_progress_on": [outputs.status]}


def _shown(outputs: Outputs) -> list[gr.components.Component]:
    return [
        outputs.result,
        outputs.table,
        outputs.status,
        outputs.stages,
        outputs.correction.canvas,
        outputs.key,
    ]


def _wire_correction(outputs: Outputs, events: Events) -> None:
    tools, state, shown = outputs.correction, _state(outputs), _shown(outputs)
    asked = [*state, tools.tool, tools.phrase, outputs.key]
    # Every click counts, and begins with what the one before has made.
    each_click: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_id": "corrections",
        "concurrency_limit": 1,
        "show_progress_on": [tools.canvas],
        "show_progress": "minimal",  # more of it would lie over the picture and take the next click
        "trigger_mode": "multiple",
    }
    corrected = gr.State()  # the key of the answer that was
    clicked = tools.canvas.select(events.click, asked, corrected, **each_click)
    applied = gr.on(
        [tools.apply.click, tools.x.submit, tools.y.submit],
        events.correct,
        [*asked, tools.x, tools.y],
        corrected,
        **each_click,
    )
    # A step of its own: much may have been done while the segmenter was at work.
    for made in (clicked, applied):
        made.success(display.show_corrected, [*state, corrected], shown, **_beside(outputs))
    tools.undo.click(display.undo, [*state, outputs.key], shown, **_beside(outputs))


def _wire_several(inputs: Inputs, outputs: Outputs, events: Events) -> None:
    several = inputs.several
    started = several.run.click(_show, None, several.results, api_visibility="private")
    started.success(None, js=SHOW_PROGRESS)
    started.success(
        events.batch,
        [
            several.files,
            inputs.prompt,
            inputs.grounder,
            inputs.segmenter,
            outputs.slider,
            *outputs.more,
        ],
        [several.file, several.gallery, several.text],
        api_visibility="private",
        show_progress_on=[several.text],
        **MODELS,
    ).then(_show_if, several.text, several.results, **LATEST)


def _wire_look(inputs: Inputs, outputs: Outputs) -> None:
    """Let the page answer from what is already computed."""
    state, shown, beside = _state(outputs), _shown(outputs), _beside(outputs)
    # Only a person's choice: a link to settings brings its own threshold.
    chosen = [outputs.session, outputs.threshold, inputs.grounder]
    inputs.grounder.input(display.choose_grounder, chosen, outputs.slider, **LATEST)
    moved = [outputs.threshold, *shown]
    slid = [outputs.session, outputs.settings, outputs.slider, inputs.grounder, outputs.key]
    outputs.slider.input(display.move, slid, moved, **beside)
    gr.on(
        [component.input for component in outputs.more],
        display.configure,
        [outputs.session, outputs.threshold, outputs.key, *outputs.more],
        [outputs.settings, *shown],
        **beside,
    )
    ticked = [*state, outputs.key, outputs.table]
    outputs.table.input(display.tick, ticked, shown, **beside)
    taken = [*state, outputs.part, outputs.key]
    packed = outputs.pack.click(display.take_home, taken, outputs.file, api_visibility="private")
    hand_over_download(packed, outputs.file)


def _wire_compare(inputs: Inputs, outputs: Outputs, events: Events) -> None:
    parts = outputs.comparison
    place = [parts.column, parts.at_work]
    # One by one with what shows an answer to Run, which leaves alone what is at work.
    started = inputs.compare.click(_begin_comparison, None, place, **_beside(outputs))
    started.success(None, js=SHOW_COMPARISON)
    asked = [*_build_given(inputs), inputs.segmenter]
    answer = [parts.gallery, parts.numbers, outputs.data]
    gr.on([], events.compare, asked, answer, api_name="compare", **MODELS)
    compared = started.success(
        events.compare_here,
        [inputs.image, inputs.url, inputs.prompt, inputs.segmenter, *outputs.more],
        [parts.gallery, parts.numbers, parts.said, parts.at_work],
        api_visibility="private",
        show_progress_on=[parts.gallery],
        **MODELS,
    )
    compared.then(_show_if, parts.said, parts.column, **LATEST)


def build_tab(store: ModelStore, gpu: Wrap, fetch: Fetch | None) -> list[gr.components.Component]:
    """Build the tab inside the current `gr.Blocks`.

    Args:
        store: The models.
        gpu: Wraps the functions that need a GPU (`spaces.GPU` on ZeroGPU).
        fetch: Opens the address of a picture; without it there is no field for addresses.

    Returns:
        The components that a link sets, in the order of `follow_link`.
    """

    @gpu
    def infer(
        grounder: str,
        segmenter: str,
        first: Source,
        second: Source,
        image: Image.Image,
        prompt: str,
        threshold: float,
    ) -> tuple[Proposals, Origin]:
        # By name: ZeroGPU calls this in another process, and models are no arguments to send.
        models = store.load(grounder, segmenter, first, second)
        return propose(models, image, prompt, threshold), models.origin

    @gpu
    def draw(
        segmenter: str,
        source: Source,
        image: Image.Image,
        what: Regions | tuple[np.ndarray, Clicks],
    ) -> Masks:
        model = store.load_segmenter(segmenter, source)
        return (
            model.segment(image, what) if isinstance(what, Regions) else model.refine(image, *what)
        )

    inputs, outputs, samples = build_page(fetch is not None, store.weights.describe())
    _wire_inputs(inputs, outputs)
    events = Events(store, infer, draw, fetch)
    _wire_run(inputs, outputs, samples, events)
    _wire_look(inputs, outputs)
    _wire_compare(inputs, outputs, events)
    _wire_correction(outputs, events)
    _wire_several(inputs, outputs, events)
    Context.root_block.load(None, js=MEND_DIVIDER)
    chosen = [inputs.prompt, inputs.url, inputs.grounder, inputs.segmenter, outputs.slider]
    return [outputs.settings, *chosen, *outputs.more]
