"""Backgrounds for the scenes: plain, patterned and texture-like, made of noise and shapes."""

from collections.abc import Callable

import cv2
import numpy as np

Generator = np.random.Generator


def _colours(rng: Generator, count: int) -> np.ndarray:
    """Return random colours, float32 (count, 3), now and then soft or nearly grey."""
    colours = rng.uniform(0, 255, (count, 3))
    grey = colours.mean(axis=1, keepdims=True)
    return (grey + (colours - grey) * rng.uniform(0, 1)).astype(np.float32)


def _mix(weight: np.ndarray, rng: Generator) -> np.ndarray:
    """Return two random colours mixed by a (H, W) weight in [0, 1]."""
    first, second = _colours(rng, 2)
    return first + weight[..., None].astype(np.float32) * (second - first)


def _noise(rng: Generator, size: int, across: float, down: float) -> np.ndarray:
    """Return smooth noise in [0, 1], (size, size), with `across` by `down` cells."""
    cells = rng.uniform(0, 1, (max(2, round(down)), max(2, round(across)))).astype(np.float32)
    return np.clip(cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def _turned(rng: Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of a randomly turned unit square, two (size, size) arrays."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    angle = rng.uniform(0, np.pi)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def plain(rng: Generator, size: int) -> np.ndarray:
    """Paint one colour."""
    return np.broadcast_to(_colours(rng, 1), (size, size, 3)).copy()


def gradient(rng: Generator, size: int) -> np.ndarray:
    """Blend two colours along a random direction."""
    along, _ = _turned(rng, size)
    return _mix((along - along.min()) / np.ptp(along), rng)


def noise(rng: Generator, size: int) -> np.ndarray:
    """Add up smooth colour noise of three scales, like stone or grass."""
    cells = np.exp(rng.uniform(np.log(3), np.log(size / 3)))
    octaves = [_noise(rng, size, cells * 2**k, cells * 2**k) / 2**k for k in range(3)]
    return _mix(np.clip(sum(octaves) / 1.75, 0, 1), rng)


def grain(rng: Generator, size: int) -> np.ndarray:
    """Draw long soft fibres, like wood or water."""
    cells = rng.uniform(1, 6), rng.uniform(20, 80)
    across, down = cells if rng.random() < 0.5 else cells[::-1]
    return _mix(_noise(rng, size, across, down), rng)


def checks(rng: Generator, size: int) -> np.ndarray:
    """Draw a turned chequered pattern."""
    x, y = _turned(rng, size)
    count = rng.uniform(3, 14)
    return _mix((np.floor(x * count) + np.floor(y * count)) % 2, rng)


def stripes(rng: Generator, size: int) -> np.ndarray:
    """Draw turned stripes with soft or hard edges."""
    x, _ = _turned(rng, size)
    wave = np.sin(x * rng.uniform(15, 90)) * rng.uniform(0.5, 4)
    return _mix(np.clip(wave / 2 + 0.5, 0, 1), rng)


def blobs(rng: Generator, size: int) -> np.ndarray:
    """Scatter ellipses of any colour over a gradient."""
    canvas = gradient(rng, size)
    for colour in _colours(rng, rng.integers(3, 25)):
        centre = rng.integers(0, size, 2).tolist()
        axes = (rng.uniform(0.02, 0.2, 2) * size).astype(int).tolist()
        cv2.ellipse(canvas, centre, axes, rng.uniform(0, 180), 0, 360, colour.tolist(), -1)
    return canvas


def shards(rng: Generator, size: int) -> np.ndarray:
    """Scatter triangles and quadrangles of any colour over a gradient."""
    canvas = gradient(rng, size)
    for colour in _colours(rng, rng.integers(3, 25)):
        centre = rng.uniform(0, size, (1, 2))
        corners = centre + rng.uniform(-0.2, 0.2, (rng.integers(3, 5), 2)) * size
        cv2.fillPoly(canvas, [corners.astype(np.int32)], colour.tolist())
    return canvas


def landscape(rng: Generator, size: int) -> np.ndarray:
    """Put a textured ground under a sky."""
    horizon = int(size * rng.uniform(0.25, 0.75))
    return np.vstack([gradient(rng, size)[:horizon], noise(rng, size)[horizon:]])


def rings(rng: Generator, size: int) -> np.ndarray:
    """Draw rings around a point."""
    y, x = np.mgrid[:size, :size] / size
    distance = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0, 1))
    return _mix(np.sin(distance * rng.uniform(10, 60)) / 2 + 0.5, rng)


def bricks(rng: Generator, size: int) -> np.ndarray:
    """Build a wall whose bricks differ a little."""
    count = int(rng.integers(5, 14))
    brick, joint = _colours(rng, 2)
    canvas = np.broadcast_to(joint, (size, size, 3)).copy()
    height = size / count
    for row in range(count):
        for column in range(-1, count // 2 + 1):
            left, top = (column + row % 2 / 2) * 2 * height, row * height
            corner = (int(left + 2 * height) - 2, int(top + height) - 2)
            tone = np.clip(brick + rng.normal(0, 12), 0, 255).tolist()
            cv2.rectangle(canvas, (int(left), int(top)), corner, tone, -1)
    return canvas


def dots(rng: Generator, size: int) -> np.ndarray:
    """Print a regular grid of dots."""
    x, y = _turned(rng, size)
    count = rng.uniform(4, 14)
    distance = np.hypot((x * count) % 1 - 0.5, (y * count) % 1 - 0.5)
    return _mix(np.clip((distance - rng.uniform(0.2, 0.4)) * 20, 0, 1), rng)


def clouds(rng: Generator, size: int) -> np.ndarray:
    """Blend three colours by warped noise, like marble or clouds."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    shift = [(_noise(rng, size, 4, 4) - 0.5) * size * 0.5 for _ in range(2)]
    weight = _noise(rng, size, 9, 9)
    warped = cv2.remap(weight, x + shift[0], y + shift[1], cv2.INTER_LINEAR, None, cv2.BORDER_WRAP)
    return _mix(warped, rng)


Background = Callable[[Generator, int], np.ndarray]
TRAINING: tuple[Background, ...] = (
    plain,
    gradient,
    noise,
    grain,
    checks,
    stripes,
    blobs,
    shards,
    landscape,
)
HELD_OUT: tuple[Background, ...] = (rings, bricks, dots, clouds)


def make_background(rng: Generator, size: int, held_out: bool) -> np.ndarray:
    """Paint a random background.

    Args:
        rng: Source of every choice.
        size: Side in pixels.
        held_out: Whether to use the kinds no model was trained on.

    Returns:
        float32 (size, size, 3) in 0..255.
    """
    kinds = HELD_OUT if held_out else TRAINING
    canvas = kinds[rng.integers(len(kinds))](rng, size)
    if not held_out and rng.random() < 0.3:
        canvas = canvas + rng.normal(0, rng.uniform(2, 12), canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.float32)
