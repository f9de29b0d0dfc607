"""Muon: momentum whose update is orthogonalised, for weight matrices.

Keller Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/ (coefficients from there).
The fused qkv weight is three matrices and is orthogonalised as three. torch has its own Muon from
2.9 on, one matrix at a time and without that split; here equal shapes are stacked and done at once.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

STEPS = 5  # of the Newton-Schulz iteration
MOMENTUM = 0.95  # decay of the running mean of the gradients


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring the larger singular values of every matrix near 1, into about [0.7, 1.2].

    Five steps do not reach the smallest, which stay below.

    Args:
        matrices: float (K, rows, columns).

    Returns:
        float (K, rows, columns) with the singular vectors of the input.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(
            x, torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315), x, beta=3.4445
        )
    return x.mT if tall else x


class Muon(Optimizer):
    """Optimise matrices with orthogonalised Nesterov momentum and decoupled weight decay."""

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """Take parameter groups; a group's `split` says how many matrices a weight stacks.

        Args:
            params: Groups of weights (rows, columns).
            lr: Learning rate: about the size of an update's singular values, times
                sqrt(rows / columns) where a matrix has more rows.
            weight_decay: Decoupled weight decay, multiplied by `lr`.
            precision: Type of the Newton-Schulz iterations; they stand the noise of bfloat16.
        """
        self.precision = precision
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "split": 1})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            changes = self._momentum(weights)
            # Lists of tensors at once: a GPU then waits for fewer and larger kernels.
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for weight, change in zip(weights, changes, strict=True):
                parts = (matrix.chunk(group["split"]) for matrix in (weight, change))
                for part, part_change in zip(*parts, strict=True):
                    shapes[part.shape].append((part, part_change))
            for shape, pairs in shapes.items():
                parts, stacked = [part for part, _ in pairs], torch.stack([c for _, c in pairs])
                updates = orthogonalize(stacked.to(self.precision)).float()
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                torch._foreach_sub_(parts, list(updates * (group["lr"] * scale)))

    def _momentum(self, weights: list[Tensor]) -> list[Tensor]:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        gradients = [weight.grad for weight in weights]
        torch._foreach_lerp_(buffers, gradients, 1 - MOMENTUM)
        return list(torch._foreach_lerp(gradients, buffers, MOMENTUM))
