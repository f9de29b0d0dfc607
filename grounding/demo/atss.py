"""The loss of a dense detector like GLIP, one anchor per position, words in place of classes.

Zhang et al. 2020, "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
Training Sample Selection", https://arxiv.org/abs/1912.02424, as Li et al. 2022, "Grounded
Language-Image Pre-training", https://arxiv.org/abs/2112.03857, use it. Boxes are xyxy with both
corners inside, as GLIP's anchors are.

Axes: B batch, N positions of all levels, T tokens, G objects of one picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou, generalized_box_iou_loss

from grounding.demo.set_loss import focal_loss
from grounding.grounders.glip.boxes import anchors, decode
from grounding.grounders.glip.config import ANCHOR_SIZES, STRIDES
from grounding.grounders.glip.model import RawDetections

CANDIDATES = 9


@dataclass(frozen=True)
class Objects:
    """What is to be found in one picture.

    Attributes:
        boxes: float32 (G, 4), xyxy pixels, both corners inside.
        tokens: float32 (G, T), 1 on the tokens of the phrases that mean the object.
    """

    boxes: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class Answers:
    """All levels of `RawDetections` in one.

    Attributes:
        logits: float32 (B, N, T).
        deltas: float32 (B, N, 4), boxes relative to the anchors.
        centerness: float32 (B, N), logits.
        anchors: One float32 (n, 4) per level, N in all.
    """

    logits: Tensor
    deltas: Tensor
    centerness: Tensor
    anchors: tuple[Tensor, ...]


def flatten(raw: RawDetections) -> Answers:
    """Put the levels one behind the other, finest first."""
    levels = zip(raw.deltas, STRIDES, ANCHOR_SIZES, strict=True)
    return Answers(
        torch.cat(raw.logits, dim=1),
        torch.cat([x.flatten(2).mT for x in raw.deltas], dim=1),
        torch.cat([x.flatten(1) for x in raw.centerness], dim=1),
        tuple(anchors(*deltas.shape[-2:], stride, side) for deltas, stride, side in levels),
    )


def _borders(anchor: Tensor, boxes: Tensor) -> Tensor:
    """Return how far the anchors' centres lie inside the left, top, right and bottom borders."""
    centre = (anchor[..., :2] + anchor[..., 2:]) / 2
    return torch.cat((centre - boxes[..., :2], boxes[..., 2:] - centre), dim=-1)


def _candidates(levels: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Return which anchors have their centres among the closest of their level, bool (N, G)."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    parts = []
    for anchor in levels:
        distance = torch.cdist((anchor[:, :2] + anchor[:, 2:]) / 2, middle)
        closest = distance.topk(min(CANDIDATES, len(anchor)), dim=0, largest=False).indices
        parts.append(torch.zeros_like(distance, dtype=torch.bool).scatter(0, closest, True))
    return torch.cat(parts)


def assign(levels: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Say which object each anchor has to find.

    An object takes the closest anchors of each level whose overlap with it is at least the mean
    plus the standard deviation of their overlaps, and whose centre lies in it. An anchor that two
    objects want goes to the one it overlaps most.

    Args:
        levels: One float32 (n, 4) of anchors per level, N in all.
        boxes: float32 (G, 4).

    Returns:
        int64 (N,), the number of the object or -1.
    """
    anchor = torch.cat(list(levels))
    if not len(boxes):
        return torch.full((len(anchor),), -1)
    close = _candidates(levels, boxes)
    overlap = box_iou(anchor, boxes)
    count = close.sum(dim=0)
    mean = (overlap * close).sum(dim=0) / count
    spread = (((overlap - mean).square() * close).sum(dim=0) / (count - 1)).sqrt()
    inside = _borders(anchor[:, None], boxes).amin(dim=-1) > 0
    good = close & inside & (overlap >= mean + spread)
    best, owner = overlap.masked_fill(~good, -1).max(dim=1)
    return owner.masked_fill(best < 0, -1)


def centerness(anchor: Tensor, boxes: Tensor) -> Tensor:
    """Return how central the anchors' centres lie in their boxes, (K, 4), (K, 4) -> (K,) in 0..1.

    Tian et al. 2019, "FCOS", https://arxiv.org/abs/1904.01355, equation 3.

    >>> box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    >>> centerness(torch.tensor([[1.0, 3.0, 3.0, 5.0]]), box).square()
    tensor([0.3333])
    """
    sides = _borders(anchor, boxes).clamp(min=0).unflatten(-1, (2, 2))
    return (sides.amin(dim=-2) / sides.amax(dim=-2)).prod(dim=-1).sqrt()


def atss_loss(raw: RawDetections, valid: Tensor, objects: Sequence[Objects]) -> Tensor:
    """Return the loss of the answers to a batch.

    Args:
        raw: The answers.
        valid: bool (B, T), False on padding.
        objects: The right answers, one per picture.
    """
    answers = flatten(raw)
    owner = torch.stack([assign(answers.anchors, one.boxes) for one in objects])
    taken = owner >= 0
    count = taken.sum().clamp(min=1)
    # Number -1 takes the row behind the last, which stands for no object.
    pairs = list(zip(objects, owner, strict=True))
    tokens = torch.stack([F.pad(one.tokens, (0, 0, 0, 1))[index] for one, index in pairs])
    words = (focal_loss(answers.logits, tokens) * valid[:, None]).sum() / count
    truth = torch.stack([F.pad(one.boxes, (0, 0, 0, 1))[index] for one, index in pairs])[taken]
    anchor = torch.cat(answers.anchors).expand(*taken.shape, 4)[taken]
    central = centerness(anchor, truth)
    misfit = generalized_box_iou_loss(decode(answers.deltas[taken], anchor), truth)
    boxes = (misfit * central).sum() / central.sum().clamp(min=1)
    centre = F.binary_cross_entropy_with_logits(answers.centerness[taken], central, reduction="sum")
    return words + 2 * boxes + 0.5 * centre / count
