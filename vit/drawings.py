"""What the folded panels show: from an answer or a checkpoint to pictures, tables and words.

torch is imported with the first picture.
"""

import math
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from vit.confusion import MANY, draw_confusion, most_confused
from vit.describe import describe_details
from vit.heatmap import enlarge, outline, overlay
from vit.strips import heat_tiles, numbered, sheet
from vit.view import CLASS_METHODS, NO_ANSWER, SIDE, Look, Settings, class_name, heat_map

TILE = 72  # side of a small map in pixels
HEADS_HELP = """Where every head of every layer looks, seen from what the answer is read from; each
small map has its own range from dark to yellow. Under it, as means over everything that looks and
not only what the map shows: how far the head looks, in pixels of the small picture, and how spread
out its attention is, from 0 bits (a single place) to {bits:.1f} bits (everywhere alike)."""
CONFUSION_HELP = """**Who is taken for whom.** True classes down, answers across; the brighter a
cell, the more of its row."""
CELLS_HELP = "Counts of test pictures; the last column is the share of each class that is right."
MISTAKES = 8  # that are listed
NO_CONFUSION = """This checkpoint does not say which classes it mixes up; `python train_vit.py
--evaluate CHECKPOINT --data PATH --save` counts it."""


def patch_at(place: tuple[float, float], grid: int) -> tuple[int, int]:
    """Return column and row, from 0, of the patch at x and y in [0, 1).

    >>> patch_at((0.99, 0.25), grid=4)
    (3, 1)
    """
    x, y = place
    return int(x * grid), int(y * grid)


def draw_patch(
    look: Look | None, place: tuple[float, float], layer: int
) -> tuple[Image.Image | None, Image.Image | None, Image.Image | None]:
    """Draw where a patch looks, who looks at it, and both in all layers; nothing without an answer.

    Args:
        look: The answer.
        place: x and y inside the patch, in [0, 1) of the square that the model saw. (Not a
            number: while a click is on its way, a checkpoint with other patches may come.)
        layer: Counted from 1; one that the model does not have means its last.
    """
    from vit.heads import patch_maps
    from vit.rollout import stretch

    if look is None:
        return None, None, None
    grid, attentions = look.prediction.config.grid_size, look.prediction.attentions[:, 0]
    column, row = patch_at(place, grid)
    patch = row * grid + column
    both = [stretch(maps) for maps in patch_maps(attentions, grid, patch)]
    square, number = look.picture.crop(look.prediction.box), min(layer, len(attentions)) - 1
    large = [outline(overlay(square, m[number].numpy(), SIDE), patch, grid) for m in both]
    tiles = heat_tiles(np.stack([m.numpy() for m in both]), TILE)
    names = numbered("layer", len(attentions))
    return *large, sheet(tiles, ("looks at", "seen by"), names)


def draw_heads(look: Look | None) -> tuple[str, Image.Image | None]:
    """Draw a small map of every head, with distance and entropy, and explain it."""
    from vit.heads import attention_distance, attention_entropy, head_maps
    from vit.rollout import stretch

    if look is None:
        return "", None
    config, attentions = look.prediction.config, look.prediction.attentions[:, 0]
    maps = head_maps(attentions, config.grid_size)
    tiles = heat_tiles(stretch(maps).numpy(), TILE)
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
    maps = stretch(position_similarity(model)).numpy()
    filters = (patch_filters(model).permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    tiles = [enlarge(Image.fromarray(one), 48) for one in filters]
    rows = [tiles[start : start + 7] for start in range(0, len(tiles), 7)]
    return sheet(heat_tiles(maps, TILE * 8 // len(maps))), sheet(rows)


def run_test(look: Look | None, settings: Settings) -> tuple[Any, Any, str]:
    """Measure the shown map: two tables for the charts (deletion, insertion), and a text.

    Raises:
        ValueError: If there is no picture yet, or its map has no order.
    """
    if look is None:
        raise ValueError(NO_ANSWER)
    heat = heat_map(look, settings)
    if heat.min() == heat.max():
        raise ValueError("This map is the same everywhere: no patch comes before another.")
    from vit.curves import ORDERS, area, measure, verdict

    name = class_name(look.prediction, settings.label if settings.method in CLASS_METHODS else "")
    index = list(look.prediction.probabilities).index(name)
    x = look.predictor.to_input([look.prediction.seen])
    curves = measure(x, heat, look.predictor.probabilities, index)
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
