"""The sample pictures of the page: chosen things at random places on held-out backgrounds.

    python -m grounding.demo.samples

writes them, with their prompts and the boxes of what the prompts mean, to
assets/samples/segmentation.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from grounding.demo.scenes import Scene, compose
from grounding.demo.sprites import Sprite, load_sprites

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "samples" / "segmentation"
SIZE = 384


@dataclass(frozen=True)
class Sample:
    """A sample picture.

    Attributes:
        file: Name of the picture without its ending.
        seed: Decides places and background; chosen so that the demo weights of all three grounders
            find what the prompt means, or nothing where it means nothing, and by eye.
        things: Colour and name of each object, the hindmost first.
        prompt: Phrase -> colour and name it means; the picture may lack it.
    """

    file: str
    seed: int
    things: tuple[str, ...]
    prompt: dict[str, str]


SAMPLES = (
    Sample(
        "street",
        114,
        ("green tree", "red car", "blue car", "brown dog"),
        {"the blue car": "blue car", "a dog": "brown dog"},
    ),
    Sample(
        "fruit",
        133,
        ("red apple", "green apple", "yellow banana", "purple grapes", "yellow lemon"),
        {"red apple": "red apple", "a banana": "yellow banana"},
    ),
    Sample(
        "party",
        130,
        ("red balloon", "blue balloon", "yellow gift", "brown donut"),
        {"a balloon": "balloon", "the gift": "yellow gift"},
    ),
    Sample(
        "farm",
        31,
        ("orange house", "brown horse", "pink pig", "green tractor"),
        {"a horse": "brown horse", "the pig": "pink pig", "a green tractor": "green tractor"},
    ),
    Sample(
        "wardrobe",
        45,
        ("purple umbrella", "red dress", "blue cap", "yellow backpack"),
        {"the red dress": "red dress", "a purple umbrella": "purple umbrella"},
    ),
    Sample(
        "winter",
        311,
        ("white snowman", "white rocket", "yellow star", "red heart"),
        {"a dog": "brown dog"},
    ),
)


def _pick(thing: str) -> Sprite:
    """Return the first sprite of "red car"."""
    colour, name = thing.split()
    return next(sprite for sprite in load_sprites()[name] if sprite.colour == colour)


def make_sample(sample: Sample) -> Scene:
    """Compose the scene of a sample."""
    rng = np.random.default_rng((200_000, sample.seed))
    return compose([_pick(thing) for thing in sample.things], rng, SIZE, held_out=True)


def meant(sample: Sample, scene: Scene) -> dict[str, list[list[float]]]:
    """Return the boxes each phrase of the prompt means, xyxy pixels."""
    found = {}
    for phrase, thing in sample.prompt.items():
        colour, name = thing.split() if " " in thing else ("", thing)
        found[phrase] = scene.boxes[scene.find(name, colour)].tolist()
    return found


def main() -> None:
    """Write the samples."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = []
    for sample in SAMPLES:
        scene = make_sample(sample)
        Image.fromarray(scene.image).save(FOLDER / f"{sample.file}.png", optimize=True)
        row = {"file": f"{sample.file}.png", "prompt": ", ".join(sample.prompt)}
        rows.append(row | {"ground_truth": meant(sample, scene)})
    (FOLDER / "samples.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
