"""Picture + prompt -> regions -> masks."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

from grounding.core import Masks, Regions, Segmenter, mask_boxes
from grounding.prompt import parse_prompt
from grounding.select import MAX_SHOWN, Choice, Proposals, Result, pack_masks, select, to_result
from grounding.store import Models

# Lowest score of what is kept, so that the threshold can be moved without another run.
FLOOR = 0.05
MIN_PART = 0.002

T = TypeVar("T")
Scored = tuple[float, str]  # a score and its label


def propose(
    models: Models, image: Image.Image, prompt: str, threshold: float, floor: float = FLOOR
) -> Proposals:
    """Let both models propose all they can for an RGB picture.

    Args:
        models: The loaded grounder and segmenter.
        image: RGB picture.
        prompt: One phrase or several; see `parse_prompt`.
        threshold: Where a grounder's heat map is cut, in [0, 1]; boxes go down to `floor` anyway.
        floor: Lowest score of a box, where the thresholds are not lower.

    Raises:
        ValueError: If the prompt holds no phrase or the threshold is not in [0, 1].
    """
    Choice(threshold)  # says what is wrong with it before a model runs
    query = parse_prompt(prompt)
    phrases = [*query.phrases, *query.negatives]
    cuts = {phrase: query.thresholds.get(phrase, threshold) for phrase in phrases}
    floor = min(floor, *cuts.values())
    found, seconds = _timed(lambda: models.grounder.ground(image, phrases, floor))
    regions, dropped = keep_best(found, cuts, query.thresholds)
    parts = found if found.masks is None else regions
    best: dict[str, float] = {}
    for score, label in [*zip(parts.scores.tolist(), parts.labels, strict=True), *dropped]:
        best[label] = max(best.get(label, 0.0), score)
    if found.masks is not None and floor < max(cuts.values()):
        best |= _uncut(found, {*best})
    masks, times = _outline(models.segmenter, image, regions)
    return Proposals(
        query,
        replace(regions, masks=None),
        pack_masks(masks.masks),
        masks.scores,
        (image.height, image.width),
        threshold if found.masks is not None else floor,
        best,
        {"grounder": seconds} | times,
        dropped=dropped,
    )


def _outline(
    segmenter: Segmenter, image: Image.Image, regions: Regions
) -> tuple[Masks, dict[str, float]]:
    if not len(regions):
        nothing = Masks(np.zeros((0, image.height, image.width), bool), np.zeros(0, np.float32))
        return nothing, {}
    masks, seconds = _timed(lambda: segmenter.segment(image, regions))
    return masks, {"segmenter": seconds}


def keep_best(
    regions: Regions, cuts: dict[str, float], thresholds: dict[str, float]
) -> tuple[Regions, tuple[Scored, ...]]:
    """Return what is worth outlining, at most `MAX_SHOWN`, and the scores and labels of the rest.

    Args:
        regions: What a grounder found. Coarse masks are cut into parts; see `cut`.
        cuts: Each phrase's threshold: coarse masks are cut there, and boxes below it get only the
            places that are left.
        thresholds: Those that phrases have of their own; boxes below them are never shown.
    """
    if regions.masks is not None:
        return cut(regions, cuts)
    scored = list(zip(regions.scores.tolist(), regions.labels, strict=True))
    groups: dict[bool, list[int]] = {True: [], False: []}  # shown at once, and when asked for
    for i, label in enumerate(regions.labels):
        # As float32, which 0.7 is below as a float: later steps compare so, too.
        if (single := regions.scores[i]) >= thresholds.get(label, 0):
            groups[bool(single >= cuts[label])].append(i)
    best = [group[k] for group in groups.values() for k in share_out([scored[i] for i in group])]
    dropped = {*groups[True], *groups[False]} - {*best[:MAX_SHOWN]}
    return regions[best[:MAX_SHOWN]], tuple(scored[i] for i in sorted(dropped))


def share_out(scored: Sequence[Scored]) -> list[int]:
    """Return the numbers of the best `MAX_SHOWN` of some scores and labels, best first.

    Every label has its share of the places, so that a crowd of one does not take all; what is not
    needed goes to the best of the others.

    >>> share_out([(0.5, "a dog"), (0.9, "a cat")])
    [1, 0]
    """
    order = sorted(range(len(scored)), key=lambda i: -scored[i][0])
    share = MAX_SHOWN // max(1, len({label for _, label in scored}))
    taken = Counter[str]()
    first: list[int] = []
    rest: list[int] = []
    for i in order:
        label = scored[i][1]
        (first if taken[label] < share else rest).append(i)
        taken[label] += 1
    kept = {*first, *rest[: MAX_SHOWN - len(first)]}
    return [i for i in order if i in kept]


def cut(regions: Regions, cuts: dict[str, float]) -> tuple[Regions, tuple[Scored, ...]]:
    """Cut coarse masks into their connected parts above each phrase's threshold.

    Parts under 0.2 % of the picture are left out.

    Returns:
        The best, at most `MAX_SHOWN`, and the scores and labels of the rest.
    """
    masks = [(mask, cuts[label]) for mask, label in zip(regions.masks, regions.labels, strict=True)]
    found = [(i, part, peak) for i, mask in enumerate(masks) for part, peak in _parts(*mask)]
    scored = [(peak, regions.labels[i]) for i, _, peak in found]
    best = share_out(scored)
    chosen = [found[k] for k in best]
    # Only now pictures of their own: of hundreds of parts they would fill the memory.
    parts = np.zeros((len(chosen), *regions.masks.shape[1:]), np.float32)
    for i in {i for i, *_ in chosen}:
        _, numbers, _ = _connected(*masks[i])
        for row, (mine, part, _) in zip(parts, chosen, strict=True):
            if mine == i:
                np.copyto(row, regions.masks[i], where=numbers == part)
    kept = Regions(
        mask_boxes(parts > 0),
        np.array([peak for *_, peak in chosen], np.float32),
        tuple(regions.labels[i] for i, *_ in chosen),
        parts,
        regions.masks.max(0, initial=0) if regions.heatmap is None else regions.heatmap,
    )
    return kept, tuple(scored[k] for k in range(len(scored)) if k not in best)


def _uncut(regions: Regions, with_part: set[str]) -> dict[str, float]:
    """Return for each phrase that has no part the threshold, in whole per cent, that gives it one.

    That is 0 where even the lowest does not. The highest score of its map is no answer: what scores
    as much is smaller than a part.
    """
    reached: dict[str, float] = {}
    for mask, label in zip(regions.masks, regions.labels, strict=True):
        if label not in with_part:
            levels = range(round(100 * FLOOR), int(100 * mask.max()) + 1)
            over = bisect_left(levels, True, key=lambda level: not _has_part(mask, level / 100))
            reached[label] = levels[over - 1] / 100 if over else 0.0
    return reached


def _has_part(mask: np.ndarray, threshold: float) -> bool:
    # Counting is quick, and mostly says no.
    enough = np.count_nonzero(mask >= threshold) >= MIN_PART * mask.size
    return enough and bool(_parts(mask, threshold))


def _parts(mask: np.ndarray, threshold: float) -> list[tuple[int, float]]:
    """Return the number and the highest score of each part that is large enough."""
    count, numbers, facts = _connected(mask, threshold)
    large = [i for i in range(1, count) if facts[i, cv2.CC_STAT_AREA] >= MIN_PART * mask.size]
    boxes = [(slice(y, y + height), slice(x, x + width)) for x, y, width, height, _ in facts]
    return [(i, float(mask[boxes[i]][numbers[boxes[i]] == i].max())) for i in large]


def _connected(mask: np.ndarray, threshold: float) -> tuple[int, np.ndarray, np.ndarray]:
    """Return how many parts there are, the outside included, a map of them, and facts of each."""
    # Zero is outside, also when the threshold is zero.
    inside = (mask >= max(threshold, 1e-6)).astype(np.uint8)
    return cv2.connectedComponentsWithStats(inside)[:3]


def run(models: Models, image: Image.Image, prompt: str, threshold: float) -> Result:
    """Find what `prompt` names in an RGB picture and return its masks.

    Args:
        models: The loaded grounder and segmenter.
        image: RGB picture.
        prompt: One phrase or several; see `parse_prompt`.
        threshold: Lowest score of a region, in [0, 1].

    Raises:
        ValueError: If the prompt holds no phrase or the threshold is not in [0, 1].
    """
    # Nothing below the threshold is looked at later, so none is outlined.
    proposals = propose(models, image, prompt, threshold, floor=1.0)
    return to_result(select(proposals, Choice(threshold)), proposals.seconds)


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return call(), time.perf_counter() - began
