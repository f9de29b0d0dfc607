"""From everything the models proposed to the detections that are shown. No model is needed here."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from grounding.core import Masks, Regions
from grounding.prompt import Query

MAX_SHOWN = 30
DUPLICATE_IOU = 0.7
# Grounders that find nothing tend to answer with a box around everything.
WHOLE_PICTURE = 0.97
# When less than this share of a mask is left by the negatives, it is only their ragged edge.
LEFT = 0.05


@dataclass(frozen=True)
class Result:
    """Hold an answer: what was looked for, found and made of it.

    Attributes:
        phrases: What was looked for.
        regions: N regions.
        masks: Their masks.
        numbers: Of their rows in the table, in which there may be others, too, from 1.
        seconds: Of each stage.
        notes: Sentences about what has been left out.
    """

    phrases: list[str]
    regions: Regions
    masks: Masks
    numbers: list[int]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Proposals:
    """Hold all that the models proposed for a picture, down to a low score.

    Attributes:
        query: What was asked for.
        regions: N regions, without their coarse masks.
        bits: Masks of the regions, packed: uint8 (N, ceil(H * W / 8)).
        mask_scores: Predicted IoU of the masks, float (N,).
        size: Height and width of the picture.
        floor: Lowest threshold that the regions can be asked with.
        best: Each phrase's best score, where it has any: the highest threshold that shows it.
        seconds: Of each stage.
        by_hand: Numbers of the regions that somebody has drawn or changed.
        dropped: Score and label of what else was found, for which there was no place.
    """

    query: Query
    regions: Regions
    bits: np.ndarray
    mask_scores: np.ndarray
    size: tuple[int, int]
    floor: float
    best: dict[str, float]
    seconds: dict[str, float]
    by_hand: frozenset[int] = frozenset()
    dropped: tuple[tuple[float, str], ...] = ()

    def masks(self, numbers: list[int]) -> Masks:
        """Unpack the masks of some regions."""
        height, width = self.size
        flat = np.unpackbits(self.bits[numbers], axis=1, count=height * width)
        return Masks(
            flat.reshape(len(numbers), height, width).astype(bool), self.mask_scores[numbers]
        )


def pack_masks(masks: np.ndarray) -> np.ndarray:
    """Pack bool masks (N, H, W) to bits (N, ceil(H * W / 8))."""
    return np.packbits(masks.reshape(len(masks), masks.shape[1] * masks.shape[2]), axis=1)


@dataclass(frozen=True)
class Choice:
    """Say which proposals to show.

    Attributes:
        threshold: Lowest score, for the phrases without a threshold of their own.
        count: Most detections to show.
        min_area: Smallest mask, in per cent of the picture.
        best_only: Whether to show only the best detection of each phrase.
        whole: Whether boxes around the whole picture count.
        off: Numbers of the regions that have been switched off by hand.
    """

    threshold: float
    count: int = MAX_SHOWN
    min_area: float = 0.0
    best_only: bool = False
    whole: bool = False
    off: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"The threshold is {self.threshold}; it must be between 0 and 1.")


@dataclass(frozen=True)
class Selection:
    """Hold the chosen detections, best first and negatives last.

    Attributes:
        query: What was asked for.
        numbers: Their numbers among the proposals.
        regions: Their regions.
        masks: Their masks, those of wanted phrases without the area of the negatives.
        on: Whether each is switched on.
        notes: Sentences about what has been left out.
    """

    query: Query
    numbers: list[int]
    regions: Regions
    masks: Masks
    on: list[bool]
    notes: list[str]

    def shown(self) -> list[int]:
        """Return the rows to paint: switched on and asked for."""
        wanted = [label in self.query.phrases for label in self.regions.labels]
        return np.flatnonzero(np.array([wanted, self.on], bool).all(0)).tolist()


def select(proposals: Proposals, choice: Choice) -> Selection:
    """Choose among the proposals, and take the negatives' area out of the rest."""
    rest, numbers, notes = choose(proposals, choice)
    on = [number not in choice.off for number in numbers]
    regions, masks = rest.regions[numbers], rest.masks(numbers)
    return Selection(proposals.query, numbers, regions, masks, on, notes)


def choose(proposals: Proposals, choice: Choice) -> tuple[Proposals, list[int], list[str]]:
    """Choose without unpacking a mask.

    Returns:
        The proposals without the negatives' area, the numbers of the chosen ones, best first and
        negatives last, and sentences about what was left out.
    """
    notes = _crowd(proposals, choice.threshold)
    areas, labels = _areas(proposals), proposals.regions.labels
    found = _find(proposals, areas, choice, notes)
    negative = [i for i in found if labels[i] in proposals.query.negatives]
    wanted = [i for i in found if i not in negative]
    rest = _take_away(proposals, [i for i in negative if i not in choice.off], wanted)
    # What is small or one too many is asked of what is left; what is taken away may be small.
    kept = _limit(wanted, areas, rest, choice, notes)
    return rest, [*(i for i in wanted if i in kept), *negative], notes


def to_result(selection: Selection, seconds: dict[str, float]) -> Result:
    """Return what is shown of a selection."""
    rows = selection.shown()
    return Result(
        selection.query.phrases,
        selection.regions[rows],
        selection.masks[rows],
        [row + 1 for row in rows],
        seconds,
        selection.notes,
    )


def _crowd(proposals: Proposals, threshold: float) -> list[str]:
    """Say how much would be shown that found no place among the proposals, if anything."""
    limits, regions = proposals.query.thresholds, proposals.regions

    def count(scored: Iterable[tuple[float, str]]) -> int:
        return sum(bool(score >= limits.get(label, threshold)) for score, label in scored)

    if not (more := count(proposals.dropped)):
        return []
    kept = count(zip(regions.scores, regions.labels, strict=True))
    # The others had their places by the threshold of the run.
    again = "" if kept >= MAX_SHOWN else " Press Run to keep more of them."
    return [f"Only {kept} of {kept + more} regions are kept; phrases share the places.{again}"]


def _find(proposals: Proposals, areas: np.ndarray, choice: Choice, notes: list[str]) -> list[int]:
    """Return the numbers of what scores enough and is found once, best first."""
    regions = proposals.regions
    numbers = [
        i
        # What was drawn by hand comes last but scores best.
        for i in np.argsort(-regions.scores, kind="stable").tolist()
        if areas[i]
        and regions.scores[i] >= proposals.query.thresholds.get(regions.labels[i], choice.threshold)
    ]
    if not choice.whole:
        whole = [i for i in numbers if _is_whole(proposals, i)]
        words = f"{_count(whole, 'box', 'boxes')} around the whole picture"
        numbers = _leave_out(numbers, whole, words, notes)
    return [numbers[k] for k in distinct(regions[numbers].labels, proposals.bits[numbers])]


def _take_away(proposals: Proposals, negative: list[int], wanted: list[int]) -> Proposals:
    """Return the proposals with the masks of some taken out of those of others."""
    if not negative:
        return proposals  # the masks of thirty regions are not copied for nothing
    bits = proposals.bits.copy()
    bits[wanted] &= ~np.bitwise_or.reduce(bits[negative], axis=0)
    return replace(proposals, bits=bits)


def _limit(
    numbers: list[int], before: np.ndarray, rest: Proposals, choice: Choice, notes: list[str]
) -> list[int]:
    """Return the numbers of what there is enough left of, the best few."""
    areas, labels = _areas(rest), rest.regions.labels
    gone = [i for i in numbers if areas[i] < LEFT * before[i]]
    words = f"{_count(gone, 'area', 'areas')} covered by what is taken away"
    numbers = _leave_out(numbers, gone, words, notes)
    small = [i for i in numbers if 100 * areas[i] < choice.min_area]
    words = f"{_count(small, 'area', 'areas')} under {choice.min_area:g} %"
    numbers = _leave_out(numbers, small, words, notes)
    if choice.best_only:
        best = {labels[i]: i for i in reversed(numbers)}
        numbers = [i for i in numbers if best[labels[i]] == i]
    if len(numbers) > choice.count:
        notes.append(f"Shown: the best {choice.count} of {len(numbers)}.")
    return numbers[: choice.count]


def _leave_out(numbers: list[int], out: list[int], words: str, notes: list[str]) -> list[int]:
    if out:
        notes.append(f"Left out: {words}.")
    return [i for i in numbers if i not in out]


def _count(things: list[int], one: str, many: str) -> str:
    return f"{len(things)} {one if len(things) == 1 else many}"


def _areas(proposals: Proposals) -> np.ndarray:
    """Return the share of the picture under each mask, (N,) in [0, 1]."""
    pixels = proposals.size[0] * proposals.size[1]
    return np.bitwise_count(proposals.bits).sum(1, dtype=np.int64) / pixels


def _is_whole(proposals: Proposals, number: int) -> bool:
    # Where the grounder gives a map, its shape counts, not the box around it; and a person who
    # draws such a box means it.
    if proposals.regions.heatmap is not None or number in proposals.by_hand:
        return False
    x1, y1, x2, y2 = proposals.regions.boxes[number]
    height, width = proposals.size
    return bool((x2 - x1) * (y2 - y1) >= WHOLE_PICTURE * height * width)


def distinct(labels: tuple[str, ...], bits: np.ndarray) -> list[int]:
    """Return the numbers of the packed masks (N, B), best first, that are not found twice.

    Two boxes around one thing often give the same mask; the second is dropped when it has the
    same label and an IoU above 0.7 with the first.
    """
    # Eight bytes at once.
    words = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)
    areas = np.bitwise_count(words).sum(1, dtype=np.int64).tolist()
    kept: list[int] = []
    for i, label in enumerate(labels):
        rivals = [j for j in kept if labels[j] == label]
        if not any(_overlap(words[i], words[j], areas[i], areas[j]) for j in rivals):
            kept.append(i)
    return kept


def twins(proposals: Proposals, number: int) -> list[int]:
    """Return the numbers of what is not shown beside a proposal because it is the same again."""
    labels, bits = proposals.regions.labels, proposals.bits
    # As in `_find`: best first, and of two that score the same the first.
    order = np.argsort(-proposals.regions.scores, kind="stable").tolist()
    same = same_as(proposals, labels[number], bits[number])
    return [i for i in order[order.index(number) + 1 :] if i in same]


def same_as(proposals: Proposals, label: str, bits: np.ndarray) -> list[int]:
    """Return the numbers of the proposals that would be found twice beside a packed mask (B,)."""
    return [
        i
        for i, other in enumerate(proposals.regions.labels)
        if other == label and distinct((label,) * 2, np.stack([bits, proposals.bits[i]])) == [0]
    ]


def _overlap(a: np.ndarray, b: np.ndarray, area_a: int, area_b: int) -> bool:
    if min(area_a, area_b) <= DUPLICATE_IOU * max(area_a, area_b):
        return False  # even if one lies within the other
    shared = int(np.bitwise_count(a & b).sum(dtype=np.int64))
    return shared > DUPLICATE_IOU * (area_a + area_b - shared)
