from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from grounding.demo.atss import Objects, assign, atss_loss, centerness, flatten
from grounding.grounders.glip.boxes import anchors, decode
from grounding.grounders.glip.config import ANCHOR_SIZES, STRIDES
from grounding.grounders.glip.model import RawDetections

SIDES = [-(-128 // stride) for stride in STRIDES]
LEVELS = [
    anchors(side, side, stride, size)
    for side, stride, size in zip(SIDES, STRIDES, ANCHOR_SIZES, strict=True)
]
ANCHORS = torch.cat(LEVELS)
TOKENS = 4  # the last one is padding
TRUTH = Objects(
    torch.tensor([[36.0, 36.0, 99.0, 99.0], [4.0, 8.0, 27.0, 35.0]]),
    torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]]),
)


@pytest.mark.parametrize(
    ("box", "level", "row", "column"),
    [
        ([36, 36, 99, 99], 0, 8, 8),  # as large as the finest anchors
        ([8, 8, 31, 31], 0, 2, 2),  # much smaller than any anchor
        ([8, 8, 119, 119], 1, 4, 4),  # as large as those of the second level
        ([-8, -8, 119, 119], 1, 3, 3),  # reaching out of the picture
    ],
)
def test_an_object_takes_the_anchor_in_its_middle(
    box: list[float], level: int, row: int, column: int
) -> None:
    owner = assign(LEVELS, torch.tensor([box], dtype=torch.float32))
    parts = owner.split([len(anchor) for anchor in LEVELS])
    assert parts[level].view(SIDES[level], -1)[row, column] == 0
    assert all((part == -1).all() for i, part in enumerate(parts) if i != level)
    assert 1 <= (owner == 0).sum() <= 9


def test_taken_anchors_lie_in_their_object_and_go_to_the_one_they_fit_best() -> None:
    boxes = torch.tensor([[30.0, 30.0, 90.0, 90.0], [42.0, 42.0, 102.0, 102.0]])
    alone = [assign(LEVELS, box[None]) == 0 for box in boxes]
    owner = assign(LEVELS, boxes)
    both = alone[0] & alone[1]
    middle = (ANCHORS[:, :2] + ANCHORS[:, 2:]) / 2
    assert both.any() and torch.equal(owner >= 0, alone[0] | alone[1])
    for number, box in enumerate(boxes):
        mine, other = owner == number, boxes[1 - number]
        assert (middle[mine] > box[:2]).all() and (middle[mine] < box[2:]).all()
        contested = ANCHORS[mine & both]
        near, far = ((contested - corner).abs().sum(dim=1) for corner in (box, other))
        assert (near <= far).all()


def test_no_object_no_owner() -> None:
    assert (assign(LEVELS, torch.zeros(0, 4)) == -1).all()


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (5.0, 5.0, 1.0),  # the middle
        (2.0, 5.0, 0.5),  # a quarter in one direction: sqrt(2 / 8)
        (2.0, 2.0, 0.25),  # and in both
        (0.0, 5.0, 0.0),  # on the border
    ],
)
def test_centerness(x: float, y: float, expected: float) -> None:
    anchor = torch.tensor([[x - 3, y - 3, x + 3, y + 3]])
    assert centerness(anchor, torch.tensor([[0.0, 0.0, 10.0, 10.0]])).item() == pytest.approx(
        expected
    )


def _deltas(boxes: Tensor) -> Tensor:
    """Invert `decode`."""
    size = ANCHORS[:, 2:] - ANCHORS[:, :2] + 1
    shift = (boxes[:, :2] + boxes[:, 2:] - ANCHORS[:, :2] - ANCHORS[:, 2:]) / 2
    growth = ((boxes[:, 2:] - boxes[:, :2] + 1) / size).log()
    return torch.cat((10 * shift / size, 5 * growth), dim=1)


def _perfect() -> dict[str, Tensor]:
    owner = assign(LEVELS, TRUTH.boxes)
    boxes = torch.where((owner >= 0)[:, None], TRUTH.boxes[owner], ANCHORS)
    wanted = TRUTH.tokens[owner] * (owner >= 0)[:, None]
    central = centerness(ANCHORS, boxes).clamp(0.01, 0.99)
    return {"logits": 20 * wanted - 10, "deltas": _deltas(boxes), "centerness": central.logit()}


def _loss(logits: Tensor, deltas: Tensor, centerness: Tensor) -> float:
    counts = [len(anchor) for anchor in LEVELS]
    raw = RawDetections(
        list(logits[None].split(counts, dim=1)),
        [d.T.reshape(1, 4, s, s) for d, s in zip(deltas.split(counts), SIDES, strict=True)],
        [c.view(1, 1, s, s) for c, s in zip(centerness.split(counts), SIDES, strict=True)],
    )
    valid = torch.arange(TOKENS)[None] < TOKENS - 1
    return atss_loss(raw, valid, [TRUTH]).item()


@pytest.mark.parametrize(
    ("part", "damage", "worse"),
    [
        ("logits", lambda x: -x, True),  # everything the other way round
        ("logits", lambda x: x.clamp(max=-10), True),  # nothing found
        ("logits", lambda x: x + torch.tensor([20.0, 0, 0, 0]), True),  # a token nothing means
        ("logits", lambda x: x + torch.tensor([0, 0, 0, 99.0]), False),  # padding: no matter
        ("deltas", lambda x: x + 1, True),  # boxes moved and stretched
        ("centerness", lambda x: -x, True),  # middle and border swapped
    ],
)
def test_the_loss_sees_each_mistake(
    part: str, damage: Callable[[Tensor], Tensor], worse: bool
) -> None:
    right = _perfect()
    best, damaged = _loss(**right), _loss(**right | {part: damage(right[part])})
    assert best < 0.4  # the entropy of the centerness is left
    assert damaged > best + 0.1 if worse else damaged == pytest.approx(best)


def test_flatten_keeps_deltas_and_anchors_together() -> None:
    deltas = [torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, side, side) for side in SIDES]
    maps = [torch.zeros(1, 1, side, side) for side in SIDES]
    answers = flatten(RawDetections([x.flatten(2).mT for x in maps], deltas, maps))
    assert torch.equal(torch.cat(answers.anchors), ANCHORS)
    assert torch.equal(answers.deltas[0], torch.arange(4.0).expand(len(ANCHORS), 4))
    assert decode(answers.deltas[0], ANCHORS).shape == ANCHORS.shape
