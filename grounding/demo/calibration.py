"""Puts the scores of a model on a known scale, so that the page's threshold suits it.

Platt 1999, "Probabilistic Outputs for Support Vector Machines": a logistic regression on the score.
Focal loss needs it most: it leaves right and wrong well apart but all scores low and close.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


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
