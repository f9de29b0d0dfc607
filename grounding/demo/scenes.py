"""Synthetic scenes: sprites with names and colours on a background, with exact instance masks.

    python -m grounding.demo.scenes --seed 7 --count 4 --out scenes

writes scenes as files. Composing by cut and paste follows Dwibedi et al. 2017, "Cut, Paste and
Learn", https://arxiv.org/abs/1708.01642.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from grounding.core import mask_boxes
from grounding.demo.backgrounds import make_background
from grounding.demo.sprites import Sprite, load_sprites
from grounding.demo.words import COLOURS, NAMES, make_phrase

# The ImageNet statistics: what the stock processors and SAM 2 subtract and divide by.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCENE_SIZE = 384  # of scenes that are measured or written, in pixels
MAX_PHRASES = 8
MAX_OBJECTS = 6
MIN_VISIBLE = 0.5


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        masks: bool (N, H, W), the visible part of each object.
        boxes: float32 (N, 4) xyxy pixels around the masks.
        names: N names of things.
        colours: N colours, "" where no single colour fits.
    """

    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    names: tuple[str, ...]
    colours: tuple[str, ...]

    def find(self, name: str, colour: str = "") -> np.ndarray:
        """Return bool (N,): which objects are a `name`, of `colour` unless that is ""."""
        pairs = zip(self.names, self.colours, strict=True)
        return np.array([n == name and colour in ("", c) for n, c in pairs], dtype=bool)

    def may_name_colour(self, name: str) -> bool:
        """Return whether every `name` in the scene has one colour a phrase could name."""
        pairs = zip(self.names, self.colours, strict=True)
        return all(c for n, c in pairs if n == name)


def normalise(scenes: Sequence[Scene]) -> np.ndarray:
    """Return the pictures as the models see them, float32 (B, 3, H, W)."""
    images = np.stack([scene.image for scene in scenes]).astype(np.float32) / 255
    return ((images - np.float32(MEAN)) / np.float32(STD)).transpose(0, 3, 1, 2)


def _pick_sprites(rng: np.random.Generator) -> list[Sprite]:
    """Choose the objects; twins of other colours are common, as they make phrases matter."""
    sprites = load_sprites()
    chosen: list[Sprite] = []
    for _ in range(rng.integers(1, MAX_OBJECTS + 1)):
        again = chosen and rng.random() < 0.35
        name = chosen[-1].name if again else NAMES[rng.integers(len(NAMES))]
        options = sprites[name]
        chosen.append(options[rng.integers(len(options))])
    return chosen


def _stamp(sprite: Sprite, side: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the sprite drawn at a random place: float32 (size, size, 4), pre-multiplied."""
    level = next((a for a in reversed(sprite.levels) if a.shape[0] >= side), sprite.levels[0])
    matrix = cv2.getRotationMatrix2D((0, 0), rng.normal(0, 8), side / level.shape[0])
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    margin = min(0.4 * side, 0.5 * size)
    place = rng.uniform(margin, size - margin, 2)
    matrix[:, 2] = place - matrix[:, :2] @ np.full(2, level.shape[0] / 2)
    return cv2.warpAffine(level, matrix, (size, size), flags=cv2.INTER_LINEAR)


def _place(
    sprites: Sequence[Sprite], size: int, rng: np.random.Generator
) -> tuple[list[Sprite], list[np.ndarray], np.ndarray]:
    """Draw the sprites so that each stays at least half visible; those that never fit are left out.

    Returns:
        The sprites drawn, their stamps, and their visible masks (N, size, size).
    """
    drawn: list[Sprite] = []
    stamps: list[np.ndarray] = []
    masks = np.zeros((0, size, size), dtype=bool)
    areas: list[int] = []
    crowd = 1.12 - 0.06 * len(sprites)
    for sprite in sprites:
        for _ in range(6):
            side = size * crowd * np.exp(rng.uniform(np.log(0.2), np.log(0.62)))
            stamp = _stamp(sprite, side, size, rng)
            mask = stamp[..., 3] > 127
            rest = masks & ~mask
            visible = rest.sum(axis=(1, 2)) if len(masks) else np.zeros(0)
            if mask.sum() >= 30 and (visible >= MIN_VISIBLE * np.array(areas)).all():
                drawn.append(sprite)
                stamps.append(stamp)
                areas.append(int(mask.sum()))
                masks = np.concatenate([rest, mask[None]])
                break
    return drawn, stamps, masks


def compose(
    sprites: Sequence[Sprite], rng: np.random.Generator, size: int, held_out: bool = False
) -> Scene:
    """Put sprites at random places on a random background, later ones in front.

    Args:
        sprites: What to draw; one that finds no place is left out.
        rng: Source of every choice; the same state gives the same scene.
        size: Side in pixels.
        held_out: Whether to use the backgrounds no model was trained on.
    """
    drawn, stamps, masks = _place(sprites, size, rng)
    canvas = make_background(rng, size, held_out)
    for stamp in stamps:
        light = rng.uniform(0.85, 1.1)
        canvas = canvas * (1 - stamp[..., 3:] / 255) + stamp[..., :3] * light
    return Scene(
        image=np.clip(canvas, 0, 255).astype(np.uint8),
        masks=masks,
        boxes=mask_boxes(masks),
        names=tuple(sprite.name for sprite in drawn),
        colours=tuple(sprite.colour for sprite in drawn),
    )


def make_scene(rng: np.random.Generator, size: int, held_out: bool = False) -> Scene:
    """Compose a scene of 1 to `MAX_OBJECTS` random objects; arguments as for `compose`."""
    return compose(_pick_sprites(rng), rng, size, held_out)


@dataclass(frozen=True)
class Query:
    """A phrase, what it asks for, and bool (N,) the objects it means (none when absent)."""

    phrase: str
    name: str
    colour: str
    members: np.ndarray


def _query(scene: Scene, name: str, colour: str, rng: np.random.Generator) -> Query:
    return Query(make_phrase(name, colour, rng), name, colour, scene.find(name, colour))


def present_query(scene: Scene, rng: np.random.Generator) -> Query:
    """Ask for something in the scene, half of the time by colour."""
    chosen = rng.integers(len(scene.names))
    name, colour = scene.names[chosen], scene.colours[chosen]
    by_colour = rng.random() < 0.5 and scene.may_name_colour(name)
    return _query(scene, name, colour if by_colour else "", rng)


def absent_query(scene: Scene, rng: np.random.Generator) -> Query:
    """Ask for something not in the scene: another thing, or a thing there in another colour."""
    name = scene.names[rng.integers(len(scene.names))]
    if rng.random() < 0.4 and scene.may_name_colour(name):
        wrong = [c for c in COLOURS if not scene.find(name, c).any()]
        return _query(scene, name, wrong[rng.integers(len(wrong))], rng)
    others = [n for n in NAMES if n not in scene.names]
    colour = COLOURS[rng.integers(len(COLOURS))] if rng.random() < 0.3 else ""
    return _query(scene, others[rng.integers(len(others))], colour, rng)


def lookalike_query(scene: Scene, rng: np.random.Generator) -> Query:
    """Ask for something not in the scene, mostly for what comes in the colour of a thing there.

    Colours are learnt long before shapes, and then an apple is found in a red crab.
    """
    colours = [colour for colour in scene.colours if colour]
    if not colours or rng.random() < 0.4:
        return absent_query(scene, rng)
    colour = colours[rng.integers(len(colours))]
    names = [
        name
        for name, sprites in load_sprites().items()
        if name not in scene.names and any(sprite.colour == colour for sprite in sprites)
    ]
    if not names:
        return absent_query(scene, rng)
    name = names[rng.integers(len(names))]
    return _query(scene, name, colour if rng.random() < 0.5 else "", rng)


def queries(
    scene: Scene,
    count: int,
    absent: int,
    rng: np.random.Generator,
    ask_absent: Callable[[Scene, np.random.Generator], Query] = absent_query,
) -> list[Query]:
    """Ask `count` things of a scene in random order, `absent` of them for what is not there.

    No thing is asked for twice, so fewer than `count` may come back.
    """
    asked: dict[tuple[str, str], Query] = {}
    for i in range(count):
        query = (ask_absent if i < absent else present_query)(scene, rng)
        asked.setdefault((query.name, query.colour), query)
    order = rng.permutation(len(asked))
    found = list(asked.values())
    return [found[i] for i in order]


def twin_queries(scene: Scene, rng: np.random.Generator) -> list[Query]:
    """Ask for each of the things that another thing in the scene differs from in colour only."""
    things = sorted(set(zip(scene.names, scene.colours, strict=True)))
    return [
        _query(scene, name, colour, rng)
        for name, colour in things
        if scene.may_name_colour(name) and not scene.find(name, colour)[scene.find(name)].all()
    ]


def captions(scenes: Sequence[Scene], rng: np.random.Generator) -> list[list[Query]]:
    """Ask each scene 1 to `MAX_PHRASES` things, mostly few, as users do; 40 % are not there."""
    counts = [1 + int(MAX_PHRASES * rng.random() ** 2) for _ in scenes]
    return [
        queries(scene, count, int(rng.binomial(count, 0.4)), rng, lookalike_query)
        for scene, count in zip(scenes, counts, strict=True)
    ]


def write_scene(scene: Scene, folder: Path, stem: str, rng: np.random.Generator) -> None:
    """Write STEM.png, the mask of object I as STEM-mask-I.png, and STEM.json.

    The latter has names, colours ("" where no single one fits) and boxes (xyxy pixels) by object,
    and up to eight phrases, each with the numbers of the objects it means; up to two mean none.
    """
    Image.fromarray(scene.image).save(folder / f"{stem}.png")
    for i, mask in enumerate(scene.masks):
        Image.fromarray(mask).save(folder / f"{stem}-mask-{i}.png")
    asked = queries(scene, 6, 2, rng)
    record = {
        "names": scene.names,
        "colours": scene.colours,
        "boxes": scene.boxes.tolist(),
        "phrases": {query.phrase: np.flatnonzero(query.members).tolist() for query in asked},
    }
    (folder / f"{stem}.json").write_text(f"{json.dumps(record, indent=1)}\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Write scenes with their masks and phrases.")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--count", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    for i in range(args.count):
        rng = np.random.default_rng((args.seed, i))
        write_scene(make_scene(rng, SCENE_SIZE), args.out, f"scene-{i:03d}", rng)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"python -m grounding.demo.scenes: {error}")
