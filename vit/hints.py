"""Hints: the patches of a student learn what a convolutional teacher sees in the same places.

FitNets (Romero et al., ICLR 2015, https://arxiv.org/abs/1412.6550) began with that; DearKD (Chen et
al., CVPR 2022, https://arxiv.org/abs/2204.12997) does it between a network of convolutions and a
transformer. Here nothing is trained in between: a fixed matrix brings the teacher's channels to the
width of a token. How they are turned by that is all the same to the student, whose tokens have no
directions of their own; of more channels than a token is wide, a part is lost.

Axes: B batch, C channels, D embed_dim, g grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit.model import ViTConfig

DEPTHS = (1 / 3, 2 / 3, 1.0)  # after which share of the blocks each of a teacher's maps is learnt


class Hint(nn.Module):
    """How far patches are from one map of the teacher."""

    def __init__(self, features: Tensor, embed_dim: int) -> None:
        """Measure the channels of the map's features (N, C, h, w) of some pictures."""
        super().__init__()
        deviation = features.std((0, 2, 3), correction=0)
        # A channel that is all but dead would have the loudest voice otherwise.
        deviation = deviation.clamp(min=max(0.01 * float(deviation.mean()), 1e-6))
        turn = torch.empty(features.shape[1], embed_dim)
        nn.init.orthogonal_(turn, generator=torch.Generator().manual_seed(0))
        self.register_buffer("mean", features.mean((0, 2, 3)))
        self.register_buffer("turn", turn.to(features.device) / deviation[:, None])

    def forward(self, patches: Tensor, features: Tensor) -> Tensor:
        """Return 1 minus the cosine similarity, the mean of the patches, summed over the batch.

        Args:
            patches: (B, g * g, D), row by row.
            features: (B, C, h, w) of the same pictures.
        """
        side = round(patches.shape[1] ** 0.5)
        if side < features.shape[2]:
            placed = F.adaptive_avg_pool2d(features.float(), side)
        else:
            placed = F.interpolate(features.float(), (side, side), mode="bilinear")
        wanted = (placed.flatten(2).mT - self.mean) @ self.turn  # (B, g * g, D)
        return (1 - F.cosine_similarity(patches.float(), wanted, dim=-1)).mean(1).sum()


class Hints(nn.Module):
    """How far the patches of a student are from all maps of its teacher."""

    def __init__(self, maps: tuple[Tensor, ...], config: ViTConfig, weight: float) -> None:
        """Measure the teacher's maps.

        Args:
            maps: Its features (N, C, h, w) of some pictures, one for each of DEPTHS; C may differ.
            config: The student's sizes.
            weight: Factor on the loss.
        """
        super().__init__()
        self.prefix, self.weight = config.num_prefix_tokens, weight
        self.blocks = [max(1, round(share * config.depth)) for share in DEPTHS]
        self.each = nn.ModuleList(Hint(features, config.embed_dim) for features in maps)

    def forward(self, tokens: list[Tensor], maps: tuple[Tensor, ...]) -> Tensor:
        """Return the loss, summed over the batch: `weight` times 0 (alike) to 2 for every map.

        Args:
            tokens: The student's tokens (B, prefix + g * g, D) after every block.
            maps: The teacher's features (B, C, h, w) of the same pictures.
        """
        patches = [tokens[block - 1][:, self.prefix :] for block in self.blocks]
        losses = [hint(*pair) for hint, *pair in zip(self.each, patches, maps, strict=True)]
        return self.weight * torch.stack(losses).sum()
