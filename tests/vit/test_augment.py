import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import TrivialAugmentWide
from torchvision.transforms.v2 import functional as tv

from vit.augment import (
    OPERATIONS,
    _rectangles,
    augment,
    cutmix,
    mixup,
    random_crop_flip,
    random_erasing,
    trivial_augment,
)
from vit.recipes import TrainConfig


def noise(count: int, side: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def one_hot(count: int) -> Tensor:
    return torch.eye(count)


def views(image: Tensor, padding: int) -> list[bytes]:
    """Return all crops, plain and mirrored, that augmentation may give."""
    pad = np.pad(image.numpy(), ((0, 0), (padding, padding), (padding, padding)))
    side = image.shape[-1]
    crops = [
        pad[:, y : y + side, x : x + side]
        for y in range(2 * padding + 1)
        for x in range(2 * padding + 1)
    ]
    return [crop.tobytes() for crop in crops] + [crop[..., ::-1].tobytes() for crop in crops]


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_random_crop_flip_gives_every_view(padding: int) -> None:
    torch.manual_seed(5)
    image = torch.randint(1, 256, (3, 6, 6), dtype=torch.uint8)
    batch = random_crop_flip(image.expand(1500, -1, -1, -1), padding)
    assert batch.shape == (1500, 3, 6, 6)
    assert batch.dtype == torch.uint8
    assert {view.numpy().tobytes() for view in batch} == set(views(image, padding))


def test_random_crop_flip_keeps_the_order_of_the_batch() -> None:
    torch.manual_seed(6)
    images = torch.arange(1, 51, dtype=torch.uint8).view(50, 1, 1, 1).expand(-1, 3, 6, 6)
    assert torch.equal(random_crop_flip(images, 2).amax((1, 2, 3)), torch.arange(1, 51).byte())


def affine(image: Tensor, axis: int, shear: float = 0.0, pixels: int = 0) -> Tensor:
    angles, shifts = [0.0, 0.0], [0, 0]
    angles[axis], shifts[axis] = math.degrees(math.atan(shear)), pixels
    centre = [0, 0] if shear else None
    return tv.affine(image, 0.0, shifts, 1.0, angles, center=centre)


@pytest.mark.parametrize(
    ("name", "magnitudes", "theirs"),
    [
        ("identity", (0.0,), lambda x, _: x),
        ("shear x", (0.33, -0.99), lambda x, m: affine(x, 0, shear=m)),
        ("shear y", (0.33, -0.99), lambda x, m: affine(x, 1, shear=m)),
        ("translate x", (5.3, -9.6, 32.0), lambda x, m: affine(x, 0, pixels=int(m))),
        ("translate y", (5.3, -9.6, 32.0), lambda x, m: affine(x, 1, pixels=int(m))),
        ("rotate", (13.5, -45.0, 135.0), tv.rotate),
        ("brightness", (0.5, -0.99), lambda x, m: tv.adjust_brightness(x, 1 + m)),
        ("colour", (0.5, -0.99), lambda x, m: tv.adjust_saturation(x, 1 + m)),
        ("contrast", (0.5, -0.99), lambda x, m: tv.adjust_contrast(x, 1 + m)),
        ("sharpness", (0.5, -0.99), lambda x, m: tv.adjust_sharpness(x, 1 + m)),
        ("posterize", (0.0, 0.6, 2.4, 6.0), lambda x, m: tv.posterize(x, 8 - round(m))),
        ("solarize", (0.0, 100.0, 255.0), lambda x, m: tv.solarize(x, 255 - m)),
        ("autocontrast", (0.0,), lambda x, _: tv.autocontrast(x)),
        ("equalize", (0.0,), lambda x, _: tv.equalize(x)),
    ],
)
def test_operations_equal_torchvision(
    name: str, magnitudes: tuple[float, ...], theirs: Callable[[Tensor, float], Tensor]
) -> None:
    images = noise(len(magnitudes), 32)
    images[:, :, :16] //= 2  # autocontrast and equalize have something to do
    got = OPERATIONS[name].apply(images, torch.tensor(magnitudes))
    assert got.dtype == torch.uint8
    for image, ours, magnitude in zip(images, got, magnitudes, strict=True):
        off = (ours.int() - theirs(image, magnitude).int()).abs() > 1
        assert off.float().mean() < 0.01  # ties between pixels are rounded either way


def test_trivial_augment_uses_every_operation_up_to_its_largest_magnitude() -> None:
    torch.manual_seed(2)
    image = noise(1, 16)
    batch = trivial_augment(image.expand(5000, -1, -1, -1))
    assert (batch.shape, batch.dtype) == ((5000, 3, 16, 16), torch.uint8)
    seen = {picture.numpy().tobytes() for picture in batch}
    for operation in OPERATIONS.values():
        for sign in (1, -1) if operation.signed else (1,):
            extreme = operation.apply(image, torch.tensor([sign * operation.largest]))
            assert extreme.numpy().tobytes() in seen


def test_the_operations_are_those_of_torchvision() -> None:
    names = """Identity ShearX ShearY TranslateX TranslateY Rotate Brightness Color Contrast
        Sharpness Posterize Solarize AutoContrast Equalize"""
    for name, operation in zip(names.split(), OPERATIONS.values(), strict=True):
        levels, signed = TrivialAugmentWide._AUGMENTATION_SPACE[name]
        strength = levels(31, 32, 32)
        if name == "Posterize":  # bits left, and not those taken away
            strength = 8 - strength
        elif name == "Solarize":  # from 1 down
            strength = 255 * (1 - strength)
        assert operation.signed == signed, name
        largest = 0 if strength is None else float(strength[-1])
        assert operation.largest == pytest.approx(largest), name


def test_trivial_augment_keeps_the_order() -> None:
    torch.manual_seed(2)
    black, bright = torch.zeros(3, 8, 8, dtype=torch.uint8), noise(1)[0] // 2 + 128
    batch = trivial_augment(torch.stack((black, bright)).repeat(300, 1, 1, 1)).float()
    assert batch[::2].mean((1, 2, 3)).median() == 0
    assert batch[1::2].mean((1, 2, 3)).median() > 100


@pytest.mark.parametrize("count", [0, 1, 3])  # fewer pictures than operations
def test_trivial_augment_of_a_small_batch(count: int) -> None:
    assert trivial_augment(noise(count)).shape == (count, 3, 8, 8)


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_random_erasing(probability: float, share: float) -> None:
    torch.manual_seed(3)
    images = torch.zeros(1000, 3, 32, 32, dtype=torch.uint8)
    erased = (random_erasing(images, probability) > 0).any(1)  # (B, S, S)
    areas = erased.float().mean((1, 2))
    assert (areas > 0).float().mean() == pytest.approx(share, abs=0.05)
    assert (areas[areas > 0] < 0.36).all()
    if share:  # from 0.02 to 0.33 they are equally likely
        assert areas[areas > 0].mean() == pytest.approx(0.175, abs=0.02)
        height, width = (erased.any(axis).sum(1)[areas > 0.1] for axis in (2, 1))
        assert 2.7 < (height / width).max() < 4 and 2.7 < (width / height).max() < 4
    # Noise fills one rectangle: as many pixels as its rows times its columns.
    assert torch.equal(erased.sum((1, 2)), erased.any(1).sum(1) * erased.any(2).sum(1))


def test_rectangles_lie_inside_in_every_place() -> None:
    torch.manual_seed(3)
    length = torch.full((2000,), 5.0)
    made = _rectangles(length, length, side=8)
    assert (made.sum((1, 2, 3)) == 25).all()
    assert len(made.flatten(1).unique(dim=0)) == 16  # four by four


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_cutmix_targets_are_the_areas(probability: float, share: float) -> None:
    torch.manual_seed(4)
    count = 200
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    mixed, targets = cutmix(images, one_hot(count), probability)
    for number, (image, target) in enumerate(zip(mixed, targets, strict=True)):
        areas = torch.bincount(image[0].flatten().int(), minlength=count) / 64
        torch.testing.assert_close(target, areas)
        assert image[:, 0, 0].unique().numel() == 1  # all channels are cut alike
        assert target[number] >= 0
    changed = (targets.diagonal() < 1).float().mean()
    assert changed == pytest.approx(share, abs=0.12)


def test_mixup_targets_are_the_shares() -> None:
    torch.manual_seed(4)
    images = (40 * torch.arange(6, dtype=torch.uint8)).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    mixed, targets = mixup(images, one_hot(6), 0.8)
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    expected = (targets @ (40.0 * torch.arange(6))).round().byte()
    assert torch.equal(mixed, expected.view(-1, 1, 1, 1).expand_as(mixed))
    assert (targets.diagonal() < 1).any()


def test_every_share_of_cutmix_is_equally_likely() -> None:
    torch.manual_seed(4)
    images = torch.zeros(2000, 3, 32, 32, dtype=torch.uint8)
    _, targets = cutmix(images, one_hot(2000), 1.0)
    shares = 1 - targets.diagonal()
    limits = torch.linspace(0, 1, 5)
    parts = torch.histogram(shares, limits).hist / len(shares)
    torch.testing.assert_close(parts, torch.full((4,), 0.25), atol=0.05, rtol=0)


@pytest.mark.parametrize("alpha", [0.2, 1.0])  # mostly one of both; every share as likely
def test_shares_of_mixup_have_the_distribution_asked_for(alpha: float) -> None:
    torch.manual_seed(4)
    images = torch.zeros(2000, 3, 1, 1, dtype=torch.uint8)
    shares = 1 - mixup(images, one_hot(2000), alpha)[1].diagonal()
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (8 * alpha + 4), abs=0.015)


MIXED = TrainConfig(augment="none", random_erasing=1.0, cutmix=1.0, mixup=1.0)


@pytest.mark.parametrize(
    ("config", "plain", "pictures_change", "targets_change"),
    [
        (TrainConfig(augment="none"), False, False, False),
        (TrainConfig(augment="crop_flip"), False, True, False),
        (TrainConfig(augment="trivial", crop_padding=0), False, True, False),
        (TrainConfig(augment="none", random_erasing=1.0), False, True, False),
        (TrainConfig(augment="none", cutmix=1.0), False, True, True),
        (TrainConfig(augment="none", mixup=1.0), False, True, True),
        (MIXED, False, True, True),
        (MIXED, True, False, False),  # the last epochs
    ],
)
def test_augment(
    config: TrainConfig, plain: bool, pictures_change: bool, targets_change: bool
) -> None:
    torch.manual_seed(7)
    images, targets = noise(16), one_hot(16)
    got, got_targets = augment(images, targets, config, plain)
    assert (got.shape, got.dtype) == (images.shape, torch.uint8)
    assert torch.equal(got, images) is not pictures_change
    assert torch.equal(got_targets, targets) is not targets_change
    torch.testing.assert_close(got_targets.sum(1), torch.ones(16))


def test_plain_pictures_are_only_cropped_and_flipped() -> None:
    config = dataclasses.replace(MIXED, augment="trivial", crop_padding=2)
    images, targets = noise(16), one_hot(16)
    torch.manual_seed(7)
    expected = random_crop_flip(images, 2)
    torch.manual_seed(7)
    got, got_targets = augment(images, targets, config, plain=True)
    assert torch.equal(got, expected)
    assert torch.equal(got_targets, targets)
