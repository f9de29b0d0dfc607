"""What the folder command adds to the time of the models: seconds a picture, and the ratio.

    python benchmarks/folder.py [--rounds 3] [--size demo real]

The pictures are drawn scenes, enlarged to 1280 x 960. Each round runs the models alone on pictures
that lie in memory, then the whole command (open, run, write all files), in this process. Size
"real" takes GroundingDINO tiny and SAM 2.1 tiny as large as they are, with random weights, on 4
pictures, and writes three ellipses (random masks are noise, with thousands of outlines); "demo" the
bundled weights on 12, whose models are so small that on few cores writing is a large part.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import cv2
import numpy as np
import real_size as real
from PIL import Image, ImageOps
from real_size import timed
from second_prompt import ThreeBoxes

from common.images import open_image
from grounding.__main__ import parse_args, segment_files
from grounding.core import Masks, Regions
from grounding.demo.scenes import make_scene
from grounding.pipeline import run
from grounding.segmenters.sam2 import Sam2
from grounding.store import Models, ModelStore
from grounding.weights import Origin, Source, Weights

PROMPT = "a dog, the red car, a tree, an apple"
NAMES = ("GroundingDINO tiny", "SAM 2.1 tiny")


class Ellipses:
    """A segmenter that fills each box with an ellipse once the inner one has done its work."""

    def __init__(self, inner: Sam2) -> None:
        self.inner = inner

    def segment(self, image: Image.Image, regions: Regions) -> Masks:
        scores = self.inner.segment(image, regions).scores
        masks = np.zeros((len(regions), image.height, image.width), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, regions.boxes.tolist(), strict=True):
            middle, axes = ((x1 + x2) / 2, (y1 + y2) / 2), (x2 - x1, y2 - y1)
            cv2.ellipse(mask, (middle, axes, 0.0), 1, thickness=-1)
        return Masks(masks.astype(bool), scores)


def demo_models() -> Models:
    return ModelStore(Weights("demo", offline=True), "cpu").get(*NAMES)


def real_models() -> Models:
    source = Source("random", Path())
    return Models(ThreeBoxes(real.grounding_dino()), Ellipses(real.sam2()), Origin(source, source))


def draw(folder: Path, seed: int, count: int) -> dict[str, Path]:
    pictures = {}
    for i in range(count):
        scene = make_scene(np.random.default_rng((seed, i)), 256, held_out=True)
        path = pictures[f"{i:02d}"] = folder / f"{i:02d}.jpg"
        large = Image.fromarray(scene.image).resize((1280, 960), Image.Resampling.BICUBIC)
        large.save(path, quality=92)
    return pictures


def one_round(models: Models, seed: int, count: int) -> tuple[float, float]:
    """Return seconds a picture: the models alone, and the command."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = draw(Path(folder), seed, count)
        args = parse_args([folder, "--prompt", PROMPT, "--out", f"{folder}/out"])
        args.out.mkdir()
        # Mirrored, or the command would find what the models remember of the same pictures.
        opened = [ImageOps.mirror(open_image(path)) for path in pictures.values()]
        alone, _ = timed(lambda: [run(models, image, PROMPT, 0.3) for image in opened])
        command, _ = timed(lambda: segment_files(pictures, models, args))
        return alone / count, command / count


def measure(name: str, models: Models, count: int, rounds: int) -> None:
    one_round(models, 0, 1)  # warms up
    measured = [one_round(models, seed, count) for seed in range(1, rounds + 1)]
    alone, command = (statistics.median(seconds) for seconds in zip(*measured, strict=True))
    ratio = statistics.median(whole / bare for bare, whole in measured)
    print(
        f"{name:4} {NAMES[0]} + {NAMES[1]}: models alone {alone:.3f} s a picture, "
        f"folder command {command:.3f} s, ratio {ratio:.2f}; medians of {rounds} rounds of {count}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("demo", "real"), nargs="+", default=("demo", "real"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    real.set_up(2)
    if "demo" in args.size:
        measure("demo", demo_models(), 12, args.rounds)
    if "real" in args.size:
        measure("real", real_models(), 4, args.rounds)


if __name__ == "__main__":
    main()
