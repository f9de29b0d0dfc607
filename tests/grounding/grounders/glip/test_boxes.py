import math

import pytest
import torch
from torch import Tensor

from grounding.grounders.glip import boxes
from grounding.grounders.glip.boxes import anchors, decode, detect, phrase_scores
from grounding.grounders.glip.model import RawDetections

SIZE = (64, 48)
GRIDS = [(6, 8), (3, 4), (2, 2), (1, 1), (1, 1)]


def raw(found: dict[tuple[int, int], list[float]], centerness: float = 20.0) -> RawDetections:
    """Return what a network says that is sure of the tokens at (level, position)."""
    tokens = len(next(iter(found.values()), [0.0]))
    logits = [torch.full((1, h * w, tokens), -20.0) for h, w in GRIDS]
    for (level, position), probabilities in found.items():
        logits[level][0, position] = torch.tensor(probabilities).logit(eps=1e-6)
    deltas = [torch.zeros(1, 4, h, w) for h, w in GRIDS]
    return RawDetections(logits, deltas, [torch.full((1, 1, h, w), centerness) for h, w in GRIDS])


def test_anchors_count_both_corners() -> None:
    assert anchors(2, 1, stride=16, size=128).tolist() == [[-56, -56, 71, 71], [-56, -40, 71, 87]]


@pytest.mark.parametrize(
    ("deltas", "box"),
    [
        ([0, 0, 0, 0], [0, 0, 63, 63]),  # the anchor itself
        ([10, 0, 0, 0], [64, 0, 127, 63]),  # its own width to the right
        ([0, 0, 5 * math.log(0.5), 0], [16, 0, 47, 63]),  # half as wide
        ([0, 0, 0, 99], [0, -1968, 63, 2031]),  # growth is limited to 1000 / 16
    ],
)
def test_decode(deltas: list[float], box: list[float]) -> None:
    anchor = torch.tensor([[0.0, 0.0, 63.0, 63.0]])
    assert decode(torch.tensor([deltas]), anchor)[0].tolist() == pytest.approx(box, abs=1e-2)


def test_phrase_scores() -> None:
    logits = torch.tensor([[0.2, 0.8, 0.9]]).logit()
    positive = torch.tensor([[1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
    assert phrase_scores(logits, positive)[0].tolist() == pytest.approx([0.5, 0.9, 0.0])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, []),  # nothing
        ({(0, 9): [0.81, 0.01]}, [(0, 0.9)]),  # one phrase; the score is the square root
        ({(0, 9): [0.81, 0.64]}, [(0, 0.9), (1, 0.8)]),  # two phrases at one place: both
        ({(0, 9): [0.81, 0.0], (0, 10): [0.64, 0.0]}, [(0, 0.9)]),  # the neighbour is covered
        ({(0, 0): [0.64, 0.0], (4, 0): [0.81, 0.0]}, [(0, 0.9), (0, 0.8)]),  # levels are joined
        ({(0, 9): [0.04, 0.0]}, []),  # below the threshold
    ],
)
def test_detect(
    found: dict[tuple[int, int], list[float]], expected: list[tuple[int, float]]
) -> None:
    got = detect(raw(found or {(0, 0): [0.0, 0.0]}), 0, torch.eye(2, dtype=torch.bool), SIZE)
    assert got.labels.tolist() == [label for label, _ in expected]
    assert got.scores.tolist() == pytest.approx([score for _, score in expected], abs=1e-3)
    assert (got.boxes >= 0).all()
    assert (got.boxes <= torch.tensor([63, 47, 63, 47])).all()


def test_the_threshold_counts_before_the_centerness() -> None:
    positive = torch.ones(1, 1, dtype=torch.bool)
    got = detect(raw({(0, 9): [0.06]}, centerness=-2.0), 0, positive, SIZE)
    assert got.scores.tolist() == pytest.approx([math.sqrt(0.06 * 0.1192)], abs=1e-4)


def many(count: int, equal: bool) -> Tensor:
    """Return scores of `count` boxes, in no order."""
    scores = torch.full((count,), 0.5) if equal else torch.linspace(0.1, 0.9, count)
    return scores[torch.randperm(count, generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize(
    ("count", "equal", "kept"),
    [
        (3, False, 3),
        (boxes.MAX_DETECTIONS, False, boxes.MAX_DETECTIONS),
        (140, False, boxes.MAX_DETECTIONS),
        (140, True, 140),  # equal scores are never torn apart
    ],
)
def test_limit(count: int, equal: bool, kept: int) -> None:
    scores = many(count, equal)
    best = boxes._best(scores, torch.arange(count))
    assert len(best) == kept
    assert scores[best].tolist() == sorted(scores.tolist(), reverse=True)[:kept]
