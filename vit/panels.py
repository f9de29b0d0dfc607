"""The folded panels under the answer: one patch, all heads, a test of the map, what was learned.

A panel is built by a function that also connects it. What has to be drawn anew with every picture
it returns as a `Drawing`.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import chain, islice
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image

from page import LATEST, QUIET, page_errors
from vit.confusion import MANY, draw_confusion, most_confused
from vit.describe import describe_details
from vit.heatmap import enlarge, outline, overlay
from vit.strips import heat_tiles, numbered, sheet
from vit.view import CLASS_METHODS, SIDE, Look, Settings, class_name, heat_map

TILE = 72  # side of a small map in pixels
PATCH_HELP = """Click a patch on any of the large pictures, here or above, or name it. Left: where
it looks in the chosen layer. Right: which patches look at it. Below: the same in every layer (mean
of the heads)."""
HEADS_HELP = """Where every head of every layer looks, seen from what the answer is read from; each
small map has its own range from dark to yellow. Under it: how far the head looks on average, in
pixels of the small picture, and how spread out its attention is, from 0 bits (a single place) to
{bits:.1f} bits (everywhere alike)."""
TEST_HELP = """A map that is right about what matters should pass this test. Left: patches are
replaced by a plain colour, those the map calls most important first, and the probability should
fall fast. Right: they are put back on a blurred picture, and it should rise fast. Compare with
random order and with the map turned round (after Petsiuk et al. 2018, RISE)."""
POSITION_HELP = """**Positions.** How alike the learned position of each patch is to those of all
others; a small map per patch, at its place in the picture, yellow where they are most alike. Nearby
patches should be alike: nobody told the model which patches are neighbours."""
FILTER_HELP = """**Patch filters.** The main patterns of colour and brightness by which a patch is
described, the most important first."""
CONFUSION_HELP = """**Who is taken for whom.** True classes down, answers across; the brighter a
cell, the more of its row."""
CELLS_HELP = "Counts of test pictures; the last column is the share of each class that is right."
MISTAKES = 8  # that are listed
LINES = {"this map": "#2F80ED", "random": "#888888", "reversed": "#D55E00"}  # on light and dark
# Pictures make the page longer when they arrive, and may push the panel out of sight again.
SHOW_PATCH = """() => {
    const panel = document.querySelector("#vit-patch")
    const longer = new ResizeObserver(() =>
        panel.scrollIntoView({block: "nearest", behavior: "smooth"}))
    longer.observe(document.body)
    setTimeout(() => longer.disconnect(), 5000)
}"""
NO_CONFUSION = """This checkpoint does not say which classes it mixes up; `python train_vit.py
--evaluate CHECKPOINT --data PATH --save` counts it."""


class Drawing(NamedTuple):
    """A handler that fills a panel anew, with its components."""

    draw: Callable[..., Any]
    inputs: Sequence[gr.components.Component]
    outputs: Sequence[gr.components.Component]


def together(drawings: Sequence[Drawing]) -> Drawing:
    """Make one of several, because every event costs the browser a trip to the server."""

    def draw(*values: Any) -> tuple[Any, ...]:
        rest = iter(values)
        parts = [part.draw(*islice(rest, len(part.inputs))) for part in drawings]
        return tuple(chain.from_iterable(parts))

    inputs, outputs = ([c for part in drawings for c in part[i]] for i in (1, 2))
    return Drawing(draw, inputs, outputs)


def _picture(name: str, **options: Any) -> gr.Image:
    return gr.Image(
        label=name,
        alt_text=name,
        format="png",
        interactive=False,
        buttons=["fullscreen", "download"],
        **options,
    )


def _sheet(name: str, elem_id: str) -> gr.Image:
    # The label would lie over the first tiles.
    return _picture(name, elem_id=elem_id, elem_classes="vit-sheet", show_label=False)


def draw_patch(
    look: Look | None, place: tuple[float, float] | None, layer: int
) -> tuple[Image.Image | None, Image.Image | None, Image.Image | None]:
    """Draw where a patch looks, who looks at it, and both in all layers; nothing without one.

    Args:
        look: The answer.
        place: x and y inside the patch, in [0, 1) of the square that the model saw. (Not a
            number: while a click is on its way, a checkpoint with other patches may come.)
        layer: Counted from 1; one that the model does not have means its last.
    """
    from vit.heads import patch_maps
    from vit.rollout import stretch

    if look is None or place is None:
        return None, None, None
    grid, attentions = look.prediction.config.grid_size, look.prediction.attentions[:, 0]
    column, row = (int(share * grid) for share in place)
    patch = row * grid + column
    both = [stretch(m.flatten(1)).view(m.shape) for m in patch_maps(attentions, grid, patch)]
    square, number = look.picture.crop(look.prediction.box), min(layer, len(attentions)) - 1
    large = [outline(overlay(square, m[number].numpy(), SIDE), patch, grid) for m in both]
    tiles = heat_tiles(np.stack([m.numpy() for m in both]), TILE)
    names = numbered("layer", len(attentions))
    return *large, sheet(tiles, ("looks at", "seen by"), names)


def place_of(look: Look | None, column: int | None, row: int | None) -> tuple[float, float]:
    """Return x and y in [0, 1) of the middle of a patch, counted from 1."""
    with page_errors():
        if look is None:
            raise ValueError("Choose a picture first: there are no patches yet.")
        grid = look.prediction.config.grid_size
        if not (column and row and 1 <= column <= grid and 1 <= row <= grid):
            given = ["empty" if number is None else number for number in (column, row)]
            raise ValueError(
                f"Column and row are {given[0]} and {given[1]}; both must be from 1 to {grid}."
            )
    return (column - 0.5) / grid, (row - 0.5) / grid


def draw_heads(look: Look | None) -> tuple[str, Image.Image | None]:
    """Draw a small map of every head, with distance and entropy, and explain it."""
    from vit.heads import attention_distance, attention_entropy, head_maps
    from vit.rollout import stretch

    if look is None:
        return "", None
    config, attentions = look.prediction.config, look.prediction.attentions[:, 0]
    maps = head_maps(attentions, config.grid_size)
    tiles = heat_tiles(stretch(maps.flatten(2)).view(maps.shape).numpy(), TILE)
    distance = attention_distance(attentions, config.grid_size, config.patch_size).tolist()
    entropy = attention_entropy(attentions).tolist()
    captions = [
        [f"{pixels:.0f} px, {bits:.1f} b" for pixels, bits in zip(*row, strict=True)]
        for row in zip(distance, entropy, strict=True)
    ]
    rows, columns = numbered("layer", config.depth), numbered("head", config.num_heads)
    text = HEADS_HELP.format(bits=math.log2(attentions.shape[-1]))
    return text, sheet(tiles, rows, columns, captions)


def draw_learned(look: Look | None) -> tuple[Image.Image | None, Image.Image | None]:
    """Draw the similarity of the positions and the filters of the patch embedding."""
    from vit.learned import patch_filters, position_similarity
    from vit.rollout import stretch

    if look is None:
        return None, None
    model = look.predictor.checkpoint.model
    similarity = position_similarity(model)
    maps = stretch(similarity.flatten(2)).view(similarity.shape).numpy()
    filters = (patch_filters(model).permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    tiles = [enlarge(Image.fromarray(one), 48) for one in filters]
    rows = [tiles[start : start + 7] for start in range(0, len(tiles), 7)]
    return sheet(heat_tiles(maps, TILE * 8 // len(maps))), sheet(rows)


def run_test(look: Look | None, settings: Settings) -> tuple[Any, Any, str]:
    """Measure the shown map: two tables for the charts (deletion, insertion), and a text.

    Raises:
        ValueError: If there is no picture yet.
    """
    if look is None:
        raise ValueError("Choose a picture first: there is no map to test yet.")
    from vit.curves import ORDERS, area, measure, verdict

    name = class_name(look.prediction, settings.label if settings.method in CLASS_METHODS else "")
    index = list(look.prediction.probabilities).index(name)
    x = look.predictor.to_input([look.prediction.seen]).cpu()
    curves = measure(x, heat_map(look, settings), look.predictor.probabilities, index)
    tables = [
        _table(curves.shares.tolist(), c.tolist()) for c in (curves.deletion, curves.insertion)
    ]
    areas = [area(curves.shares, c).tolist() for c in (curves.deletion, curves.insertion)]
    rows = "\n".join(f"| {n} | {d:.2f} | {i:.2f} |" for n, d, i in zip(ORDERS, *areas, strict=True))
    head = "| area under the curve | deletion (small is good) | insertion (large is good) |"
    return *tables, f"**{verdict(curves, name)}**\n\n{head}\n|---|---|---|\n{rows}"


def _table(shares: list[float], curves: list[list[float]]) -> dict[str, Any]:
    """Return the value of a `gr.LinePlot` as it is sent; by way of pandas it would take longer."""
    from vit.curves import ORDERS

    rows = [
        [share, order, probability]
        for order, curve in zip(ORDERS, curves, strict=True)
        for share, probability in zip(shares, curve, strict=True)
    ]
    kinds = {"share": "quantitative", "order": "nominal", "probability": "quantitative"}
    return {"columns": list(kinds), "data": rows, "datatypes": kinds, "mark": "line"}


def draw_model(facts: dict[str, Any]) -> tuple[str, Image.Image | None]:
    """Describe a checkpoint and draw its confusion matrix, if it has one."""
    text, confusion = describe_details(facts), facts["metrics"].get("confusion")
    if confusion is None:
        return f"{text}\n\n{NO_CONFUSION}", None
    classes = facts["classes"]
    wrong = most_confused(confusion, classes, MISTAKES)
    listed = (
        ", ".join(f"{escape(true)} → {escape(said)} ({n})" for true, said, n in wrong) or "none"
    )
    help_text = f"{CONFUSION_HELP} {CELLS_HELP}" if len(classes) <= MANY else CONFUSION_HELP
    text += f"\n\n{help_text}\n\nMost frequent mistakes (true → answer): {listed}."
    return text, draw_confusion(confusion, classes)


def layer_slider(depth: int, value: int, **options: Any) -> gr.Slider:
    """Return the choice of one of `depth` layers; of one layer there is none to make."""
    # Gradio takes no slider whose ends are the same.
    return gr.Slider(1, max(2, depth), value, interactive=depth > 1, **options)


def build_patch(
    session: gr.State, pictures: Sequence[gr.Image], depth: int
) -> tuple[gr.Slider, Drawing]:
    """Build the panel that opens with a click on one of `pictures`; its slider is for the layer.

    The patch can be named by its numbers, too.
    """
    place = gr.State()
    title = "One patch: where it looks, and who looks at it"
    with gr.Accordion(title, open=False, elem_id="vit-patch") as panel:
        gr.Markdown(PATCH_HELP)
        options = {"step": 1, "label": "Layer", "buttons": [], "elem_id": "vit-patch-layer"}
        layer = layer_slider(depth, depth, **options)
        with gr.Row(equal_height=True, elem_id="vit-patch-at"):
            # For those who cannot use a mouse.
            column, row = (
                gr.Number(
                    1,
                    label=f"{name}, from 1",
                    precision=0,
                    min_width=90,
                    elem_id=f"vit-{name}",
                )
                for name in ("Column", "Row")
            )
            show = gr.Button("Show that patch", min_width=130, elem_id="vit-patch-show")
        with gr.Row():
            looks = _picture("Where it looks", elem_id="vit-patch-looks")
            seen_by = _picture("Who looks at it", elem_id="vit-patch-seen-by")
        strip = _sheet("All layers", "vit-patch-strip")

    def pick(event: gr.SelectData) -> tuple[tuple[float, ...], dict[str, Any]]:
        return tuple(min(pixel, SIDE - 1) / SIDE for pixel in event.index), gr.Accordion(open=True)

    drawing = Drawing(draw_patch, [session, place, layer], [looks, seen_by, strip])
    triggers = [picture.select for picture in (*pictures, looks, seen_by)]
    picked = gr.on(triggers, pick, None, [place, panel], **QUIET)
    picked.success(*drawing, **QUIET)
    picked.success(None, js=SHOW_PATCH)
    named = gr.on(
        [show.click, column.submit, row.submit], place_of, [session, column, row], place, **QUIET
    )
    named.success(*drawing, **QUIET)
    layer.input(*drawing, **LATEST)
    return layer, drawing


def build_heads(session: gr.State) -> Drawing:
    """Build the panel with all layers and heads."""
    with gr.Accordion("All layers and heads", open=False):
        text = gr.Markdown()
        strip = _sheet("Layers down, heads across", "vit-heads")
    return Drawing(draw_heads, [session], [text, strip])


def build_test(session: gr.State, settings: Sequence[gr.components.Component]) -> Drawing:
    """Build the panel that tests the map which `settings` describe."""
    with gr.Accordion("Does the map matter? A test", open=False):
        gr.Markdown(TEST_HELP)
        button = gr.Button("Test this map", elem_id="vit-test")
        text = gr.Markdown(elem_id="vit-test-text")
        with gr.Row():
            charts = [
                gr.LinePlot(
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
                for name in ("Deletion", "Insertion")
            ]

    def test(look: Look | None, *values: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
        with page_errors():
            deletion, insertion, sentence = run_test(look, Settings(*values))
        plots = (gr.LinePlot(deletion, visible=True), gr.LinePlot(insertion, visible=True))
        return *plots, sentence

    def clear() -> tuple[dict[str, Any], dict[str, Any], str]:
        return gr.LinePlot(visible="hidden"), gr.LinePlot(visible="hidden"), ""

    outputs = [*charts, text]
    button.click(test, [session, *settings], outputs, api_visibility="private")
    return Drawing(clear, [], outputs)


def build_learned(session: gr.State) -> Drawing:
    """Build the panel with what does not depend on the picture; filled when it is opened."""
    with gr.Accordion("What the model has learned", open=False) as panel, gr.Row():
        with gr.Column(scale=3, min_width=320):
            gr.Markdown(POSITION_HELP)
            positions = _picture("Positions", elem_id="vit-positions", show_label=False)
        with gr.Column(scale=2, min_width=320):
            gr.Markdown(FILTER_HELP)
            filters = _picture("Patch filters", elem_id="vit-filters", show_label=False)
    drawing = Drawing(draw_learned, [session], [positions, filters])
    panel.expand(*drawing, api_visibility="private")
    return drawing


def build_model(names: Sequence[str], facts: Callable[[str | None], dict[str, Any]]) -> gr.Dropdown:
    """Build the panel with the choice of the checkpoint and what is known of it.

    Args:
        names: Of the checkpoints.
        facts: Returns what a checkpoint says of itself, or raises a ValueError.
    """

    def show(name: str | None) -> tuple[str, dict[str, Any]]:
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
