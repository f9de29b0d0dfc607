"""A confusion matrix as a picture: which classes a model takes for which."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from common.fonts import font
from vit.heatmap import colour, enlarge
from vit.strips import SIZE, sheet, text_width

MANY = 30  # classes; with more there is no room for names and numbers
SIDE = 900  # about that of the picture of so many, in pixels
HEIGHT = 26  # of a cell, in pixels
LONGEST = 24  # letters of a name
WIDEST = 150  # letters of all names; where there are more, numbers stand above the columns
LAST = "right"  # name of the last column


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Image.Image:
    """Draw a confusion matrix and, in a last column, the accuracy of every class.

    Args:
        confusion: Counts (K, K): true classes down, answers across.
        classes: The K names.

    Returns:
        RGBA picture on a transparent ground, the brighter a cell the larger its share of the row.
        With more than 30 classes it is RGB, without names, numbers and the last column.
    """
    counts = np.asarray(confusion)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    if len(classes) > MANY:
        matrix = Image.fromarray(colour(shares.astype(np.float32)))
        return enlarge(matrix, len(classes) * max(1, SIDE // len(classes)))
    names = heads = [short(name) for name in classes]
    if len("".join(names)) > WIDEST:
        heads = [str(number) for number in range(1, len(classes) + 1)]
        names = [f"{head} {name}" for head, name in zip(heads, names, strict=True)]
    width = text_width([*heads, LAST, f"{counts.max():,}"]) + 2
    rows = []
    for number, (row, share) in enumerate(zip(counts, shares, strict=True)):
        tiles = [_cell(f"{n:,}", s, width) for n, s in zip(row, share, strict=True)]
        rows.append([*tiles, _cell(f"{share[number]:.0%}", share[number], width)])
    return sheet(rows, names, [*heads, LAST])


def short(name: str) -> str:
    """Return a class name for a picture, where a long one would take the place of all else.

    >>> short("cat"), len(short("cat" * 20))
    ('cat', 24)
    """
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def most_confused(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], count: int
) -> list[tuple[str, str, int]]:
    """Return the most frequent mistakes: true class, answer, number of pictures.

    >>> most_confused([[5, 2], [3, 5]], ("cat", "dog"), count=10)
    [('dog', 'cat', 3), ('cat', 'dog', 2)]
    """
    wrong = np.array(confusion)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(classes[y], classes[x], int(wrong[y, x])) for y, x in places if wrong[y, x]]


def _cell(text: str, share: float, width: int) -> Image.Image:
    shade = colour(np.full((1, 1), share, np.float32))
    cell = Image.fromarray(shade).resize((width, HEIGHT))
    ink = "black" if shade.mean() > 110 else "white"
    ImageDraw.Draw(cell).text((width / 2, (HEIGHT - SIZE) / 2 - 1), text, ink, font(SIZE), "ma")
    return cell
