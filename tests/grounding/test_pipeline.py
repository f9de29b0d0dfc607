import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grounding.core import Masks, Regions
from grounding.pipeline import FLOOR, cut, keep_best, propose, run
from grounding.select import MAX_SHOWN
from grounding.store import Models
from grounding.weights import BUNDLED, Origin, Source

PICTURE = Image.new("RGB", (40, 30))


class FakeGrounder:
    """Find `count` boxes for the first phrase."""

    def __init__(self, count: int) -> None:
        self.count = count

    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        boxes = np.array([[10 * i, 0, 10 * i + 8, 8] for i in range(self.count)], np.float32)
        scores = np.full(self.count, 0.9, np.float32)
        return Regions(boxes.reshape(-1, 4), scores, (phrases[0],) * self.count)


class FakeSegmenter:
    """Fill each box."""

    def segment(self, image: Image.Image, regions: Regions) -> Masks:
        assert len(regions), "a segmenter is never asked for nothing"
        masks = np.zeros((len(regions), image.height, image.width), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, regions.boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = True
        return Masks(masks, np.ones(len(regions), np.float32))


def _models(count: int) -> Models:
    source = Source(BUNDLED, Path())
    return Models(FakeGrounder(count), FakeSegmenter(), Origin(source, source))


@pytest.mark.parametrize("count", [0, 1, 3])  # nothing, one, many
def test_run(count: int) -> None:
    result = run(_models(count), PICTURE, "a dog, a cat", 0.3)
    assert result.phrases == ["a dog", "a cat"]
    assert result.masks.masks.shape == (count, 30, 40)
    assert result.regions.labels == ("a dog",) * count
    assert ("segmenter" in result.seconds) == (count > 0)


@pytest.mark.parametrize(
    ("prompt", "threshold", "message"),
    [
        ("", 0.3, "Type what"),  # no prompt
        ("a dog", -1, "threshold is -1"),  # below
        ("a dog", 2, "threshold is 2"),  # above
        ("a dog", float("nan"), "threshold is nan"),  # not a number
    ],
)
def test_run_refuses(prompt: str, threshold: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(_models(1), PICTURE, prompt, threshold)


class Recorder(FakeGrounder):
    """Remember what was asked; answer with a hill as a coarse mask, if there is one."""

    def __init__(self, hill: np.ndarray | None = None) -> None:
        super().__init__(1)
        self.hill = hill

    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        self.asked = phrases, threshold
        regions = super().ground(image, phrases, threshold)
        return regions if self.hill is None else replace(regions, masks=self.hill[None])


def test_run_asks_for_nothing_below_the_threshold() -> None:
    """So that no mask is outlined for nothing."""
    grounder = Recorder()
    result = run(replace(_models(1), grounder=grounder), PICTURE, "a dog, a cat: 0.2", 0.3)
    assert grounder.asked == (["a dog", "a cat"], 0.2)
    assert set(result.seconds) == {"grounder", "segmenter"}


def test_the_best_score_of_a_phrase_is_that_of_its_best_box() -> None:
    class Two(FakeGrounder):
        def ground(self, *asked: Any) -> Regions:
            return replace(super().ground(*asked), scores=np.float32([0.75, 0.25]))

    models = replace(_models(2), grounder=Two(2))
    assert propose(models, PICTURE, "a dog", 0.3).best == {"a dog": 0.75}


@pytest.mark.parametrize(
    ("prompt", "threshold", "phrases", "floor"),
    [
        ("a dog", 0.3, ["a dog"], FLOOR),  # low, whatever the threshold
        ("a dog", 0.01, ["a dog"], 0.01),  # unless that is lower
        ("a dog, a cat: 0.02", 0.3, ["a dog", "a cat"], 0.02),  # or a phrase's own is
        ("a dog -collar", 0.3, ["a dog", "collar"], FLOOR),  # the negatives are looked for too
    ],
)
def test_propose_asks_for_all(
    prompt: str, threshold: float, phrases: list[str], floor: float
) -> None:
    grounder = Recorder()
    proposals = propose(replace(_models(1), grounder=grounder), PICTURE, prompt, threshold)
    assert grounder.asked == (phrases, floor) and proposals.floor == floor
    assert proposals.best == {"a dog": pytest.approx(0.9)}
    assert proposals.masks([0]).masks.sum() == 64


@pytest.mark.parametrize(
    ("threshold", "boxes"),
    [
        (0.1, [[0, 0, 40, 30]]),  # one piece
        (0.5, [[0, 0, 10, 30], [30, 0, 40, 30]]),  # two
        (0.8, [[0, 0, 10, 30]]),  # the higher one
        (1.0, []),  # none
    ],
)
def test_a_map_is_cut_at_the_threshold(threshold: float, boxes: list[list[int]]) -> None:
    hill = np.full((30, 40), 0.2, np.float32)
    hill[:, :10], hill[:, 30:] = 0.9, 0.6
    proposals = propose(replace(_models(1), grounder=Recorder(hill)), PICTURE, "a dog", threshold)
    assert proposals.regions.boxes.tolist() == boxes
    assert proposals.floor == threshold and proposals.regions.masks is None


@pytest.mark.parametrize(
    ("sides", "threshold", "best"),
    [
        ({}, 0.4, 0.0),  # nothing anywhere
        ({0.9: 10}, 0.4, 0.9),  # a part: its highest score
        ({0.2: 10}, 0.4, 0.2),  # a part further down
        ({0.3: 1, 0.137: 10}, 0.4, 0.13),  # the highest score is too small for a part
        ({0.9: 1, 0.137: 10}, 0.4, 0.13),  # even where it reaches the threshold
        ({0.9: 1, 0.6: 10}, 0.4, 0.9),  # of a part it counts
        ({0.9: 1}, 0.4, 0.0),  # no part at any threshold
        ({0.04: 10}, 0.4, 0.0),  # only where no threshold of the page goes
    ],
)
def test_the_best_score_of_a_map_is_a_threshold_that_shows_it(
    sides: dict[float, int], threshold: float, best: float
) -> None:
    """Squares inside each other, of a picture of 1200 pixels: a part has at least 3."""
    hill = np.zeros((30, 40), np.float32)
    for height, side in sorted(sides.items()):
        hill[:side, :side] = height
    models = replace(_models(1), grounder=Recorder(hill))
    asked = propose(models, PICTURE, "a dog", threshold)
    assert asked.best == {"a dog": pytest.approx(best)}
    assert not best or asked.regions or len(propose(models, PICTURE, "a dog", best).regions)


@pytest.mark.parametrize(
    ("squares", "scores"),
    [
        ([], []),  # nothing
        ([(0, 0, 0.3)], []),  # below the threshold
        ([(0, 0, 0.9)], [0.9]),  # one
        ([(0, 0, 0.6), (40, 40, 0.9)], [0.9, 0.6]),  # two apart, the better one first
        ([(0, 0, 0.9), (8, 0, 0.6)], [0.9]),  # two that touch are one
        ([(12 * (i % 8), 12 * (i // 8), 0.9) for i in range(64)], [0.9] * MAX_SHOWN),  # many
    ],
)
def test_parts_of_a_map(squares: list[tuple[int, int, float]], scores: list[float]) -> None:
    heat = np.zeros((1, 100, 100), np.float32)
    for x, y, score in squares:
        heat[0, y : y + 8, x : x + 8] = score
    box = np.zeros((1, 4), np.float32)
    regions = Regions(box, np.ones(1, np.float32), ("a dog",), heat, heat[0])
    parts, dropped = cut(regions, {"a dog": 0.4})
    assert parts.scores.tolist() == pytest.approx(scores)
    assert len(dropped) == max(0, len(squares) - MAX_SHOWN)


def test_a_map_without_a_heatmap_has_the_largest_scores_as_one() -> None:
    """So that it counts as a map wherever that is asked."""
    masks = np.zeros((2, 30, 40), np.float32)
    masks[0, :9, :9], masks[1, 5:20, 5:20] = 0.9, 0.4
    labels, scores = ("a dog", "a cat"), masks.max((1, 2))
    boxes = np.array([[0, 0, 9, 9], [5, 5, 20, 20]], np.float32)
    kept, _ = cut(Regions(boxes, scores, labels, masks), {"a dog": 0.3, "a cat": 0.3})
    np.testing.assert_array_equal(kept.heatmap, masks.max(0))
    none, _ = cut(Regions(boxes[:0], scores[:0], (), masks[:0]), {})
    assert none.heatmap.shape == (30, 40) and not none.heatmap.any()


def test_cutting_makes_pictures_only_of_the_parts_it_keeps() -> None:
    """A sheet of many things would fill the memory."""
    heat = np.zeros((4, 500, 500), np.float32)
    for y in range(0, 480, 40):
        for x in range(0, 480, 40):
            heat[:, y : y + 30, x : x + 30] = 0.9
    names = tuple("abcd")
    regions = Regions(np.zeros((4, 4), np.float32), np.ones(4, np.float32), names, heat, heat[0])
    tracemalloc.start()
    parts, _ = cut(regions, dict.fromkeys(names, 0.4))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(parts) == MAX_SHOWN and peak < 1.5 * parts.masks.nbytes
    assert all((part > 0).sum() == 900 for part in parts.masks)


def boxes_of(*found: tuple[str, float, int]) -> Regions:
    """Return so many regions of each phrase and score."""
    labels = [label for label, _, count in found for _ in range(count)]
    scores = np.array([score for _, score, count in found for _ in range(count)], np.float32)
    return Regions(np.zeros((len(labels), 4), np.float32), scores, tuple(labels))


@pytest.mark.parametrize(
    ("found", "own", "kept"),
    [
        ((), {}, {}),  # nothing
        ((("dog", 0.6, 40),), {}, {"dog": 30}),  # one phrase takes all
        ((("dog", 0.6, 40), ("cat", 0.5, 1)), {}, {"dog": 29, "cat": 1}),  # a crowd and one
        ((("dog", 0.6, 40), ("cat", 0.5, 40)), {}, {"dog": 15, "cat": 15}),  # two crowds
        ((("dog", 0.6, 40), ("cat", 0.5, 4)), {"dog": 0.7}, {"cat": 4}),  # never to be shown
        ((("dog", 0.6, 5), ("cat", 0.5, 5)), {"dog": 0.6}, {"dog": 5, "cat": 5}),  # few
        ((("dog", 0.7, 5),), {"dog": 0.7}, {"dog": 5}),  # just as high, as float32
        ((("dog", 0.6, 25), ("cat", 0.1, 20)), {}, {"dog": 25, "cat": 5}),  # a crowd not shown yet
        ((("dog", 0.6, 40), ("cat", 0.1, 20)), {}, {"dog": 30}),
        ((("dog", 0.2, 40), ("cat", 0.1, 20)), {}, {"dog": 15, "cat": 15}),  # none is
    ],
)
def test_every_phrase_has_its_share_of_the_places(
    found: tuple[tuple[str, float, int], ...], own: dict[str, float], kept: dict[str, int]
) -> None:
    cuts = {label: own.get(label, 0.4) for label, *_ in found}
    regions, dropped = keep_best(boxes_of(*found), cuts, own)
    assert Counter(regions.labels) == kept
    enough = {label: count for label, score, count in found if score >= own.get(label, 0)}
    assert Counter([*regions.labels, *(label for _, label in dropped)]) == enough
    assert (np.diff(regions.scores) <= 0).all(), "best first"


def test_parts_of_a_map_are_shared_out_as_well() -> None:
    heat = np.zeros((2, 100, 100), np.float32)
    for i in range(64):
        heat[0, 12 * (i // 8) :, 12 * (i % 8) :][:8, :8] = 0.9
    heat[1, 40:60, 40:60] = 0.6
    regions = Regions(np.zeros((2, 4), np.float32), np.float32([0.9, 0.6]), ("dog", "cat"), heat)
    parts, dropped = cut(regions, {"dog": 0.4, "cat": 0.4})
    assert Counter(parts.labels) == {"dog": 29, "cat": 1}
    assert parts.boxes[-1].tolist() == [40, 40, 60, 60]
    assert [label for _, label in dropped] == ["dog"] * (64 - 29)


def test_a_speck_is_no_part_and_threshold_zero_leaves_zeros_out() -> None:
    heat = np.zeros((1, 100, 100), np.float32)
    heat[0, :2, :2], heat[0, 50:60, 50:60] = 0.9, 0.1
    box = np.zeros((1, 4), np.float32)
    regions = Regions(box, np.ones(1, np.float32), ("a dog",), heat, heat[0])
    assert cut(regions, {"a dog": 0.0})[0].boxes.tolist() == [[50, 50, 60, 60]]
