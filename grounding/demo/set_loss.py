"""The loss of a detector that answers with a set of boxes.

Carion et al. 2020, "End-to-End Object Detection with Transformers",
https://arxiv.org/abs/2005.12872, with words in place of classes; several boxes per object, as in
Ouyang-Zhang et al. 2022, "NMS Strikes Back", https://arxiv.org/abs/2212.06137, teach faster.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torchvision.ops import (
    box_convert,
    generalized_box_iou,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

# Lin et al. 2017, "Focal Loss for Dense Object Detection", https://arxiv.org/abs/1708.02002.
focal_loss = partial(sigmoid_focal_loss, alpha=0.35)


@dataclass(frozen=True)
class Batch:
    """Scenes with captions.

    Attributes:
        pixels: float32 (B, 3, S, S), normalised.
        input_ids: int64 (B, T).
        attention_mask: int64 (B, T).
        boxes: float32 (B, MAX_OBJECTS, 4), cxcywh in 0..1.
        tokens: float32 (B, MAX_OBJECTS, T), 1 on the tokens of the phrases that mean the object.
        real: bool (B, MAX_OBJECTS), False on padding and on objects no phrase means.
    """

    pixels: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    boxes: Tensor
    tokens: Tensor
    real: Tensor


def corners(boxes: Tensor) -> Tensor:
    """Return cxcywh boxes (..., 4) as xyxy."""
    return box_convert(boxes, "cxcywh", "xyxy")


@torch.no_grad()
def matching_cost(logits: Tensor, boxes: Tensor, batch: Batch) -> Tensor:
    """Return what it costs to give each object to each query, (B, Q, MAX_OBJECTS)."""
    score = logits.sigmoid()
    wanted = batch.tokens / batch.tokens.sum(-1, keepdim=True).clamp(min=1)
    likelihood = score @ wanted.transpose(1, 2)
    distance = torch.cdist(boxes, batch.boxes, p=1)
    pairs = zip(corners(boxes), corners(batch.boxes), strict=True)
    overlap = torch.stack([generalized_box_iou(ours, theirs) for ours, theirs in pairs])
    cost = 5 * distance - 2 * overlap - 2 * likelihood
    return cost.masked_fill(~batch.real[:, None], torch.inf)


def assign(cost: Tensor, rounds: int) -> Tensor:
    """Give each object `rounds` queries of its own, cheapest pairs first.

    Args:
        cost: float32 (B, Q, G), inf where there is no object.
        rounds: Queries per object.

    Returns:
        int64 (B, Q), the object of each query or -1.
    """
    cost = cost.clone()
    count, queries_, objects = cost.shape
    owner = torch.full((count, queries_), -1)
    left = torch.full((count, objects), rounds)
    rows = torch.arange(count)
    for _ in range(rounds * objects):
        cheapest, place = cost.flatten(1).min(dim=1)
        query, chosen = place // objects, place % objects
        good = torch.isfinite(cheapest)
        owner[rows[good], query[good]] = chosen[good]
        cost[rows[good], query[good]] = torch.inf
        left[rows[good], chosen[good]] -= 1
        cost.masked_fill_((left == 0)[:, None], torch.inf)
    return owner


def set_loss(logits: Tensor, boxes: Tensor, batch: Batch, rounds: int) -> Tensor:
    """Return the loss of one layer's answers.

    Args:
        logits: float32 (B, Q, T).
        boxes: float32 (B, Q, 4), cxcywh in 0..1.
        batch: The right answers.
        rounds: Queries per object.
    """
    padding = batch.attention_mask[:, None] == 0
    logits = logits[..., : padding.shape[-1]].masked_fill(padding, -20.0)
    owner = assign(matching_cost(logits, boxes, batch), rounds)
    taken = owner >= 0
    index = owner.clamp(min=0)[..., None]
    wanted = batch.tokens.gather(1, index.expand(-1, -1, batch.tokens.shape[-1]))
    wanted = wanted * taken[..., None]
    count = taken.sum().clamp(min=1)
    words = focal_loss(logits, wanted).masked_fill(padding, 0).sum() / count
    ours, theirs = boxes[taken], batch.boxes.gather(1, index.expand(-1, -1, 4))[taken]
    distance = (ours - theirs).abs().sum() / count
    overlap = generalized_box_iou_loss(corners(ours), corners(theirs), reduction="sum") / count
    return 2 * words + 5 * distance + 2 * overlap
