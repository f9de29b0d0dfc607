"""A confusion matrix as a picture: which classes a model takes for which."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from vit.heatmap import colour
from vit.strips import FONT, SIZE, sheet, text_width

HEIGHT = 26  # of a cell, in pixels
LAST = "right"  # name of the last column


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Image.Image:
    """Draw a confusion matrix and, in a last column, the accuracy of every class.

    Args:
        confusion: Counts (K, K): true classes down, answers across.
        classes: The K names.

    Returns:
        RGBA picture on nothing, the brighter a cell the larger its share of the row.
    """
    counts = np.asarray(confusion)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    width = text_width([*classes, LAST]) + 2
    rows = []
    for number, (row, share) in enumerate(zip(counts, shares, strict=True)):
        tiles = [_cell(f"{n:,}", s, width) for n, s in zip(row, share, strict=True)]
        rows.append([*tiles, _cell(f"{share[number]:.0%}", share[number], width)])
    return sheet(rows, classes, [*classes, LAST])


def _cell(text: str, share: float, width: int) -> Image.Image:
    shade = colour(np.full((1, 1), share, np.float32))
    cell = Image.fromarray(shade).resize((width, HEIGHT))
    ink = "black" if shade.mean() > 110 else "white"
    ImageDraw.Draw(cell).text((width / 2, (HEIGHT - SIZE) / 2 - 1), text, ink, FONT, "ma")
    return cell
