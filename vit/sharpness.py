"""Sharpness-aware minimisation: follow the gradient of the worst weights nearby, not of those here.

Foret et al., ICLR 2021 (https://arxiv.org/abs/2010.01412). It costs a second forward and backward
pass, in which dropout, if there is any, draws other masks. Vision Transformers gain more by it than
convolutional networks: Chen et al., ICLR 2022 (https://arxiv.org/abs/2106.01548).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm


@contextmanager
def uphill(weights: Iterable[Tensor], rho: float) -> Iterator[None]:
    """Move all weights by `rho` to where the loss is higher, and back at the end of the block.

    They come back but for the rounding of both moves.

    Args:
        weights: The weights; those without a gradient stay.
        rho: Length of the way in the space of all of them, along their gradient.
    """
    moved = [weight for weight in weights if weight.grad is not None]
    gradients = [weight.grad for weight in moved]
    ways = torch._foreach_mul(gradients, rho / (get_total_norm(gradients) + 1e-12))
    with torch.no_grad():
        torch._foreach_add_(moved, ways)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_sub_(moved, ways)
