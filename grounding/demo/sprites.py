"""The sprites scenes are composed of: loading, repainting, and the command that imports the art.

The art is Microsoft Fluent Emoji (MIT, see assets/sprites/LICENSE), 3D style, as published in the
npm package `@lobehub/fluent-emoji-3d` 1.1.0. To import the sprites of newly added things:

    npm pack @lobehub/fluent-emoji-3d@1.1.0 && tar xzf lobehub-fluent-emoji-3d-1.1.0.tgz
    python -m grounding.demo.sprites package/assets
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from grounding.demo.words import PAINTS, THINGS

SPRITE_DIR = Path(__file__).resolve().parents[2] / "assets" / "sprites"
SPRITE_SIZE = 128

# Hue in OpenCV degrees (0 to 179), factors for saturation and value.
_PAINT_HSV = {
    "red": (177, 1.1, 0.95),
    "orange": (11, 1.15, 1.1),
    "yellow": (26, 1.15, 1.2),
    "green": (62, 1.0, 0.85),
    "blue": (108, 1.1, 1.0),
    "purple": (137, 0.95, 0.85),
    "pink": (162, 0.6, 1.25),
    "black": (115, 0.2, 0.3),
}


@dataclass(frozen=True)
class Sprite:
    """One picture of a thing.

    Attributes:
        name: Name of the thing.
        colour: One of `words.COLOURS`, or "".
        levels: float32 RGBA pyramid, (S, S, 4) halved level by level, 0..255 with the colours
            pre-multiplied by alpha.
    """

    name: str
    colour: str
    levels: tuple[np.ndarray, ...]


def stem(emoji: str) -> str:
    """Return the file stem of an emoji: its code points.

    >>> stem("🐕")
    '1f415'
    """
    return "-".join(f"{ord(character):x}" for character in emoji)


def repaint(rgba: np.ndarray, paint: str) -> np.ndarray:
    """Give the dominant hue of a sprite another colour.

    Args:
        rgba: uint8 (H, W, 4).
        paint: One of `words.PAINTS`.

    Returns:
        uint8 (H, W, 4); pixels far from the dominant hue, and greys, are left alone.
    """
    hsv = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2HSV).astype(np.float32)
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    weight = saturation * (rgba[..., 3] > 128)
    histogram = np.bincount(hue.astype(int).ravel(), weight.ravel(), minlength=180)
    wrapped = np.concatenate([histogram] * 3)
    dominant = np.convolve(wrapped, np.ones(21), "same")[180:360].argmax()
    away = (hue - dominant + 90) % 180 - 90
    strength = np.clip((28 - np.abs(away)) / 8, 0, 1) * np.clip((saturation - 40) / 40, 0, 1)
    target_hue, saturation_gain, value_gain = _PAINT_HSV[paint]
    # Keeping a third of the hue variation preserves the soft shading of the art.
    painted = np.stack(
        [(target_hue + away / 3) % 180, saturation * saturation_gain, value * value_gain], axis=-1
    )
    painted = np.clip(painted, 0, (179, 255, 255)).astype(np.uint8)
    rgb = cv2.cvtColor(painted, cv2.COLOR_HSV2RGB).astype(np.float32)
    blend = strength[..., None]
    mixed = rgb * blend + rgba[..., :3] * (1 - blend)
    return np.dstack([mixed.round().astype(np.uint8), rgba[..., 3]])


def _pyramid(rgba: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the pre-multiplied pyramid of a uint8 RGBA picture, down to 16 px."""
    level = rgba.astype(np.float32)
    level[..., :3] *= level[..., 3:] / 255
    levels = [level]
    while levels[-1].shape[0] > 16:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return tuple(levels)


@cache
def load_sprites() -> dict[str, tuple[Sprite, ...]]:
    """Return every sprite, natural and repainted, by the name of its thing."""
    sprites: dict[str, tuple[Sprite, ...]] = {}
    for thing in THINGS:
        found = []
        for emoji, colour in thing.sprites.items():
            with Image.open(SPRITE_DIR / f"{stem(emoji)}.webp") as file:
                rgba = np.asarray(file.convert("RGBA"))
            found.append(Sprite(thing.name, colour, _pyramid(rgba)))
            for paint in PAINTS if thing.repaint else ():
                if paint != colour:
                    found.append(Sprite(thing.name, paint, _pyramid(repaint(rgba, paint))))
        sprites[thing.name] = tuple(found)
    return sprites


def import_art(source: Path) -> None:
    """Copy the sprites named in `words.THINGS` from an unpacked art package, made smaller."""
    for thing in THINGS:
        for emoji in thing.sprites:
            # Some files carry U+FE0F, the mark that asks for the colour picture.
            names = (f"{stem(emoji)}.webp", f"{stem(emoji)}-fe0f.webp")
            path = next((source / name for name in names if (source / name).is_file()), None)
            if path is None:
                raise FileNotFoundError(f"{source} has no sprite for {thing.name} ({names[0]})")
            with Image.open(path) as file:
                small = file.convert("RGBA").resize((SPRITE_SIZE,) * 2, Image.Resampling.LANCZOS)
            small.save(SPRITE_DIR / names[0], quality=90, method=6)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Import the sprites of every thing in words.py.")
    parser.add_argument("source", type=Path, help="folder of the art package with the webp files")
    import_art(parser.parse_args(argv).source)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"grounding.demo.sprites: {error}")
