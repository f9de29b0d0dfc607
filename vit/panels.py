"""The folded panels under the answer: one patch, all heads, a test of the map, what was learned.

A panel is built by a function that also connects it. What has to be drawn anew with every picture
it returns as a `Drawing`.
"""

from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import gradio as gr

from vit.drawings import draw_heads, draw_learned, draw_model, draw_patch, patch_at, run_test
from vit.view import NO_ANSWER, SIDE, Look, Settings
from web.page import LATEST, MOTION, QUIET, choice_of, one_by_one, page_errors, show_picture

PATCH_HELP = """Click a patch on any of the large pictures, here or above, or name it. Left: where
it looks in the chosen layer. Right: which patches look at it. Below: the same in every layer (mean
of the heads)."""
TEST_HELP = """A map that is right about what matters should pass this test. Left: patches are
replaced by a plain colour, those the map calls most important first, and the probability should
fall fast. Right: they are put back on a blurred picture, and it should rise fast.

<details><summary>What it is compared with, and how far to trust it</summary>

After Petsiuk et al. 2018 (RISE). Compare with the same map moved to up to four other places, with
four random orders, each as their mean, and with the map's order reversed. A map is called better
than chance where it is better than each of these places and orders: a smooth map easily beats
scattered patches, and itself elsewhere only if it looks at the right place. One test is weak
evidence, as things tend to be in the middle: of the 30 samples the bundled model's transformer
attribution was better both ways in 16, a mere blob in the middle in 7.

</details>"""
POSITION_HELP = """**Positions.** How alike the learned position of each patch is to those of all
others; a small map per patch, at its place in the picture, yellow where they are most alike. Nearby
patches should be alike: nobody told the model which patches are neighbours."""
FILTER_HELP = """**Patch filters.** The main patterns of colour and brightness by which a patch is
described, the most important first; of a stem of convolutions its first filters, in no order."""
# On light and dark.
LINES = {"this map": "#2F80ED", "moved": "#009E73", "random": "#888888", "reversed": "#D55E00"}
# One by one, or the panels of an answer might come after that of a patch clicked meanwhile.
DRAWN = one_by_one("panels")
# Pictures make the page longer when they arrive, and may push the panel out of sight again.
SHOW_PATCH = f"""() => {{
    const panel = document.querySelector("#vit-patch")
    const longer = new ResizeObserver(() =>
        panel.scrollIntoView({{block: "nearest", behavior: {MOTION}}}))
    longer.observe(document.body)
    setTimeout(() => longer.disconnect(), 5000)
}}"""


Tested = tuple[Look, Settings, Any]  # the last is what `run_test` returns


class Drawing(NamedTuple):
    """A handler that fills a panel anew, with its components."""

    draw: Callable[..., Any]
    inputs: Sequence[gr.components.Component]
    outputs: Sequence[gr.components.Component]


def _drawing(
    draw: Callable[..., Any],
    inputs: Sequence[gr.components.Component],
    outputs: Sequence[gr.components.Component],
) -> Drawing:
    """Return a handler whose errors are said on the page; Gradio would swallow them."""
    return Drawing(page_errors()(draw), inputs, outputs)


def together(drawings: Sequence[Drawing]) -> Drawing:
    """Make one of several, because every event costs the browser a trip to the server."""

    def draw(*values: Any) -> tuple[Any, ...]:
        rest = iter(values)
        parts = [part.draw(*islice(rest, len(part.inputs))) for part in drawings]
        return tuple(chain.from_iterable(parts))

    inputs, outputs = ([c for part in drawings for c in part[i]] for i in (1, 2))
    return Drawing(draw, inputs, outputs)


def _sheet(name: str, elem_id: str) -> gr.Image:
    # The label would lie over the first tiles.
    return show_picture(name, elem_id=elem_id, elem_classes="vit-sheet", show_label=False)


def place_of(look: Look | None, column: int | None, row: int | None) -> tuple[float, float]:
    """Return x and y in [0, 1) of the middle of a patch, counted from 1."""
    with page_errors():
        if look is None:
            raise ValueError(NO_ANSWER)
        grid = look.prediction.config.grid_size
        if not (column and row and 1 <= column <= grid and 1 <= row <= grid):
            given = ["empty" if number is None else number for number in (column, row)]
            raise ValueError(
                f"Column and row are {given[0]} and {given[1]}; both must be from 1 to {grid}."
            )
    return (column - 0.5) / grid, (row - 0.5) / grid


def numbers_of(look: Look | None, place: tuple[float, float]) -> tuple[Any, ...]:
    """Return column and row of the patch at x and y in [0, 1), counted from 1, for their fields."""
    if look is None:
        return (gr.skip(),) * 2
    column, row = patch_at(place, look.prediction.config.grid_size)
    return column + 1, row + 1


def _build_number(name: str) -> gr.Number:
    label = f"{name}, from 1"
    return gr.Number(1, label=label, precision=0, min_width=90, elem_id=f"vit-{name}")


def build_patch(
    session: gr.State, pictures: Sequence[gr.Image], depth: int
) -> tuple[gr.Slider, Drawing]:
    """Build the panel that opens with a click on one of `pictures`; its slider is for the layer.

    The patch can be named by its numbers, too.
    """
    place = gr.State((0.5, 0.5))
    title = "One patch: where it looks, and who looks at it"
    with gr.Accordion(title, open=False, elem_id="vit-patch") as panel:
        gr.Markdown(PATCH_HELP)
        layer = choice_of(depth, depth, label="Layer", elem_id="vit-patch-layer")
        with gr.Row(equal_height=True, elem_id="vit-patch-at"):
            # For those who cannot use a mouse.
            column, row = (_build_number(name) for name in ("Column", "Row"))
            show = gr.Button("Show that patch", min_width=130, elem_id="vit-patch-show")
        with gr.Row():
            looks = show_picture("Where it looks", elem_id="vit-patch-looks")
            seen_by = show_picture("Who looks at it", elem_id="vit-patch-seen-by")
        strip = _sheet("All layers", "vit-patch-strip")

    def pick(look: Look | None, event: gr.SelectData) -> tuple[tuple[float, ...], gr.Accordion]:
        with page_errors():
            if look is None:
                raise ValueError(NO_ANSWER)
        return tuple(min(pixel, SIDE - 1) / SIDE for pixel in event.index), gr.Accordion(open=True)

    def draw(look: Look | None, at: tuple[float, float], layer: int) -> tuple[Any, ...]:
        return *draw_patch(look, at, layer), *numbers_of(look, at)

    drawing = _drawing(draw, [session, place, layer], [looks, seen_by, strip, column, row])
    triggers = [picture.select for picture in (*pictures, looks, seen_by)]
    picked = gr.on(triggers, pick, session, [place, panel], **QUIET)
    picked.success(*drawing, **DRAWN)
    picked.success(None, js=SHOW_PATCH)
    named = gr.on(
        [show.click, column.submit, row.submit], place_of, [session, column, row], place, **QUIET
    )
    named.success(*drawing, **DRAWN)
    layer.input(*drawing, **DRAWN)
    return layer, drawing


def build_heads(session: gr.State) -> Drawing:
    """Build the panel with all layers and heads."""
    with gr.Accordion("All layers and heads", open=False):
        text = gr.Markdown()
        strip = _sheet("Layers down, heads across", "vit-heads")
    return _drawing(draw_heads, [session], [text, strip])


def _build_chart(name: str) -> gr.LinePlot:
    return gr.LinePlot(
        x="share",
        y="probability",
        color="order",
        color_map=LINES,
        title=name,
        x_title="share of the patches",
        y_lim=[0, 1],
        height=260,
        visible="hidden",  # not False: its script is then loaded before it is needed
        elem_id=f"vit-{name.lower()}",
    )


def build_test(session: gr.State, settings: Sequence[gr.components.Component]) -> Drawing:
    """Build the panel that tests the map which `settings` describe."""
    with gr.Accordion("Does the map matter? A test", open=False):
        gr.Markdown(TEST_HELP)
        button = gr.Button("Test this map", elem_id="vit-test")
        text = gr.Markdown(elem_id="vit-test-text")
        with gr.Row():
            charts = [_build_chart(name) for name in ("Deletion", "Insertion")]

    def test(tested: Tested | None, look: Look | None, *values: Any) -> Tested:
        asked = Settings(*values)
        if tested and is_of(tested, look, *values):  # a double click asks twice
            return tested
        with page_errors():
            return look, asked, run_test(look, asked)

    def is_of(tested: Tested, look: Look | None, *values: Any) -> bool:
        return tested[0] is look and tested[1] == Settings(*values)

    def show_test(tested: Tested | None, look: Look | None, *values: Any) -> tuple[Any, ...]:
        # Another picture or map may have been chosen while the test was running.
        if not tested or not is_of(tested, look, *values):
            return (gr.skip(),) * 3
        deletion, insertion, sentence = tested[2]
        plots = (gr.LinePlot(deletion, visible=True), gr.LinePlot(insertion, visible=True))
        return *plots, sentence

    def clear() -> tuple[gr.LinePlot, gr.LinePlot, str]:
        return gr.LinePlot(visible="hidden"), gr.LinePlot(visible="hidden"), ""

    outputs, tested = [*charts, text], gr.State()
    asked = [session, *settings]
    # What is asked while the test of another map is running is seen to after it.
    done = button.click(
        test,
        [tested, *asked],
        tested,
        api_visibility="private",
        show_progress_on=[text],
        trigger_mode="always_last",
    )
    done.success(show_test, [tested, *asked], outputs, **LATEST)
    return _drawing(clear, [], outputs)


def build_learned(session: gr.State) -> Drawing:
    """Build the panel with what does not depend on the picture; filled when it is opened."""
    with gr.Accordion("What the model has learned", open=False) as panel, gr.Row():
        with gr.Column(scale=3, min_width=320):
            gr.Markdown(POSITION_HELP)
            positions = show_picture("Positions", elem_id="vit-positions", show_label=False)
        with gr.Column(scale=2, min_width=320):
            gr.Markdown(FILTER_HELP)
            filters = show_picture("Patch filters", elem_id="vit-filters", show_label=False)
    drawing = _drawing(draw_learned, [session], [positions, filters])
    panel.expand(*drawing, api_visibility="private")
    return drawing


def build_model(names: Sequence[str], facts: Callable[[str | None], dict[str, Any]]) -> gr.Dropdown:
    """Build the panel with the choice of the checkpoint and what is known of it.

    Args:
        names: Of the checkpoints.
        facts: Returns what a checkpoint says of itself, or raises a ValueError.
    """

    def show(name: str | None) -> tuple[str, gr.Image]:
        with page_errors():
            text, confusion = draw_model(facts(name))
        return text, gr.Image(confusion, visible=confusion is not None)

    with gr.Accordion("The model: choose one, and see what it mixes up", open=False) as panel:
        menu = gr.Dropdown(list(names), label="Checkpoint", elem_id="vit-checkpoint")
        # Gradio would refuse programs what was trained since the start; `facts` refuses the rest.
        menu.preprocess = lambda name: None if name is None else str(name)
        text = gr.Markdown(elem_id="vit-details")
        confusion = _sheet("Confusion matrix", "vit-confusion")
    gr.on([panel.expand, menu.change], show, [menu], [text, confusion], **QUIET)
    return menu
