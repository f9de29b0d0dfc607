"""The visual part of a head block: dynamic convolutions over the five levels of the pyramid.

Dai et al., CVPR 2021, "Dynamic Head" (https://arxiv.org/abs/2106.08322), as GLIP uses it: every
level is convolved together with its neighbours by modulated deformable convolutions (Zhu et al.
2019, https://arxiv.org/abs/1811.11168), the branches are weighted, and a dynamic ReLU (Chen et al.
2020, https://arxiv.org/abs/2003.10027) follows.

Axes: B batch, C channels, H W the map of one level.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grounding.grounders.glip.deform import TAPS, deform_conv

GROUPS = 16


def prefix_view(x: Tensor, height: int, width: int) -> Tensor:
    """Read the first numbers of each sample's memory as if it were a smaller map.

    Args:
        x: (B, K, H, W).
        height: Height of the smaller map.
        width: Width of the smaller map.

    Returns:
        (B, K, height, width), not a crop: rows and channels run on as they lie in memory.
    """
    count = x.shape[1] * height * width
    return x.flatten(1)[:, :count].reshape(len(x), -1, height, width)


class DeformConv(nn.Module):
    """A modulated deformable 3x3 convolution and its group normalisation."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(channels, channels, 3, stride, padding=1)  # holds the weights only
        self.bn = nn.GroupNorm(GROUPS, channels)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """Convolve (B, C, H, W) at `offset` (B, 18, h, w), weighted by `mask` (B, 9, h, w)."""
        out = deform_conv(x, offset, mask, self.conv.weight, self.conv.bias, self.stride)
        return self.bn(out)


class DynamicReLU(nn.Module):
    """The larger of two lines, whose slopes and heights depend on the whole map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.ReLU(), nn.Linear(channels // 4, 4 * channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same."""
        lines = F.relu6(self.fc(x.mean((2, 3))) + 3) / 6 - 0.5
        slope1, height1, slope2, height2 = lines[:, :, None, None].chunk(4, dim=1)
        return torch.maximum(x * (2 * slope1 + 1) + height1, x * (2 * slope2) + height2)


class DyConv(nn.Module):
    """One dynamic convolution; its weights are the same for all levels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.DyConv = nn.ModuleList(DeformConv(channels, stride) for stride in (1, 1, 2))
        self.offset = nn.Conv2d(channels, 3 * TAPS, 3, padding=1)
        self.AttnConv = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 1, 1), nn.ReLU())
        self.relu = DynamicReLU(channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map five levels (B, C, H, W), finest first, to the same shapes."""
        return [self._level(maps, level) for level in range(len(maps))]

    def _level(self, maps: list[Tensor], level: int) -> Tensor:
        coarser, same, finer = self.DyConv
        x = maps[level]
        shift = self.offset(x).float()
        offset, mask = shift[:, : 2 * TAPS], shift[:, 2 * TAPS :].sigmoid()
        branches = [same(x, offset, mask)]
        if level > 0:
            branches.append(finer(maps[level - 1], offset, mask))
        if level + 1 < len(maps):
            size = maps[level + 1].shape[-2:]
            # The CUDA kernel reads the offsets of this level as if they had the coarser level's
            # size, and the released weights are trained with that.
            out = coarser(maps[level + 1], prefix_view(offset, *size), prefix_view(mask, *size))
            # align_corners is what GLIP was trained with, too.
            branches.append(F.interpolate(out, x.shape[-2:], mode="bilinear", align_corners=True))
        weighted = [F.relu6(self.AttnConv(branch) + 3) / 6 * branch for branch in branches]
        return self.relu(torch.stack(weighted).mean(0))
