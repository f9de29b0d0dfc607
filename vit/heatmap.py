"""From a map to a picture that a person can read."""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

# How much of the colour covers the picture where the map is 0 and where it is 1.
COLD, HOT = 0.25, 0.7
FRAME = (0, 255, 255)


def overlay(image: Image.Image, heat: NDArray[np.float32], side: int) -> Image.Image:
    """Lay a map in colours over a square picture: dark where it is 0, yellow where it is 1.

    Args:
        image: Square picture of any size; it is scaled smoothly to `side`.
        heat: (g, g) in [0, 1], rows from the top.
        side: Width and height of the result in pixels.

    Returns:
        RGB picture, side x side.

    Raises:
        ValueError: If the map is not square or leaves [0, 1].
    """
    _check(heat)
    picture = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
    # Bicubic overshoots at steep edges, hence the clip.
    smooth = cv2.resize(heat.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    smooth = smooth.clip(0, 1)
    colours = colour(smooth)
    share = (COLD + (HOT - COLD) * smooth)[..., None]
    blend = picture * (1 - share) + colours * share
    return Image.fromarray(blend.round().astype(np.uint8))


def inset(
    image: Image.Image, box: tuple[int, int, int, int], heat: NDArray[np.float32], side: int
) -> Image.Image:
    """Lay a map over one square of a picture, frame it, and grey what is around it.

    Args:
        image: RGB picture of any size; it is scaled smoothly.
        box: The square: left, top, right, bottom in pixels.
        heat: As for `overlay`.
        side: Longer side of the result in pixels.

    Returns:
        RGB picture with the proportions of `image`.
    """
    scale = side / max(image.size)
    size = tuple(max(1, round(length * scale)) for length in image.size)
    whole = image.resize(size, Image.Resampling.BICUBIC).convert("L").convert("RGB")
    width = min(max(1, round((box[2] - box[0]) * scale)), *size)
    left, top = (min(round(box[i] * scale), size[i] - width) for i in (0, 1))
    whole.paste(overlay(image.crop(box), heat, width), (left, top))
    corner = (left + width - 1, top + width - 1)
    ImageDraw.Draw(whole).rectangle((left, top, *corner), outline=FRAME, width=min(2, width))
    return whole


def colour(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn a map (H, W) in [0, 1] into colours (H, W, 3), from dark over red to yellow."""
    return cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]


def outline(image: Image.Image, patch: int, grid: int) -> Image.Image:
    """Return a copy of a square picture with one patch framed.

    Args:
        image: RGB, any side.
        patch: Index of the patch in [0, grid * grid), row by row.
        grid: Number of patches along one side.

    >>> outline(Image.new("RGB", (8, 8)), 3, 2).getpixel((4, 4))
    (0, 255, 255)
    """
    framed, side = image.copy(), image.width / grid
    top, left = divmod(patch, grid)
    box = (left * side, top * side, (left + 1) * side - 1, (top + 1) * side - 1)
    width = max(1, image.width // 150)
    ImageDraw.Draw(framed).rectangle(box, outline=FRAME, width=width)
    return framed


def enlarge(image: Image.Image, side: int) -> Image.Image:
    """Scale a picture to side x side so that its single pixels stay visible as squares.

    >>> enlarge(Image.new("RGB", (32, 32)), 448).size
    (448, 448)
    """
    return image.resize((side, side), Image.Resampling.NEAREST)


def _check(heat: NDArray[np.float32]) -> None:
    if heat.ndim != 2 or heat.shape[0] != heat.shape[1] or not heat.size:
        raise ValueError(f"the map has shape {heat.shape}; expected (g, g)")
    if not (heat.min() >= 0 and heat.max() <= 1):  # also true of NaN
        raise ValueError(f"the map goes from {heat.min()} to {heat.max()}; it must stay in [0, 1]")
