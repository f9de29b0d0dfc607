"""From pictures to GLIP's input."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

MEAN = (103.530, 116.280, 123.675)  # blue, green, red, of 0..255
STD = (57.375, 57.120, 58.395)
MULTIPLE = 32


def scaled_size(size: tuple[int, int], short: int, long: int | None) -> tuple[int, int]:
    """Return the width and height at which GLIP looks at a picture of `size`.

    Args:
        size: Width and height in pixels.
        short: What the short side becomes,
        long: unless the long side became longer than this; None for no limit.

    >>> [scaled_size(size, 800, 1333) for size in ((640, 480), (2000, 500), (2, 5000))]
    [(1066, 800), (1332, 333), (1, 2500)]
    """
    low, high = min(size), max(size)
    if long is not None and high / low * short > long:
        short = max(1, round(long * low / high))
    if low == short:
        return size
    other = int(short * high / low)
    return (short, other) if size[0] == low else (other, short)


def prepare(
    images: list[Image.Image], short: int, long: int | None
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Scale, normalise and pad RGB pictures.

    Returns:
        float (B, 3, H, W), BGR, sides multiples of 32; and each picture's width and height in it.
        The padding, right and below, is not masked anywhere: it changes the answer a little.
    """
    sizes = [scaled_size(image.size, short, long) for image in images]
    # The weights are used to Pillow's antialiased filter on 8 bits.
    scaled = [
        image.resize(size, Image.Resampling.BILINEAR)
        for image, size in zip(images, sizes, strict=True)
    ]
    width, height = (-(-max(side) // MULTIPLE) * MULTIPLE for side in zip(*sizes, strict=True))
    batch = [
        F.pad(pixels, (0, width - pixels.shape[2], 0, height - pixels.shape[1]))
        for pixels in map(_normalise, scaled)
    ]
    return torch.stack(batch), sizes


def _normalise(image: Image.Image) -> Tensor:
    bgr = torch.from_numpy(np.array(image)[..., ::-1].copy()).permute(2, 0, 1).float()
    mean, std = torch.tensor([MEAN, STD])
    return (bgr - mean.view(3, 1, 1)) / std.view(3, 1, 1)
