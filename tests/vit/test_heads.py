import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from vit.heads import attention_distance, attention_entropy, head_maps, patch_maps


def attentions(prefix: int, grid: int = 3) -> Tensor:
    """Softmax weights (2 layers, 2 heads, N, N)."""
    tokens, generator = prefix + grid**2, torch.Generator().manual_seed(5)
    return torch.randn(2, 2, tokens, tokens, generator=generator).double().softmax(dim=-1)


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_distance_and_entropy_equal_a_slow_reference(prefix: int) -> None:
    weights, grid, patch = attentions(prefix), 3, 4
    distance, entropy = attention_distance(weights, grid, patch), attention_entropy(weights)
    for layer in range(2):
        for head in range(2):
            matrix = weights[layer, head].numpy()
            far = []
            for i in range(9):
                row = matrix[prefix + i, prefix:]
                steps = [math.dist(divmod(i, 3), divmod(j, 3)) * patch for j in range(9)]
                far.append(sum(w * s for w, s in zip(row, steps, strict=True)) / sum(row))
            assert float(distance[layer, head]) == pytest.approx(np.mean(far))
            bits = [-sum(w * math.log2(w) for w in row) for row in matrix]
            assert float(entropy[layer, head]) == pytest.approx(np.mean(bits))


def test_a_head_that_looks_at_one_place_has_no_entropy() -> None:
    assert float(attention_entropy(torch.eye(5))) == 0
    assert float(attention_distance(torch.eye(4)[None, None], 2, 4)[0, 0]) == 0


@pytest.mark.parametrize(
    ("prefix", "rows"),
    [
        (0, slice(None)),  # pooled: all patches
        (1, slice(0, 1)),  # class token
        (2, slice(0, 2)),  # class and distillation token
    ],
)
def test_head_maps_start_where_the_answer_is_read(prefix: int, rows: slice) -> None:
    weights = attentions(prefix)
    maps = head_maps(weights, 3)
    assert maps.shape == (2, 2, 3, 3)
    torch.testing.assert_close(maps[1, 0].flatten(), weights[1, 0, rows, prefix:].mean(0))


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("patch", [0, 5, 8])
def test_patch_maps_are_row_and_column(prefix: int, patch: int) -> None:
    weights = attentions(prefix)
    looks, seen_by = patch_maps(weights, 3, patch)
    mean = weights.mean(1)
    for place in range(9):
        at = divmod(place, 3)
        assert torch.equal(looks[:, *at], mean[:, prefix + patch, prefix + place])
        assert torch.equal(seen_by[:, *at], mean[:, prefix + place, prefix + patch])


@pytest.mark.parametrize("patch", [-1, 9])
def test_no_such_patch(patch: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"patch {patch} was asked for; choose 0 to 8")):
        patch_maps(attentions(1), 3, patch)
