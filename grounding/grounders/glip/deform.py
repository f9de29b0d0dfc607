"""The modulated deformable 3x3 convolution (Zhu et al. 2019, https://arxiv.org/abs/1811.11168).

torchvision has it, and on a GPU its kernel is the one to use. On a CPU it takes the samples one
number at a time; here a sample is a weighted sum of four rows of a table (the pixels, channels
last), which is what `embedding_bag` does with vector instructions on all cores, and the rest is one
matrix product. benchmarks/stages.py measures it within GLIP-T.

Axes: C channels, H W the input map, h w the output map, K = 9 taps, row by row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

TAPS = 9


def deform_conv(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, stride: int
) -> Tensor:
    """Convolve with a 3x3 kernel whose taps are moved and weighted; padding is 1.

    Args:
        x: float (B, C, H, W).
        offset: float (B, 2K, h, w), the shift of each tap, y before x, in pixels.
        mask: float (B, K, h, w), the weight of each tap.
        weight: float (D, C, 3, 3).
        bias: float (D,).
        stride: Step of the output in the input.

    Returns:
        float (B, D, h, w).
    """
    if x.device.type != "cpu":
        return deform_conv2d(x, offset, weight, bias, stride, padding=1, mask=mask)
    kernel = weight.permute(0, 2, 3, 1).flatten(1)  # (D, K*C)
    columns = [_columns(*sample, stride) for sample in zip(x, offset, mask, strict=True)]
    out = F.linear(torch.stack(columns), kernel, bias)  # (B, h*w, D)
    return out.mT.unflatten(2, offset.shape[-2:])


def _columns(x: Tensor, offset: Tensor, mask: Tensor, stride: int) -> Tensor:
    """Return what each output position sees, (h*w, K*C)."""
    channels, height, width = x.shape
    y, x_ = _places(offset, stride)
    top, left = y.floor(), x_.floor()
    rows, weights = [], []
    for row, row_weight in ((top, top + 1 - y), (top + 1, y - top)):
        for column, column_weight in ((left, left + 1 - x_), (left + 1, x_ - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            rows.append(row.clamp(0, height - 1) * width + column.clamp(0, width - 1))
            weights.append(row_weight * column_weight * mask * inside)
    table = x.flatten(1).T.contiguous()
    corners, shares = (torch.stack(parts, dim=-1).permute(1, 2, 0, 3) for parts in (rows, weights))
    columns = F.embedding_bag(
        corners.reshape(-1, 4).long(),
        table,
        mode="sum",
        per_sample_weights=shares.reshape(-1, 4).to(table.dtype),
    )
    return columns.view(-1, TAPS * channels)


def _places(offset: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Return where in the input each tap of each output position looks: y and x (K, h, w)."""
    dy, dx = offset.unflatten(0, (TAPS, 2)).unbind(1)
    tap = torch.arange(-1.0, 2.0)
    y = stride * torch.arange(offset.shape[1])[:, None] + tap.repeat_interleave(3)[:, None, None]
    x = stride * torch.arange(offset.shape[2]) + tap.repeat(3)[:, None, None]
    return y + dy, x + dx
