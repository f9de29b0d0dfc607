"""Seconds and peak memory of each stage on a picture of 1280 x 960: the plain path against ours.

    python benchmarks/stages.py [--rounds 2] [--threads 2]

Real sizes, random weights. The plain sides are those of first_answer.py and glip.py, and for
CLIPSeg transformers' own forward, all in float32 and each phrase with the whole picture. The sides
take turns; the peak is that of a process which runs this one side once, loading included. GLIP's
picture is padded noise of 800 x 1088 on both sides.
"""

import argparse
from collections.abc import Callable
from functools import cache
from typing import Any

import first_answer
import glip
import numpy as np
import real_size as real
import torch

from grounding.core import Regions


@torch.inference_mode()
def plain_clipseg(model: Any, processor: Any, turn: int) -> None:
    image = real.picture(turn)
    images = [image] * len(real.PHRASES)
    inputs = processor(text=real.PHRASES, images=images, padding=True, return_tensors="pt")
    model(**inputs, interpolate_pos_encoding=True).logits.sigmoid()


def ground(grounder: Any) -> Callable[[int], object]:
    return lambda turn: grounder.ground(real.picture(turn), real.PHRASES, 0.3)


def grounding_dino(side: str) -> Callable[[int], object]:
    if side == "ours":
        return ground(real.grounding_dino())
    parts = real.stock_grounding_dino()
    return lambda turn: first_answer.plain_boxes(*parts, real.picture(turn))


def clipseg(side: str) -> Callable[[int], object]:
    if side == "ours":
        return ground(real.clipseg())
    parts = real.stock_clipseg()
    return lambda turn: plain_clipseg(*parts, turn)


def glip_t(side: str) -> Callable[[int], object]:
    parts = cache(glip.build)
    return lambda turn: glip.forward(side, *parts())


def sam2(side: str) -> Callable[[int], object]:
    if side == "plain":
        model = real.stock_sam2()
        return lambda turn: first_answer.plain_masks(model, real.picture(turn))
    count, segmenter = len(real.BOXES), real.sam2()
    regions = Regions(real.BOXES, np.ones(count, np.float32), ("a dog",) * count)
    return lambda turn: segmenter.segment(real.picture(turn), regions)


STAGES = {"GroundingDINO": grounding_dino, "CLIPSeg": clipseg, "GLIP-T": glip_t, "SAM 2.1": sam2}
SIDES = ("plain", "ours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    real.set_up(args.threads)
    if args.peak:
        stage, side = args.peak
        STAGES[stage](side)(0)
        print(real.own_peak_gib())
        return
    print(f"{'':16}{'plain s':>9}{'ours s':>9}{'ratio':>7}{'plain GiB':>11}{'ours GiB':>10}")
    for stage, build in STAGES.items():
        seconds = real.medians({side: build(side) for side in SIDES}, args.rounds)
        peaks = [real.peak_gib(__file__, "--peak", stage, side) for side in SIDES]
        plain, ours = (seconds[side] for side in SIDES)
        print(
            f"{stage:16}{plain:9.2f}{ours:9.2f}{plain / ours:7.2f}{peaks[0]:11.2f}{peaks[1]:10.2f}"
        )


if __name__ == "__main__":
    main()
