"""Measures the demo checkpoints on held-out scenes: unseen seeds and unseen backgrounds.

    python -m grounding.demo.evaluate --seed 1 --scenes 200 [--json]

miou    mean IoU of the final mask (all regions of a phrase, after SAM 2), phrases in the scene
hit50   share of those phrases with an IoU over .5
ap50    average precision of the boxes at IoU .5, over all phrases (detectors)
absent  share of phrases not in the scene that give nothing
colour  share of colour phrases, another object differing only in colour, whose best region is right
sam2    mean IoU from the true boxes
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_iou
from tqdm import tqdm

from grounding.core import Grounder, Regions, Segmenter
from grounding.demo.scenes import SCENE_SIZE, Query, Scene, make_scene, queries, twin_queries
from grounding.grounders import GROUNDERS
from grounding.pipeline import keep_best
from grounding.segmenters.sam2 import load as load_sam2
from grounding.weights import DEMO_ROOT

PHRASES, ABSENT = 5, 2
LOW = 0.02


ENTRIES = {entry.module: entry for entry in GROUNDERS.values()}


@dataclass
class Tally:
    """What was seen so far of one grounder."""

    ious: list[float] = field(default_factory=list)
    quiet: list[bool] = field(default_factory=list)
    colour: list[bool] = field(default_factory=list)
    found: list[tuple[float, bool]] = field(default_factory=list)
    objects: int = 0

    def summary(self) -> dict[str, float]:
        """Return the row of the table."""
        ious = np.array(self.ious)
        row = {"miou": ious.mean(), "hit50": (ious > 0.5).mean()}
        if self.found:
            row["ap50"] = average_precision(self.found, self.objects)
        row |= {"absent": np.mean(self.quiet), "colour": np.mean(self.colour or [0.0])}
        return {name: round(float(value), 3) for name, value in row.items()}


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of each pair of xyxy boxes, (N, 4) and (M, 4) -> (N, M)."""
    return box_iou(torch.from_numpy(boxes), torch.from_numpy(others)).numpy()


def mask_iou(mask: np.ndarray, other: np.ndarray) -> float:
    """Return the IoU of two bool masks (H, W); that of two empty ones is 0."""
    return float((mask & other).sum() / max((mask | other).sum(), 1))


def average_precision(found: list[tuple[float, bool]], objects: int) -> float:
    """Return the area under the precision-recall curve, precision made monotonic.

    Args:
        found: Score of each detection, and whether it is right.
        objects: How many there were to find.

    >>> average_precision([(0.9, True), (0.8, False), (0.7, True)], 2)
    0.8333333333333333
    """
    right = np.array([good for _, good in sorted(found, key=lambda pair: -pair[0])])
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(precision[right].sum() / max(objects, 1))


def judge(boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray) -> list[tuple[float, bool]]:
    """Mark each detection right or wrong; an object counts once, for the best score."""
    left = set(range(len(truth)))
    overlap = overlaps(boxes, truth)
    marked = []
    for i in np.argsort(-scores):
        best = max(left, key=lambda k, i=i: overlap[i, k], default=None)
        good = best is not None and overlap[i, best] > 0.5
        if good:
            left.discard(best)
        marked.append((float(scores[i]), bool(good)))
    return marked


def right_colour(regions: Regions, scene: Scene, query: Query) -> bool:
    """Return whether the best region is on an object meant, not on its twin of another colour."""
    if not len(regions):
        return False
    best = regions.boxes[regions.scores.argmax()][None]
    overlap = overlaps(best, scene.boxes)[0] * scene.find(query.name)
    return bool(overlap.max() > 0 and query.members[overlap.argmax()])


def ask(grounder: Grounder, image: Image.Image, phrase: str, threshold: float) -> Regions:
    """Return what the page would show of a phrase at a threshold."""
    regions = grounder.ground(image, [phrase], threshold)
    return keep_best(regions, {phrase: threshold}, {})[0]


def measure(
    tally: Tally, name: str, grounder: Grounder, segmenter: Segmenter, scene: Scene, seed: int
) -> None:
    """Ask a scene a few phrases, one at a time, and add what came back."""
    image = Image.fromarray(scene.image)
    for query in queries(scene, PHRASES, ABSENT, np.random.default_rng(seed)):
        regions = ask(grounder, image, query.phrase, ENTRIES[name].threshold)
        if regions.masks is None:
            every = ask(grounder, image, query.phrase, LOW)
            tally.found += judge(every.boxes, every.scores, scene.boxes[query.members])
            tally.objects += int(query.members.sum())
        if not query.members.any():
            tally.quiet.append(len(regions) == 0)
            continue
        target = scene.masks[query.members].any(axis=0)
        mask = np.zeros_like(target)
        if len(regions):
            mask = segmenter.segment(image, regions).masks.any(axis=0)
        tally.ious.append(mask_iou(mask, target))


def measure_colour(tally: Tally, name: str, grounder: Grounder, scene: Scene, seed: int) -> None:
    """Ask a scene for each thing that has a twin of another colour, and add what came back."""
    image = Image.fromarray(scene.image)
    for query in twin_queries(scene, np.random.default_rng(seed)):
        regions = ask(grounder, image, query.phrase, ENTRIES[name].threshold)
        tally.colour.append(right_colour(regions, scene, query))


def true_box_ious(segmenter: Segmenter, scene: Scene) -> list[float]:
    """Return the IoU of the segmenter's answer to each true box."""
    scores = np.ones(len(scene.names), np.float32)
    regions = Regions(scene.boxes, scores, scene.names)
    found = segmenter.segment(Image.fromarray(scene.image), regions).masks
    return [mask_iou(mask, target) for mask, target in zip(found, scene.masks, strict=True)]


def evaluate(seed: int, scenes: int) -> dict[str, dict[str, float]]:
    """Measure the bundled checkpoints on held-out scenes.

    Returns:
        The row of each grounder, and of sam2, by name.
    """
    segmenter = load_sam2(DEMO_ROOT / "sam2", "cpu")
    grounders = {name: entry.load(DEMO_ROOT / name, "cpu") for name, entry in ENTRIES.items()}
    tallies: dict[str, Tally] = defaultdict(Tally)
    sam_ious: list[float] = []
    for i in tqdm(range(scenes), desc="scenes", disable=None):
        scene = make_scene(np.random.default_rng((100_000 + seed, i)), SCENE_SIZE, held_out=True)
        sam_ious += true_box_ious(segmenter, scene)
        for name, grounder in grounders.items():
            measure(tallies[name], name, grounder, segmenter, scene, i)
            measure_colour(tallies[name], name, grounder, scene, i)
    table = {name: tally.summary() for name, tally in tallies.items()}
    return table | {"sam2": {"miou": round(float(np.mean(sam_ious)), 3)}}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the scenes; default: %(default)s")
    parser.add_argument("--scenes", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    if args.scenes < 1:
        parser.error(f"--scenes is {args.scenes}; it must be at least 1")
    table = evaluate(args.seed, args.scenes)
    if args.json:
        print(json.dumps(table))
        return
    for name, row in table.items():
        print(f"{name:16}" + "  ".join(f"{metric} {value:.3f}" for metric, value in row.items()))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("grounding.demo.evaluate: stopped")
