"""Many small pictures as one: a sheet of tiles with names and captions."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from common.fonts import drawable, font
from vit.heatmap import colour, enlarge

INK = (90, 90, 90)  # on white, which the page lays under a sheet
GAP, LINE, SIZE = 6, 18, 13  # pixels: between tiles, of a line, of a letter


def sheet(
    tiles: Sequence[Sequence[Image.Image]],
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
) -> Image.Image:
    """Put tiles of one size in a grid; the ground is transparent, so that the page shows.

    Args:
        tiles: RGB pictures, a list per row.
        rows: Name of every row, at its left.
        columns: Name of every column, above it.
        captions: A text under every tile.

    Returns:
        RGBA picture.
    """
    height = tiles[0][0].height
    texts = [*columns, *(text for row in captions for text in row)]
    width = max(tiles[0][0].width, text_width(texts))
    left, top = text_width(rows) + 2 * GAP if rows else 0, LINE * bool(columns)
    across, down = width + GAP, height + GAP + LINE * bool(captions)
    size = (left + across * max(map(len, tiles)) - GAP, top + down * len(tiles) - GAP)
    canvas = Image.new("RGBA", size)
    draw = ImageDraw.Draw(canvas)

    def write(place: tuple[float, float], text: str, anchor: str) -> None:
        draw.text(place, drawable(text), INK, font(SIZE), anchor)

    for x, name in enumerate(columns):
        write((left + across * x + width / 2, 0), name, "ma")
    for y, row in enumerate(tiles):
        if rows:
            write((0, top + down * y + height / 2), rows[y], "lm")
        for x, tile in enumerate(row):
            middle, upper = left + across * x + width / 2, top + down * y
            canvas.paste(tile, (int(middle - tile.width / 2), upper))
            if captions:
                write((middle, upper + height + 3), captions[y][x], "ma")
    return canvas


def text_width(names: Sequence[str]) -> int:
    """Return how wide the longest of some names is on a sheet, in pixels."""
    return math.ceil(max((font(SIZE).getlength(drawable(name)) for name in names), default=0))


def heat_tiles(maps: NDArray[np.float32], side: int) -> list[list[Image.Image]]:
    """Colour maps (rows, columns, g, g) in [0, 1]: tiles of about `side` pixels, patches sharp."""
    whole = max(1, side // maps.shape[-1]) * maps.shape[-1]
    return [[enlarge(Image.fromarray(colour(heat)), whole) for heat in row] for row in maps]


def numbered(name: str, count: int) -> list[str]:
    """Return the names of layers or heads.

    >>> numbered("layer", 2)
    ['layer 1', 'layer 2']
    """
    return [f"{name} {number}" for number in range(1, count + 1)]
