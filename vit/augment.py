"""Augmentation of whole batches of uint8 pictures on their device, without a loop over pictures.

TrivialAugment: Müller & Hutter, ICCV 2021 (https://arxiv.org/abs/2103.10158), the "wide" space.
CutMix: Yun et al., ICCV 2019 (https://arxiv.org/abs/1905.04899).
Mixup: Zhang et al., ICLR 2018 (https://arxiv.org/abs/1710.09412).
Random erasing: Zhong et al., AAAI 2020 (https://arxiv.org/abs/1708.04896).

All randomness is torch's global generator, and every picture draws its own. Axes: B batch, S side,
K classes. Pictures are uint8 (B, 3, S, S), magnitudes float32 (B,).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Beta
from torchvision.transforms.v2 import functional as tv

from vit.recipes import TrainConfig


def random_crop_flip(images: Tensor, padding: int) -> Tensor:
    """Shift each image by up to `padding` pixels and mirror half of them.

    Args:
        images: uint8 (B, 3, S, S).
        padding: Largest shift in pixels; the space left free is black.

    Returns:
        uint8 (B, 3, S, S).
    """
    b, _, side, _ = images.shape
    device = images.device
    padded = F.pad(images, (padding,) * 4)
    dy, dx = torch.randint(0, 2 * padding + 1, (2, b, 1), device=device)
    rows = dy + torch.arange(side, device=device)  # (B, S)
    columns = dx + torch.arange(side, device=device)
    flip = torch.rand(b, 1, device=device) < 0.5
    columns = torch.where(flip, columns.flip(1), columns)
    batch = torch.arange(b, device=device)
    return padded[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def _warp(images: Tensor, changes: dict[tuple[int, int], Tensor]) -> Tensor:
    """Fetch every pixel from where its picture's matrix (2, 3) says; outside is black.

    Coordinates are x, y, 1, from -1 to 1 over the picture; `changes` replace entries (B,) of the
    identity.
    """
    theta = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    for (row, column), value in changes.items():
        theta[:, row, column] = value
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, mode="nearest", align_corners=False).byte()


def _shear(images: Tensor, magnitude: Tensor, axis: int) -> Tensor:
    # The top left corner stays, as in Pillow and in the paper.
    return _warp(images, {(axis, 1 - axis): magnitude, (axis, 2): magnitude})


def _translate(images: Tensor, magnitude: Tensor, axis: int) -> Tensor:
    return _warp(images, {(axis, 2): magnitude.trunc() * -2 / images.shape[-1]})


def _rotate(images: Tensor, magnitude: Tensor) -> Tensor:
    cos, sin = magnitude.deg2rad().cos(), magnitude.deg2rad().sin()
    return _warp(images, {(0, 0): cos, (0, 1): -sin, (1, 0): sin, (1, 1): cos})


def _away_from(other: Tensor, images: Tensor, magnitude: Tensor) -> Tensor:
    # 0 gives `other`, 1 the images, 2 doubles the contrast
    factor = 1 + magnitude.view(-1, 1, 1, 1)
    return torch.lerp(other, images.float(), factor).clamp(0, 255).byte()


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.float().split(1, dim=1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).floor()  # (B, 1, S, S)


def _brightness(images: Tensor, magnitude: Tensor) -> Tensor:
    return _away_from(torch.zeros((), device=images.device), images, magnitude)


def _colour(images: Tensor, magnitude: Tensor) -> Tensor:
    return _away_from(_grey(images), images, magnitude)


def _contrast(images: Tensor, magnitude: Tensor) -> Tensor:
    return _away_from(_grey(images).mean((1, 2, 3), keepdim=True), images, magnitude)


def _sharpness(images: Tensor, magnitude: Tensor) -> Tensor:
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    if min(images.shape[-2:]) < 3:  # all is border, which stays
        return images
    smooth = images.float()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(smooth, kernel / 13, groups=3).round()
    return _away_from(smooth, images, magnitude)


def _posterize(images: Tensor, magnitude: Tensor) -> Tensor:
    bits = magnitude.round().byte().view(-1, 1, 1, 1)
    return (images >> bits) << bits


def _solarize(images: Tensor, magnitude: Tensor) -> Tensor:
    return torch.where(images >= 255 - magnitude.view(-1, 1, 1, 1), 255 - images, images)


@dataclass(frozen=True)
class Operation:
    """Hold one operation of TrivialAugment.

    Attributes:
        apply: Maps pictures and magnitudes to pictures.
        largest: Largest magnitude.
        signed: Whether the magnitude is negated half of the time.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    largest: float = 0.0
    signed: bool = False


OPERATIONS = {
    "identity": Operation(lambda images, _: images),
    "shear x": Operation(partial(_shear, axis=0), 0.99, signed=True),
    "shear y": Operation(partial(_shear, axis=1), 0.99, signed=True),
    "translate x": Operation(partial(_translate, axis=0), 32, signed=True),  # pixels
    "translate y": Operation(partial(_translate, axis=1), 32, signed=True),
    "rotate": Operation(_rotate, 135, signed=True),  # degrees
    "brightness": Operation(_brightness, 0.99, signed=True),
    "colour": Operation(_colour, 0.99, signed=True),
    "contrast": Operation(_contrast, 0.99, signed=True),
    "sharpness": Operation(_sharpness, 0.99, signed=True),
    "posterize": Operation(_posterize, 6),  # bits taken away
    "solarize": Operation(_solarize, 255),
    "autocontrast": Operation(lambda images, _: tv.autocontrast(images)),
    "equalize": Operation(lambda images, _: tv.equalize(images)),
}
LEVELS = 31


def trivial_augment(images: Tensor) -> Tensor:
    """Apply one random operation with a random magnitude to each picture; uint8 (B, 3, S, S)."""
    b, device = len(images), images.device
    choice = torch.randint(len(OPERATIONS), (b,), device=device)
    level = torch.randint(LEVELS, (b,), device=device) / (LEVELS - 1)
    sign = torch.randint(2, (b,), device=device) * 2 - 1
    out = torch.empty_like(images)
    for number, operation in enumerate(OPERATIONS.values()):
        magnitude = operation.largest * (level * sign if operation.signed else level)
        chosen = choice == number
        if device.type == "cuda":
            # All pictures and then a choice: how many were drawn is nothing a CPU has to wait for.
            out = torch.where(chosen.view(-1, 1, 1, 1), operation.apply(images, magnitude), out)
        elif chosen.any():
            out[chosen] = operation.apply(images[chosen], magnitude[chosen])
    return out


def _rectangles(heights: Tensor, widths: Tensor, side: int) -> Tensor:
    """Return bool (B, 1, S, S), true in a rectangle of the given size (B,) at a random place."""

    def span(length: Tensor) -> Tensor:
        first = (torch.rand(len(length), device=length.device) * (side - length + 1)).floor()
        place = torch.arange(side, device=length.device)
        return (place >= first[:, None]) & (place < (first + length)[:, None])  # (B, S)

    return span(heights)[:, None, :, None] & span(widths)[:, None, None, :]


def _some(images: Tensor, share: float) -> Tensor:
    return torch.rand(len(images), 1, 1, 1, device=images.device) < share


def random_erasing(images: Tensor, probability: float) -> Tensor:
    """Replace a rectangle by noise: 2 to 33 % of the area, sides up to 3.3 to 1.

    Args:
        images: uint8 (B, 3, S, S).
        probability: Share of the pictures in [0, 1] to which it happens.

    Returns:
        uint8 (B, 3, S, S).
    """
    side, device = images.shape[-1], images.device
    area, shape = torch.rand(2, len(images), device=device)
    height = ((0.02 + 0.31 * area) * 3.3 ** (2 * shape - 1)).sqrt() * side
    width = (0.02 + 0.31 * area) * side**2 / height
    inside = _rectangles(height.round().clamp(max=side), width.round().clamp(max=side), side)
    noise = torch.randint(256, images.shape, dtype=torch.uint8, device=device)
    return torch.where(inside & _some(images, probability), noise, images)


def cutmix(images: Tensor, targets: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of another picture of the batch; its target counts as much as its area.

    After Yun et al., ICCV 2019 (https://arxiv.org/abs/1905.04899). Each picture draws its own,
    which lies wholly inside, so that its share of the area is 0.5 in the mean. The published code
    draws one for a batch and cuts it off at the border, which makes it 0.3.

    Args:
        images: uint8 (B, 3, S, S).
        targets: float (B, K), rows sum to 1.
        probability: Share of the pictures in [0, 1] to which it happens.

    Returns:
        Mixed images and targets, shaped as given.
    """
    side, device = images.shape[-1], images.device
    other = torch.rand(len(images), device=device).argsort()
    length = (torch.rand(len(images), device=device).sqrt() * side).round()
    inside = _rectangles(length, length, side) & _some(images, probability)
    share = inside.float().mean((1, 2, 3)).unsqueeze(1)
    return torch.where(inside, images[other], images), targets.lerp(targets[other], share)


def mixup(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Blend each picture and its target with another one of the batch.

    Args:
        images: uint8 (B, 3, S, S).
        targets: float (B, K), rows sum to 1.
        alpha: Above 0; the other's share is drawn from Beta(alpha, alpha).

    Returns:
        Mixed images and targets, shaped as given.
    """
    other = torch.rand(len(images), device=images.device).argsort()
    # Apple's processors cannot draw it.
    device = "cpu" if images.device.type == "mps" else images.device
    alphas = torch.full((len(images), 1), alpha, device=device)
    share = Beta(alphas, alphas, validate_args=False).sample().to(images.device)
    mixed = images.float().lerp(images[other].float(), share[..., None, None])
    return mixed.round().byte(), targets.lerp(targets[other], share)


def augment(
    images: Tensor, targets: Tensor, config: TrainConfig, plain: bool
) -> tuple[Tensor, Tensor]:
    """Augment a batch as a recipe says; if `plain`, only crop and flip.

    Args:
        images: uint8 (B, 3, S, S).
        targets: float (B, K), rows sum to 1.
        config: The recipe.
        plain: Whether pictures look like those that are tested on: a model gets better if the last
            ones it learns from do (He et al. 2019, https://arxiv.org/abs/1909.09148).

    Returns:
        Images and targets, shaped as given.
    """
    if config.augment != "none":
        images = random_crop_flip(images, config.crop_padding)
    if plain:
        return images, targets
    if config.augment == "trivial":
        images = trivial_augment(images)
    if config.random_erasing:
        images = random_erasing(images, config.random_erasing)
    if config.mixup:
        images, targets = mixup(images, targets, config.mixup)
    if config.cutmix:
        images, targets = cutmix(images, targets, config.cutmix)
    return images, targets
