import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vit.model import ViT
from vit.rollout import HEAD_FUSIONS, attention_map, attention_rollout, stretch


def attentions(layers: int = 3, batch: int = 2, heads: int = 4, tokens: int = 17) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    scores = torch.randn(layers, batch, heads, tokens, tokens, generator=generator)
    return (2 * scores).softmax(dim=-1)


def slow_rollout(weights: np.ndarray, fusion: str, ratio: float, prefix: int) -> np.ndarray:
    """Follow the paper for one picture (L, h, N, N), number by number."""
    fuse = {"mean": np.mean, "max": np.max, "min": np.min}[fusion]
    layers, _, tokens, _ = weights.shape
    result = np.eye(tokens)
    for layer in range(layers):
        matrix = np.zeros((tokens, tokens))
        for row in range(tokens):
            values = [fuse(weights[layer, :, row, column]) for column in range(tokens)]
            patches = sorted(range(prefix, tokens), key=lambda column, v=values: v[column])
            for column in patches[: int(ratio * (tokens - prefix))]:
                values[column] = 0.0
            for column in range(tokens):
                matrix[row, column] = 0.5 * values[column] / sum(values) + 0.5 * (row == column)
        result = matrix @ result  # later layers on the left
    return result


@pytest.mark.parametrize("fusion", HEAD_FUSIONS)
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_equals_a_slow_reference(fusion: str, ratio: float, prefix: int) -> None:
    """vit-explain discards in the first picture of a batch only, and the lowest of all its rows."""
    weights = attentions().double()
    got = attention_rollout(weights, fusion, ratio, prefix)
    for i in range(2):
        by_hand = slow_rollout(weights[:, i].numpy(), fusion, ratio, prefix)
        np.testing.assert_allclose(got[i], by_hand)


def test_order_of_the_layers() -> None:
    """Token 0 reads token 1 in the last layer, which has read token 2 in the first."""
    first, last = torch.eye(3), torch.eye(3)
    first[1] = torch.tensor([0.0, 0.0, 1.0])
    last[0] = torch.tensor([0.0, 1.0, 0.0])
    both = torch.stack((first, last)).view(2, 1, 1, 3, 3)
    assert attention_rollout(both)[0, 0].tolist() == [0.5, 0.25, 0.25]
    assert attention_rollout(both.flip(0))[0, 0].tolist() == [0.5, 0.5, 0.0]


def test_min_fusion_of_heads_that_share_nothing() -> None:
    """All fused weights are 0: the token keeps only what it has; no division by 0."""
    apart = torch.stack((torch.eye(4), torch.eye(4).roll(1, 0))).view(1, 1, 2, 4, 4)
    assert torch.equal(attention_rollout(apart, "min"), torch.eye(4)[None])


def test_the_input_is_left_alone() -> None:
    weights = attentions(heads=1)
    attention_rollout(weights, "max", 0.9)
    assert torch.equal(weights, attentions(heads=1))


@pytest.mark.parametrize("options", [{}, {"pool": "mean"}, {"pool": "seq"}, {"distilled": True}])
def test_on_a_model(make_model: Callable[..., ViT], options: dict[str, Any]) -> None:
    model = make_model(**options)
    prefix = model.config.num_prefix_tokens
    _, weights = model.forward_with_attention(torch.rand(2, 3, 8, 8))
    rollout = attention_rollout(weights, "mean", 0.5, prefix)
    assert attention_map(rollout, 4, prefix).shape == (2, 4, 4)


@pytest.mark.parametrize(
    ("shape", "fusion", "ratio", "prefix", "message"),
    [
        (
            (2, 3, 5, 5),
            "mean",
            0,
            1,
            "attentions have shape (2, 3, 5, 5); expected (L, B, h, N, N)",
        ),
        ((2, 1, 3, 5, 4), "mean", 0, 1, "attentions have shape (2, 1, 3, 5, 4)"),
        ((0, 1, 3, 5, 5), "mean", 0, 1, "attentions have shape (0, 1, 3, 5, 5)"),  # no layers
        (
            (2, 1, 3, 5, 5),
            "sum",
            0,
            1,
            "head_fusion is 'sum'; choose one of ('mean', 'max', 'min')",
        ),
        ((2, 1, 3, 5, 5), "mean", 1.0, 1, "discard_ratio is 1.0; it must be in [0, 1)"),
        ((2, 1, 3, 5, 5), "mean", -0.1, 1, "discard_ratio is -0.1"),
        ((2, 1, 3, 5, 5), "mean", float("nan"), 1, "discard_ratio is nan"),
        ((2, 1, 3, 5, 5), "mean", 0, 5, "num_prefix_tokens is 5; of 5 tokens it is impossible"),
        ((2, 1, 3, 5, 5), "mean", 0, -1, "num_prefix_tokens is -1"),
    ],
)
def test_bad_arguments(
    shape: tuple[int, ...], fusion: str, ratio: float, prefix: int, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        attention_rollout(torch.zeros(shape), fusion, ratio, prefix)


def test_map_is_the_class_tokens_row() -> None:
    rollout = torch.zeros(2, 5, 5)
    rollout[0, 0] = torch.tensor([0.9, 0.1, 0.2, 0.3, 0.5])
    rollout[1, 0] = torch.tensor([0.0, 0.4, 0.2, 0.3, 0.2])
    expected = torch.tensor([[[0, 0.25], [0.5, 1]], [[1, 0], [0.5, 0]]])
    torch.testing.assert_close(attention_map(rollout, 2), expected)


def test_map_is_the_mean_of_class_and_distillation_token() -> None:
    """Both heads share the answer, and neither token is a patch."""
    rollout = torch.zeros(1, 6, 6)
    rollout[0, 0] = torch.tensor([0.1, 0.9, 0.1, 0.2, 0.3, 0.1])
    rollout[0, 1] = torch.tensor([7.0, 7.0, 0.1, 0.2, 0.3, 0.9])
    expected = torch.tensor([[[0, 0.25], [0.5, 1]]])
    torch.testing.assert_close(attention_map(rollout, 2, 2), expected)


def test_map_without_prefix_is_the_mean_of_all_rows() -> None:
    rollout = torch.zeros(1, 4, 4)
    rollout[0, 1] = torch.tensor([0.4, 0.0, 0.4, 0.8])
    rollout[0, 2] = torch.tensor([0.0, 0.2, 0.0, 0.0])
    expected = torch.tensor([[[1 / 3, 0], [1 / 3, 1]]])
    torch.testing.assert_close(attention_map(rollout, 2, 0), expected)


@pytest.mark.parametrize("value", [0.0, 0.2, 1 / 3])
def test_flat_map_is_zero(value: float) -> None:
    rollout = torch.full((1, 5, 5), value)
    rollout[0, 0, 2] *= 1 + 1e-7  # rounding, nothing to stretch
    assert torch.equal(attention_map(rollout, 2), torch.zeros(1, 2, 2))


@pytest.mark.parametrize(
    ("shape", "prefix", "tokens"),
    [
        ((5, 5), 1, 5),  # no batch axis
        ((1, 5, 6), 1, 5),
        ((1, 4, 4), 1, 5),  # of a model without class token
        ((1, 5, 5), 2, 6),
        ((1, 5, 5), 0, 4),
    ],
)
def test_map_of_another_grid(shape: tuple[int, ...], prefix: int, tokens: int) -> None:
    message = f"{shape}; grid 2 with {prefix} prefix tokens expects (B, {tokens}, {tokens})"
    with pytest.raises(ValueError, match=re.escape(message)):
        attention_map(torch.zeros(shape), 2, prefix)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_faint_map_is_stretched_as_a_strong_one(size: float) -> None:
    maps = size * torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])
    torch.testing.assert_close(stretch(maps), torch.tensor([[[0, 0.25], [0.5, 1]]]))
