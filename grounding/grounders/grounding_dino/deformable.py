"""Multi-scale deformable attention for a CPU.

Zhu et al., ICLR 2021, "Deformable DETR" (https://arxiv.org/abs/2010.04159), equation 3: a query
looks at a few points of every level of a feature pyramid, between the pixels. transformers copies
each level into another layout, samples it, stacks all samples and then weighs them. Here the values
stay where they are: they are the rows of one table, and what a query's head sees is a weighted sum
of rows, four neighbours a point, which is what `embedding_bag` computes with vector instructions.

Axes: B batch, S pixels of all levels, Q queries, h heads, d width of a head, L levels, P points.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Queries at a time: few enough that the numbers of their neighbours stay in the cache.
CHUNK = 1024


class DeformableAttention(nn.Module):
    """Do what transformers' `MultiScaleDeformableAttention` does, which has no weights."""

    def forward(
        self,
        value: Tensor,
        value_spatial_shapes: Tensor,
        value_spatial_shapes_list: Any,
        level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int,
    ) -> Tensor:
        """Return what each query sees, (B, Q, h*d).

        Args:
            value: float (B, S, h, d).
            value_spatial_shapes: int64 (L, 2), height and width of each level.
            value_spatial_shapes_list: The same as numbers; not needed.
            level_start_index: int64 (L,), where each level starts in S.
            sampling_locations: float (B, Q, h, L, P, 2), x and y, [0, 1] inside the picture.
            attention_weights: float (B, Q, h, L, P).
            im2col_step: For a kernel on GPUs; not needed.
        """
        grid = _Grid(value_spatial_shapes, level_start_index, *sampling_locations.shape[2:5:2])
        seen = [
            torch.cat([_look(*part, grid) for part in _chunks(*one)])
            for one in zip(value, sampling_locations, attention_weights, strict=True)
        ]
        return torch.stack(seen)


class _Grid:
    """The pyramid's sizes, spelt out for each of the K = h*L*P points of a query."""

    def __init__(self, shapes: Tensor, starts: Tensor, heads: int, points: int) -> None:
        def spread(levels: Tensor) -> Tensor:
            return levels.float().repeat_interleave(points).repeat(heads)  # (K,)

        self.height, self.width = spread(shapes[:, 0]), spread(shapes[:, 1])
        head = torch.arange(heads).repeat_interleave(points * len(shapes))
        # A table's row number is exact in float32: it is far below 2**24.
        self.first, self.heads = spread(starts) * heads + head, heads


def _chunks(table: Tensor, places: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the table (S, h, d) with some queries' places (q, K, 2) and weights (q, K)."""
    parts = zip(places.flatten(1, 3).split(CHUNK), weights.flatten(1).split(CHUNK), strict=True)
    return ((table, *part) for part in parts)


def _look(table: Tensor, places: Tensor, weights: Tensor, grid: _Grid) -> Tensor:
    """Return what some queries see, (q, h*d)."""
    columns = _neighbours(places[..., 0], grid.width)
    rows = _neighbours(places[..., 1], grid.height)
    seen = table.new_zeros(len(places) * grid.heads, table.shape[-1])
    for row, row_share in rows:
        start = row.mul_(grid.width * grid.heads).add_(grid.first)
        row_weight = row_share.mul_(weights)
        for column, column_share in columns:
            seen += F.embedding_bag(
                torch.add(start, column, alpha=grid.heads).int().view(len(seen), -1),
                table.flatten(0, 1),
                mode="sum",
                per_sample_weights=(row_weight * column_share).view(len(seen), -1),
            )
    return seen.view(len(places), -1)


def _neighbours(places: Tensor, size: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return two neighbours of places on an axis, and how much each counts.

    Both lie inside, where there are two: so one that is 1 or more away counts nothing, and neither
    does what lies outside.

    Args:
        places: (q, K), [0, 1] inside the picture.
        size: (K,), the number of pixels on the axis, as floats.

    Returns:
        Twice: number of a pixel (q, K), as floats, and its share (q, K).
    """
    places = places * size - 0.5  # the centres of the pixels are the whole numbers
    another = (size > 1).float()  # a single pixel has no neighbour
    low = places.floor().clamp_(min=0).minimum(size - 1 - another)
    high = low + another
    return [(low, _share(places, low)), (high, _share(places, high).mul_(another))]


def _share(places: Tensor, pixels: Tensor) -> Tensor:
    return (places - pixels).abs_().neg_().add_(1).clamp_(min=0)
