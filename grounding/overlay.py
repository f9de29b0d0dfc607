"""Pictures of results: colours, outlines, boxes, heat maps, and the table's rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageDraw

from common.fonts import drawable, font
from grounding.core import Masks, Regions

# Okabe and Ito's colour-blind safe colours (https://jfly.uni-koeln.de/color/), without black.
COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
DISPLAY_SIDE = 1280
NEGATIVE_COLOUR = "#808080"
HEADERS = ["Show", "#", "Phrase", "Score", "Mask score", "Box", "Area %"]


@dataclass(frozen=True)
class Style:
    """Say how masks are painted.

    Attributes:
        opacity: Of the area, in [0, 1].
        outline: Width of the edge, in pixels of the picture shown; 0 for none.
    """

    opacity: float = 0.65
    outline: int = 2


def phrase_colours(phrases: Sequence[str], negatives: Sequence[str] = ()) -> dict[str, str]:
    """Give every phrase a colour by its place in the prompt, and all negatives the same grey.

    >>> phrase_colours(["a dog", "a cat"], ["grass"])
    {'a dog': '#E69F00', 'a cat': '#0072B2', 'grass': '#808080'}
    """
    colours = {phrase: COLOURS[i % len(COLOURS)] for i, phrase in enumerate(phrases)}
    return colours | dict.fromkeys(negatives, NEGATIVE_COLOUR)


def annotations(
    image: Image.Image, labels: Sequence[str], masks: np.ndarray, style: Style = Style()
) -> tuple[Image.Image, list[tuple[np.ndarray, str]]]:
    """Return the value of a `gr.AnnotatedImage`.

    Args:
        image: The picture; it is shown with at most 1280 pixels on its longer side, because the
            component paints every mask at full float precision.
        labels: N phrases.
        masks: bool (N, H, W) at the picture's size, or that of a larger one like it.
        style: How masks are painted.

    Returns:
        The picture to show and N pairs of a mask's opacity at its size, in [0, 1], and its phrase.
    """
    shown = shrink(image)
    pairs = []
    for mask, label in zip(masks, labels, strict=True):
        # Exact: of the pixel in the middle, as the picture is shrunk, and not of a corner.
        small = cv2.resize(mask.astype(np.uint8), shown.size, interpolation=cv2.INTER_NEAREST_EXACT)
        pairs.append((_opacity(small, style), label))
    return shown, pairs


def shrink(image: Image.Image) -> Image.Image:
    """Return a copy with at most 1280 pixels on its longer side."""
    shown = image.copy()
    shown.thumbnail((DISPLAY_SIDE, DISPLAY_SIDE))
    return shown


def shown_scale(image: Image.Image) -> float:
    """Return how many pixels of a picture one pixel of `shrink`'s copy stands for."""
    return max(1.0, max(image.size) / DISPLAY_SIDE)


def to_shown(place: float, scale: float) -> float:
    """Return where on `shrink`'s copy a place of the picture is, in pixels from the first's middle.

    >>> to_shown(1.5, scale=2.0), from_shown(0.5, scale=2.0)
    (0.5, 1.5)
    """
    return (place - (scale - 1) / 2) / scale


def from_shown(place: float, scale: float) -> float:
    """Return the place of the picture that is shown at a place of `shrink`'s copy."""
    return place * scale + (scale - 1) / 2


def mark(shown: Image.Image, corner: tuple[float, float] | None, scale: float) -> Image.Image:
    """Return a picture that marks the first corner of a box that is being drawn, if any.

    Args:
        shown: The picture.
        corner: x and y in pixels of the unshrunk picture, or None.
        scale: What `shown_scale` says of it.
    """
    if corner is None:
        return shown
    marked = shown.copy()
    draw = ImageDraw.Draw(marked)
    x, y = (to_shown(place, scale) for place in corner)
    arm = max(shown.size) / 50
    if (letter := 1.4 * arm) > 7:  # on a small picture there is no room for words
        # Here, where somebody looks: what the status says may be out of sight.
        _draw_tag(draw, (x + arm, y), "now the opposite corner", "black", letter, shown.size)
    for width, colour in ((5, "black"), (3, "white")):
        draw.line((x - arm, y, x + arm, y), colour, width)
        draw.line((x, y - arm, x, y + arm), colour, width)
    return marked


def _opacity(mask: np.ndarray, style: Style) -> np.ndarray:
    """Return float32 (H, W): the style's opacity inside a uint8 mask, 1 on its edge."""
    opacity = mask * np.float32(style.opacity)
    if style.outline:
        kernel = np.ones((3, 3), np.uint8)
        inside = cv2.erode(
            mask, kernel, iterations=style.outline, borderType=cv2.BORDER_CONSTANT, borderValue=1
        )
        opacity[mask > inside] = 1
    return opacity


def paint(
    shown: Image.Image, pairs: Sequence[tuple[np.ndarray, str]], colours: dict[str, str]
) -> Image.Image:
    """Paint what `annotations` returned into one picture."""
    picture = shown.copy()
    for opacity, label in pairs:
        alpha = Image.fromarray((opacity * 255).round().astype(np.uint8))
        picture.paste(colours[label], (0, 0), alpha)
    return picture


def draw_regions(
    image: Image.Image, regions: Regions, numbers: Sequence[int], colours: dict[str, str]
) -> Image.Image:
    """Draw the grounder's own answer: its boxes, with the table's numbers, phrases and scores.

    They lie over the picture or, where there is one, over the heat map.
    """
    picture = heat_overlay(image, regions.heatmap) if regions.heatmap is not None else image.copy()
    draw = ImageDraw.Draw(picture)
    unit = max(picture.size) / 400
    # The best last, so that nothing covers it.
    for i in reversed(range(len(regions))):
        label, colour = regions.labels[i], colours[regions.labels[i]]
        x1, y1, x2, y2 = map(float, regions.boxes[i])
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=max(2, round(1.5 * unit)))
        text = f"{numbers[i]} {label} {regions.scores[i]:.2f}"
        _draw_tag(draw, (x1, y1), drawable(text), colour, max(10.0, 11 * unit), picture.size)
    return picture


def _draw_tag(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    colour: str,
    letter: float,
    size: tuple[int, int],
) -> None:
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font(letter))
    width, height = right - left + 6, bottom - top + 6
    x = min(max(0.0, corner[0]), max(0.0, size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    ink = "black" if ImageColor.getcolor(colour, "L") > 140 else "white"
    draw.text((x + 3 - left, y + 3 - top), text, ink, font(letter))


def heat_overlay(image: Image.Image, heatmap: np.ndarray) -> Image.Image:
    """Lay a heat map (H, W) in [0, 1] over the picture; where it is 0, the picture is dimmed."""
    values = (np.clip(heatmap, 0, 1) * 255).astype(np.uint8)
    colours = cv2.applyColorMap(values, cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float32)
    opacity = 0.35 + 0.35 * np.clip(heatmap, 0, 1)[..., None]
    blended = np.asarray(image, np.float32) * (1 - opacity) + colours * opacity
    return Image.fromarray(blended.round().astype(np.uint8))


def table_rows(
    regions: Regions, masks: Masks, on: Sequence[bool], negatives: Sequence[str]
) -> list[list[object]]:
    """Return a row per detection, in the order of `HEADERS`; a negative has a minus sign."""
    areas = [round(100 * float(mask.mean()), 2) for mask in masks.masks]
    facts = row_facts(regions, masks.scores, negatives)
    return [[on[i], i + 1, *facts[i], areas[i]] for i in range(len(regions))]


def row_facts(
    regions: Regions, mask_scores: np.ndarray, negatives: Sequence[str]
) -> list[list[object]]:
    """Return what a row of the table says whatever its place: phrase, both scores and box."""
    return [
        [
            f"−{label}" if label in negatives else label,
            round(float(score), 3),
            round(float(mask_score), 3),
            ", ".join(str(round(float(value))) for value in box),
        ]
        for label, score, mask_score, box in zip(
            regions.labels, regions.scores, mask_scores, regions.boxes, strict=True
        )
    ]
