"""The second prompt on a picture against the first, real sizes with random weights.

    python benchmarks/second_prompt.py [--rounds 5] [--threads 2]

Each round takes a new picture of 1280 x 960 pixels and asks it twice, with other words: grounder,
then SAM 2.1 tiny on three boxes. What depends on the picture alone is computed for the first prompt
and kept (`grounding/recent.py`). Also: moving the threshold after a run, and a click of correction.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from grounding.core import Grounder, Regions
from grounding.grounders.clipseg import ClipSeg
from grounding.grounders.glip.config import GlipConfig
from grounding.grounders.glip.grounder import GlipGrounder
from grounding.grounders.glip.model import Glip
from grounding.grounders.grounding_dino import Backbone, GroundingDino
from grounding.pipeline import Models, propose
from grounding.segmenters.sam2 import Sam2
from grounding.session import Session, look
from grounding.settings import Settings
from grounding.weights import DEMO_ROOT, Source

ROOT = Path(__file__).parents[1]
PROMPTS = ("a dog, the blue car", "a chair")
BOXES = 3


def bert_tokenizer() -> Any:
    from transformers import BertTokenizerFast

    return BertTokenizerFast(str(ROOT / "assets" / "bert-base-uncased" / "vocab.txt"))


def grounding_dino() -> Grounder:
    from transformers import (
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    model = GroundingDinoForObjectDetection(GroundingDinoConfig()).eval()
    model.model.backbone = Backbone(model.model.backbone)
    processor = GroundingDinoProcessor(GroundingDinoImageProcessor(), bert_tokenizer())
    return GroundingDino(model, processor, "cpu")


def clipseg() -> Grounder:
    from transformers import AutoProcessor, CLIPSegConfig, CLIPSegForImageSegmentation

    config = CLIPSegConfig(
        vision_config={"patch_size": 16, "image_size": 352},
        reduce_dim=64,
        use_complex_transposed_convolution=True,
    )
    processor = AutoProcessor.from_pretrained(DEMO_ROOT / "clipseg")
    processor.image_processor.size = {"height": 352, "width": 352}
    return ClipSeg(CLIPSegForImageSegmentation(config).eval(), processor, "cpu")


def glip() -> Grounder:
    return GlipGrounder(Glip(GlipConfig()).eval(), bert_tokenizer(), "cpu")


def sam2() -> Sam2:
    import sam2 as package
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = Path(package.__file__).parent / "configs" / "sam2.1" / "sam2.1_hiera_t.yaml"
    return Sam2(instantiate(OmegaConf.load(config).model, _recursive_=True).eval())


class ThreeBoxes:
    """A grounder that finds three boxes, wherever the random weights of the inner one point."""

    def __init__(self, inner: Grounder) -> None:
        self.inner = inner

    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        self.inner.ground(image, phrases, threshold)
        boxes = np.array([[40, 40, 400, 500], [500, 200, 900, 700], [900, 80, 1200, 420]])
        scores = np.full(BOXES, 0.9, np.float32)
        return Regions(boxes.astype(np.float32), scores, (phrases[0],) * BOXES)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    answer = call()
    return time.perf_counter() - began, answer


def measure(name: str, grounder: Grounder, segmenter: Sam2, rounds: int) -> None:
    source = Source("random", Path(), True)
    models = Models(ThreeBoxes(grounder), segmenter, source, source)
    seconds: dict[str, list[float]] = {key: [] for key in ("first", "second", "look", "click")}
    for seed in range(rounds + 1):
        noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((1280, 960), Image.Resampling.BICUBIC)
        first, proposals = timed(lambda image=image: propose(models, image, PROMPTS[0], 0.3))
        second, _ = timed(lambda image=image: propose(models, image, PROMPTS[1], 0.3))
        asked = {"prompt": "", "grounder": "", "segmenter": "", "url": ""}
        session = Session(image, proposals, models, asked)
        looked, _ = timed(lambda session=session: look(session, Settings(), 0.5))
        mask, clicks = proposals.masks([0]).masks[0], ((600.0, 450.0, True),)
        clicked, _ = timed(lambda i=image, m=mask, c=clicks: segmenter.refine(i, m, c))
        if seed:  # the first round warms up
            for key, value in zip(seconds, (first, second, looked, clicked), strict=True):
                seconds[key].append(value)
    first, second, looked, clicked = map(statistics.median, seconds.values())
    print(
        f"{name:15} first {first:6.2f} s   second {second:6.2f} s   ratio {first / second:5.2f}   "
        f"threshold moved {1000 * looked:4.0f} ms   click {1000 * clicked:4.0f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    segmenter = sam2()
    print(f"medians of {args.rounds} rounds, {args.threads} threads, float32")
    for name, build in (("GroundingDINO", grounding_dino), ("CLIPSeg", clipseg), ("GLIP-T", glip)):
        measure(name, build(), segmenter, args.rounds)


if __name__ == "__main__":
    main()
