"""Pictures of results: colours, boxes, heat maps, and the table's rows."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from grounding.core import Masks, Regions

# Okabe and Ito's colour-blind safe colours (https://jfly.uni-koeln.de/color/), without black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
DISPLAY_SIDE = 1280
HEADERS = ["#", "Phrase", "Grounder score", "Mask score", "Box (x1, y1, x2, y2)", "Area %"]


def phrase_colours(phrases: Sequence[str]) -> dict[str, str]:
    """Give every phrase a colour by its place in the prompt.

    >>> phrase_colours(["a dog", "a cat"])
    {'a dog': '#0072B2', 'a cat': '#E69F00'}
    """
    return {phrase: COLOURS[i % len(COLOURS)] for i, phrase in enumerate(phrases)}


def annotations(
    image: Image.Image, labels: Sequence[str], masks: np.ndarray
) -> tuple[Image.Image, list[tuple[np.ndarray, str]]]:
    """Return the value of a `gr.AnnotatedImage`.

    Args:
        image: The picture; it is shown with at most 1280 pixels on its longer side, because the
            component paints every mask at full float precision.
        labels: N phrases.
        masks: bool (N, H, W) at the picture's size.

    Returns:
        The picture to show and N pairs of a bool mask at its size and its phrase.
    """
    shown = image.copy()
    shown.thumbnail((DISPLAY_SIDE, DISPLAY_SIDE))
    pairs = []
    for mask, label in zip(masks, labels, strict=True):
        small = cv2.resize(mask.astype(np.uint8), shown.size, interpolation=cv2.INTER_NEAREST)
        pairs.append((small.astype(bool), label))
    return shown, pairs


def draw_regions(image: Image.Image, regions: Regions, colours: dict[str, str]) -> Image.Image:
    """Draw the grounder's own answer: its boxes with scores over the picture or its heat map."""
    picture = heat_overlay(image, regions.heatmap) if regions.heatmap is not None else image.copy()
    draw = ImageDraw.Draw(picture)
    unit = max(picture.size) / 400
    font = ImageFont.load_default(max(10.0, 11 * unit))
    for box, score, label in zip(regions.boxes, regions.scores, regions.labels, strict=True):
        x1, y1, x2, y2 = map(float, box)
        draw.rectangle((x1, y1, x2, y2), outline=colours[label], width=max(2, round(1.5 * unit)))
        _draw_tag(draw, (x1, y1), f"{label} {score:.2f}", colours[label], font, picture.size)
    return picture


def _draw_tag(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    colour: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = min(max(0.0, corner[0]), max(0.0, size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    draw.text((x + 3 - left, y + 3 - top), text, "black" if bright else "white", font)


def heat_overlay(image: Image.Image, heatmap: np.ndarray) -> Image.Image:
    """Lay a heat map (H, W) in [0, 1] over the picture; where it is 0, the picture is dimmed."""
    values = (np.clip(heatmap, 0, 1) * 255).astype(np.uint8)
    colours = cv2.applyColorMap(values, cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float32)
    opacity = 0.35 + 0.35 * np.clip(heatmap, 0, 1)[..., None]
    blended = np.asarray(image, np.float32) * (1 - opacity) + colours * opacity
    return Image.fromarray(blended.round().astype(np.uint8))


def table_rows(regions: Regions, masks: Masks) -> list[list[object]]:
    """Return a row per detection, in the order of `HEADERS`."""
    rows: list[list[object]] = []
    for i, (label, box) in enumerate(zip(regions.labels, regions.boxes, strict=True)):
        numbers = ", ".join(str(round(float(value))) for value in box)
        area = 100 * float(masks.masks[i].mean())
        scores = round(float(regions.scores[i]), 3), round(float(masks.scores[i]), 3)
        rows.append([i + 1, label, *scores, numbers, round(area, 2)])
    return rows
