"""Dropout of single activations, of whole residual branches and of patches, fast on CPUs.

torch samples Bernoulli numbers on CPUs in one thread, at 5 ns each, which is a third of a training
step (https://github.com/pytorch/pytorch/issues/138199). Multiplying by a slice of a pool that was
drawn once costs 1 % of that. Which slice follows from torch's generator, so `torch.manual_seed`
still decides everything.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn

SHIFTS = 2**20  # places at which a slice of the pool may begin
FEWEST_BLOCKS = 8  # so that all parts of a usual model share one pool


@lru_cache(maxsize=8)
def multiplier_pool(p: float, blocks: int, dtype: torch.dtype) -> Tensor:
    """Return (blocks * SHIFTS,) random multipliers: 0 with probability p, else 1 / (1 - p).

    The same arguments give the same values in every process.
    """
    generator = torch.Generator().manual_seed(0)
    pool = torch.empty(blocks * SHIFTS, dtype=dtype)
    return pool.bernoulli_(1 - p, generator=generator).div_(1 - p)


class Dropout(nn.Dropout):
    """Set each activation to 0 with probability p in training and scale the others up."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a float tensor of any shape to the same shape and dtype."""
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        blocks = max(FEWEST_BLOCKS, 1 + -(-x.numel() // SHIFTS))
        start = int(torch.randint(SHIFTS, ()))
        return x * multiplier_pool(self.p, blocks, x.dtype)[start:][: x.numel()].view(x.shape)


class DropPath(nn.Dropout):
    """Skip a residual branch for each image with probability p in training.

    Stochastic depth of Huang et al., ECCV 2016 (https://arxiv.org/abs/1603.09382), with the kept
    branches scaled up so that nothing changes in eval mode.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map a branch's output (B, N, D) to the same, all 0 for some of the B images."""
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.p
        return x * kept.to(x.dtype).div_(1 - self.p)


class PatchDropout(nn.Module):
    """Leave out the share p of the patches of each image in training, others for each image.

    So a step takes less time: Liu et al., WACV 2023, "PatchDropout: Economizing Vision Transformers
    Using Patch Dropout" (https://arxiv.org/abs/2208.07220).

    Args:
        prefix: Number of tokens before the patches, which all stay.
    """

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.p, self.prefix = 0.0, prefix

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, prefix + N, D) to (B, prefix + round((1 - p) N), D), one patch at least."""
        if not self.training or self.p == 0:
            return x
        first, patches = x.tensor_split((self.prefix,), dim=1)
        kept = max(1, round((1 - self.p) * patches.shape[1]))
        chosen = torch.rand(patches.shape[:2], device=x.device).topk(kept).indices
        return torch.cat(
            (first, patches.gather(1, chosen[..., None].expand(-1, -1, x.shape[2]))), 1
        )
