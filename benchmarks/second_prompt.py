"""The second prompt on a picture against the first, real sizes with random weights.

    python benchmarks/second_prompt.py [--rounds 5] [--threads 2]

Each round takes a new picture of 1280 x 960 pixels and asks it twice, with other words: grounder,
then SAM 2.1 tiny on three boxes. What depends on the picture alone is computed for the first prompt
and kept (`grounding/recent.py`). Also: moving the threshold after a run, and a click of correction.
"""

import statistics
from pathlib import Path

import numpy as np
import real_size as real
from PIL import Image
from real_size import timed

from grounding.core import Grounder, Regions
from grounding.pipeline import propose
from grounding.segmenters.sam2 import Sam2
from grounding.session import Session, look
from grounding.settings import Settings
from grounding.store import Models
from grounding.weights import Origin, Source

PROMPTS = (", ".join(real.PHRASES), "a chair")


class ThreeBoxes:
    """A grounder that finds three boxes, wherever the random weights of the inner one point."""

    def __init__(self, inner: Grounder) -> None:
        self.inner = inner

    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        self.inner.ground(image, phrases, threshold)
        scores = np.full(len(real.BOXES), 0.9, np.float32)
        return Regions(real.BOXES, scores, (phrases[0],) * len(scores))


def measure(name: str, grounder: Grounder, segmenter: Sam2, seeds: range) -> None:
    source = Source("random", Path())
    models = Models(ThreeBoxes(grounder), segmenter, Origin(source, source))
    seconds: dict[str, list[float]] = {key: [] for key in ("first", "second", "look", "click")}
    for seed in seeds:
        image = real.picture(seed)
        first, proposals = timed(lambda image=image: propose(models, image, PROMPTS[0], 0.3))
        second, _ = timed(lambda image=image: propose(models, image, PROMPTS[1], 0.3))
        asked = {"prompt": "", "grounder": "", "segmenter": "", "url": ""}
        session = Session(image, proposals, models.origin, asked)
        looked, _ = timed(lambda session=session: look(session, Settings(), 0.5))
        mask, clicks = proposals.masks([0]).masks[0], ((600.0, 450.0, True),)
        clicked, _ = timed(lambda i=image, m=mask, c=clicks: segmenter.refine(i, m, c))
        if seed > seeds[0]:  # the first round warms up
            for key, value in zip(seconds, (first, second, looked, clicked), strict=True):
                seconds[key].append(value)
    first, second, looked, clicked = map(statistics.median, seconds.values())
    print(
        f"{name:15} first {first:6.2f} s   second {second:6.2f} s   ratio {first / second:5.2f}   "
        f"threshold moved {1000 * looked:4.0f} ms   click {1000 * clicked:4.0f} ms"
    )


def main() -> None:
    rounds = real.read_rounds(__doc__, 5)
    segmenter = real.sam2()
    print(f"medians of {rounds} rounds")
    grounders = {"GroundingDINO": real.grounding_dino, "CLIPSeg": real.clipseg, "GLIP-T": real.glip}
    for number, (name, build) in enumerate(grounders.items()):
        # Pictures that no grounder before has shown to SAM 2.
        measure(name, build(), segmenter, range(100 * number, 100 * number + rounds + 1))


if __name__ == "__main__":
    main()
