"""What single heads do, in numbers and for single tokens. Axes as in `vit.rollout`."""

import math

import torch
from torch import Tensor

from vit.rollout import answer_row


def attention_distance(attentions: Tensor, grid: int, patch_size: int) -> Tensor:
    """Return how far every head looks, as in appendix D.7 of the ViT paper.

    That is the distance between the centres of the looking patch and the patch it looks at,
    weighted with the attention and averaged over the looking patches. Prefix tokens have no place
    and are left out.

    Args:
        attentions: float (L, h, N, N) of one picture.
        grid: Number of patches along one side.
        patch_size: Side of a patch in pixels.

    Returns:
        float (L, h), in pixels of the picture that the model saw.
    """
    prefix = attentions.shape[-1] - grid**2
    axis = torch.arange(grid, dtype=attentions.dtype) * patch_size
    places = torch.cartesian_prod(axis, axis)
    weights = attentions[..., prefix:, prefix:]
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return (weights * torch.cdist(places, places)).sum(dim=-1).mean(dim=-1)


def attention_entropy(attentions: Tensor) -> Tensor:
    """Return how spread out the attention of every head is.

    Args:
        attentions: float (..., N, N), rows sum to 1.

    Returns:
        float (...), bits, mean over the rows: 0 for a single token, log2(N) for all alike.

    >>> attention_entropy(torch.full((2, 8, 8), 1 / 8))
    tensor([3.0000, 3.0000])
    """
    nats = torch.special.entr(attentions).sum(dim=-1)
    return nats.mean(dim=-1) / math.log(2)


def head_maps(attentions: Tensor, grid: int) -> Tensor:
    """Return where the tokens that the answer is read from look, per head.

    Args:
        attentions: float (L, h, N, N) of one picture.
        grid: Number of patches along one side.

    Returns:
        float (L, h, g, g), not stretched.
    """
    row = answer_row(attentions, attentions.shape[-1] - grid**2)
    return row.unflatten(-1, (grid, grid))


def patch_maps(attentions: Tensor, grid: int, patch: int) -> tuple[Tensor, Tensor]:
    """Return where one patch looks, and who looks at it, in every layer (mean of the heads).

    Args:
        attentions: float (L, h, N, N) of one picture.
        grid: Number g of patches along one side.
        patch: Index of the patch in [0, g * g), row by row.

    Returns:
        float (L, g, g) twice: the patch's row of the attention, and its column.

    Raises:
        ValueError: If there is no such patch.
    """
    if not 0 <= patch < grid**2:
        raise ValueError(f"patch {patch} was asked for; choose 0 to {grid**2 - 1}")
    layers, prefix = attentions.mean(dim=1), attentions.shape[-1] - grid**2
    looks, seen_by = layers[:, prefix + patch, prefix:], layers[:, prefix:, prefix + patch]
    return looks.unflatten(-1, (grid, grid)), seen_by.unflatten(-1, (grid, grid))
