"""From GLIP's raw detections to boxes: anchors, decoding, phrase scores, non-maximum suppression.

Boxes are xyxy with both corners inside, as in the first Faster R-CNN code: a box from 0 to 63 is 64
wide. Those +1 and -1 belong to the released weights. The suppression is that of the official CUDA
code; its CPU branch returns wrong boxes.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from grounding.grounders.glip.config import ANCHOR_SIZES, STRIDES
from grounding.grounders.glip.model import RawDetections

SCORE_THRESHOLD = 0.05
CANDIDATES_PER_LEVEL = 1000
NMS_IOU = 0.6
MAX_DETECTIONS = 100
LARGEST_GROWTH = math.log(1000 / 16)


class Detections(NamedTuple):
    """Hold what was found in one picture, best first.

    Attributes:
        boxes: float (K, 4), xyxy in pixels of the network's input.
        scores: float (K,) in [0, 1].
        labels: int64 (K,), the number of the phrase, from 0.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def anchors(height: int, width: int, stride: int, size: int) -> Tensor:
    """Return one square anchor for each position, float (height * width, 4), row by row.

    >>> anchors(1, 2, stride=8, size=64).tolist()
    [[-28.0, -28.0, 35.0, 35.0], [-20.0, -28.0, 43.0, 35.0]]
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = torch.stack((x, y), dim=-1).view(-1, 2) * stride + (stride - 1) / 2
    return torch.cat((centre - (size - 1) / 2, centre + (size - 1) / 2), dim=1)


def decode(deltas: Tensor, anchor: Tensor) -> Tensor:
    """Move and stretch anchors (K, 4) by what the network says (K, 4); return boxes (K, 4)."""
    size = anchor[:, 2:] - anchor[:, :2] + 1
    centre = (anchor[:, :2] + anchor[:, 2:]) / 2 + deltas[:, :2] / 10 * size
    size = (deltas[:, 2:] / 5).clamp(max=LARGEST_GROWTH).exp() * size
    return torch.cat((centre - (size - 1) / 2, centre + (size - 1) / 2), dim=1)


def phrase_scores(logits: Tensor, positive: Tensor) -> Tensor:
    """Return the mean score of each phrase's tokens at each position.

    Args:
        logits: float (K, T).
        positive: bool (P, T), the tokens of each phrase.

    Returns:
        float (K, P) in [0, 1]; 0 for a phrase without tokens.
    """
    weights = positive / positive.sum(1, keepdim=True).clamp(min=1)
    return logits.sigmoid() @ weights.to(logits.dtype).T


def detect(raw: RawDetections, sample: int, positive: Tensor, size: tuple[int, int]) -> Detections:
    """Return what a picture shows.

    Args:
        raw: Output of the network for a batch.
        sample: Which picture of the batch.
        positive: bool (P, T), the tokens of each phrase.
        size: Width and height of the picture in the input, without padding.
    """
    parts = zip(raw.logits, raw.deltas, raw.centerness, STRIDES, ANCHOR_SIZES, strict=True)
    levels = [
        _candidates(
            phrase_scores(logits[sample], positive),
            deltas[sample],
            centerness[sample],
            anchors(*deltas.shape[-2:], stride, side).to(deltas),
        )
        for logits, deltas, centerness, stride, side in parts
    ]
    boxes, scores, labels = (torch.cat(values) for values in zip(*levels, strict=True))
    limit = boxes.new_tensor([size[0] - 1, size[1] - 1] * 2)
    boxes = boxes.clamp(min=0).minimum(limit)
    kept = _best(scores, _suppress(boxes, scores, labels))
    return Detections(boxes[kept], scores[kept], labels[kept])


def _candidates(
    scores: Tensor, deltas: Tensor, centerness: Tensor, anchor: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes, scores and labels of one level's best pairs of position and phrase."""
    # The threshold counts before the centerness, the order after it.
    places = (scores > SCORE_THRESHOLD).nonzero()
    rank = scores[places[:, 0], places[:, 1]] * centerness.flatten().sigmoid()[places[:, 0]]
    rank, order = rank.topk(min(CANDIDATES_PER_LEVEL, len(rank)))
    position, label = places[order].unbind(1)
    boxes = decode(deltas.flatten(1).T[position], anchor[position])
    return boxes, rank.sqrt(), label


def _suppress(boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Return the numbers of the boxes that no better one of the same phrase covers."""
    outer = boxes + boxes.new_tensor([0, 0, 1, 1])  # torchvision's boxes end outside
    return batched_nms(outer, scores, labels, NMS_IOU)


def _best(scores: Tensor, kept: Tensor) -> Tensor:
    """Sort the numbers by score and cut them off after the hundredth, but never between equals."""
    kept = kept[scores[kept].argsort(descending=True, stable=True)]
    if len(kept) <= MAX_DETECTIONS:
        return kept
    return kept[scores[kept] >= scores[kept[MAX_DETECTIONS - 1]]]
