"""Puts the scores of a detector on a known scale, so that the page's threshold suits it.

Platt 1999, "Probabilistic Outputs for Support Vector Machines": a logistic regression on the score.
Focal loss needs it most: it leaves right and wrong well apart but all scores low and close.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from grounding.demo.scenes import Query, Scene, make_scene, queries


def calibration_scenes(count: int, size: int) -> Iterator[tuple[Scene, list[Query]]]:
    """Yield scenes of `size` pixels, none of them held out, and what to ask each: 1 to 4 things."""
    for i in range(count):
        rng = np.random.default_rng((80_000, i))
        scene = make_scene(rng, size)
        yield scene, queries(scene, 1 + i % 4, i % 2 + i % 4 // 2, rng)


def held_out_scenes(count: int, size: int) -> Iterator[tuple[Scene, list[Query]]]:
    """Yield scenes on backgrounds that no training saw, and what to ask each.

    Six things, three of which are not there; what would say the same is asked once.
    """
    for i in range(count):
        rng = np.random.default_rng((90_000, i))
        scene = make_scene(rng, size, held_out=True)
        yield scene, queries(scene, 6, 3, rng)


def summary(hits: Tensor, present: Tensor, absent: Tensor) -> dict[str, float]:
    """Return how often the best box of a phrase is right, and how present and absent differ.

    Args:
        hits: bool (N,), of each present phrase: whether its best box has an IoU over .5 with an
            object meant.
        present: float (N,), the best scores of those phrases.
        absent: float (M,), the best scores of phrases that are not in their scenes.

    Returns:
        "top1", the share of hits, and "auc", the chance that a present phrase scores more than an
        absent one.
    """
    auc = (present[:, None] > absent).float().mean().item()
    return {"top1": round(hits.float().mean().item(), 4), "auc": round(auc, 4)}


def fit_sigmoid(logits: Tensor, right: Tensor, even: float = 0.5) -> tuple[float, float]:
    """Return scale and shift such that sigmoid(scale * logit + shift) tells right from wrong.

    Args:
        logits: float32 (N,).
        right: bool (N,).
        even: The score of an even chance; at .5 scores are the chances to be right.
    """
    parameters = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        adjusted = parameters[0] * logits + parameters[1]
        loss = F.binary_cross_entropy_with_logits(adjusted, right.float())
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    scale, shift = parameters.tolist()
    # A model that has learnt nothing yet must not have its scores turned over.
    return max(scale, 0.1), shift + math.log(even / (1 - even))
