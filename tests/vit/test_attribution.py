import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vit.attribution import (
    attention_gradients,
    gradient_rollout,
    raw_attention,
    transformer_attribution,
)
from vit.model import ViT
from vit.rollout import attention_map, attention_rollout

KINDS: list[dict[str, Any]] = [{}, {"pool": "mean"}, {"pool": "seq"}, {"distilled": True}]
LAYERS, BATCH, HEADS, TOKENS = 3, 2, 4, 6


def random_pair() -> tuple[Tensor, Tensor]:
    """Attentions and gradients (L, B, h, N, N), as large as nested loops can bear."""
    generator = torch.Generator().manual_seed(3)
    scores, gradients = torch.randn(
        2, LAYERS, BATCH, HEADS, TOKENS, TOKENS, generator=generator, dtype=torch.float64
    )
    return scores.softmax(dim=-1), gradients


def slow_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    size = len(left)
    out = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            out[i, j] = sum(left[i, k] * right[k, j] for k in range(size))
    return out


def slow_weighted(attention: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """One layer (h, N, N) of one picture: positive part of each number, then mean of the heads."""
    out = np.zeros((TOKENS, TOKENS))
    for i in range(TOKENS):
        for j in range(TOKENS):
            for head in range(HEADS):
                out[i, j] += max(0.0, attention[head, i, j] * gradient[head, i, j]) / HEADS
    return out


def slow_gradient_rollout(attentions: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    result = np.eye(TOKENS)
    for attention, gradient in zip(attentions, gradients, strict=True):
        layer = slow_weighted(attention, gradient)
        for i in range(TOKENS):
            layer[i] = 0.5 * layer[i] / sum(layer[i])
            layer[i, i] += 0.5
        result = slow_product(layer, result)
    return result


def slow_transformer_attribution(attentions: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    result = np.eye(TOKENS)
    for attention, gradient in zip(attentions, gradients, strict=True):
        result = result + slow_product(slow_weighted(attention, gradient), result)
    return result


@pytest.mark.parametrize(
    ("fast", "slow"),
    [
        (gradient_rollout, slow_gradient_rollout),
        (transformer_attribution, slow_transformer_attribution),
    ],
)
def test_equals_a_slow_reference(fast: Callable[..., Tensor], slow: Callable[..., Any]) -> None:
    attentions, gradients = random_pair()
    together = fast(attentions, gradients)
    for i in range(BATCH):
        by_hand = slow(attentions[:, i].numpy(), gradients[:, i].numpy())
        np.testing.assert_allclose(together[i], by_hand)
    # A second call knows nothing of the first (vit-explain mixes its pictures).
    assert torch.equal(fast(attentions, gradients), together)


def test_rows_of_the_gradient_rollout_sum_to_one() -> None:
    attentions, gradients = random_pair()
    gradients[0, 0, :, 2] = -1  # a token without anything that speaks for the class keeps its own
    rollout = gradient_rollout(attentions, gradients)
    torch.testing.assert_close(rollout.sum(-1), torch.ones(BATCH, TOKENS, dtype=torch.float64))


def test_gradient_1_is_the_plain_rollout() -> None:
    attentions, _ = random_pair()
    got = gradient_rollout(attentions, torch.ones_like(attentions))
    torch.testing.assert_close(got, attention_rollout(attentions))


@pytest.mark.parametrize("layer", [1, LAYERS])
@pytest.mark.parametrize("head", [1, HEADS])
def test_raw_attention_is_one_head(layer: int, head: int) -> None:
    attentions, _ = random_pair()
    for i in range(BATCH):
        for row in range(TOKENS):
            expected = [float(attentions[layer - 1, i, head - 1, row, k]) for k in range(TOKENS)]
            assert raw_attention(attentions, layer, head)[i, row].tolist() == expected


def test_raw_attention_without_a_head_is_the_mean() -> None:
    attentions, _ = random_pair()
    heads = [raw_attention(attentions, 2, head + 1) for head in range(HEADS)]
    torch.testing.assert_close(raw_attention(attentions, 2), sum(heads) / HEADS)


def logit(model: ViT, x: Tensor, label: int, replaced: tuple[int, Tensor]) -> float:
    """Run the model by hand with the attention weights of one layer replaced."""
    tokens = model.embed(x)
    for number, block in enumerate(model.blocks):
        _, weights = block.forward_with_attention(tokens)
        weights = replaced[1] if number == replaced[0] else weights
        values = block.attn.qkv(block.norm1(tokens)).chunk(3, dim=-1)[2]
        values = values.unflatten(2, (model.config.num_heads, -1)).transpose(1, 2)
        tokens = tokens + block.attn.proj((weights @ values).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.norm2(tokens))
    return float(model._classify(tokens)[0, label])


@pytest.mark.parametrize("options", KINDS, ids=str)
@torch.no_grad()
def test_gradients_equal_finite_differences(
    make_model: Callable[..., ViT], options: dict[str, Any]
) -> None:
    model = make_model(**options).double()
    x, step = torch.rand(1, 3, 8, 8, dtype=torch.float64), 1e-5
    _, attentions = model.forward_with_attention(x)
    gradients = attention_gradients(model, x, 2)
    assert gradients.shape == attentions.shape
    for where in ((0, 0, 0, 0, 3), (0, 0, 1, 7, 7), (1, 0, 0, 0, 5), (1, 0, 1, 1, 0)):
        moved = torch.zeros_like(attentions)
        moved[where] = step
        up, down = (
            logit(model, x, 2, (where[0], (attentions + sign * moved)[where[0]]))
            for sign in (1, -1)
        )
        assert float(gradients[where]) == pytest.approx((up - down) / (2 * step), rel=1e-4)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_classes_and_pictures_differ_and_do_not_mix(
    make_model: Callable[..., ViT], options: dict[str, Any]
) -> None:
    model, x = make_model(**options), torch.rand(2, 3, 8, 8)
    prefix = model.config.num_prefix_tokens
    with torch.no_grad():
        attentions = model.forward_with_attention(x)[1]
    together = attention_gradients(model, x, 0)
    alone = torch.cat([attention_gradients(model, x[i : i + 1], 0) for i in range(2)], dim=1)
    torch.testing.assert_close(together, alone)
    other = attention_gradients(model, x, 1)
    for method in (gradient_rollout, transformer_attribution):
        first, second = (attention_map(method(attentions, g), 4, prefix) for g in (together, other))
        assert first.shape == (2, 4, 4)
        assert not torch.allclose(first, second)


def test_wrong_class(tiny_model: ViT) -> None:
    with pytest.raises(ValueError, match="class 3 was asked for; choose 0 to 2"):
        attention_gradients(tiny_model, torch.rand(1, 3, 8, 8), 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: raw_attention(a, 0), "layer 0 was asked for; choose 1 to 3"),
        (lambda a: raw_attention(a, 4), "layer 4 was asked for"),
        (lambda a: raw_attention(a, 1, 5), "head 5 was asked for; choose 1 to 4"),
        (lambda a: raw_attention(a, 1, 0), "head 0 was asked for"),
        (lambda a: gradient_rollout(a, a[:2]), "and gradients (2, 2, 4, 6, 6); expected"),
        (lambda a: transformer_attribution(a[0], a[0]), "expected (L, B, h, N, N) twice"),
    ],
)
def test_bad_arguments(call: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call(random_pair()[0])
