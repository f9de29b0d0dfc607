"""What must hold for any attention, not only for that of a trained model."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vit.rollout import HEAD_FUSIONS, attention_map, attention_rollout, chain, stretch

FUSIONS = st.sampled_from(list(HEAD_FUSIONS))
RATIOS = st.floats(0, 0.99)
few = settings(deadline=None, max_examples=40, derandomize=True)


@st.composite
def attentions(draw: st.DrawFn) -> tuple[Tensor, int, int]:
    """Draw softmax weights (L, B, h, N, N), from even to nearly one-hot, with grid and prefix."""
    layers, batch, heads, grid, prefix = (draw(st.integers(1, 3)) for _ in range(5))
    tokens = prefix + grid * grid
    sharpness = draw(st.sampled_from([0.0, 1.0, 30.0, 1000.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(layers, batch, heads, tokens, tokens, generator=generator)
    return (sharpness * logits).softmax(-1), grid, prefix


@few
@given(attentions(), FUSIONS, RATIOS)
def test_rows_are_shares(drawn: tuple[Tensor, int, int], fusion: str, ratio: float) -> None:
    weights, grid, prefix = drawn
    rollout = attention_rollout(weights, fusion, ratio, prefix)
    assert (rollout >= 0).all()
    assert torch.allclose(rollout.sum(-1), torch.ones(()), atol=1e-5)
    shown = attention_map(rollout, grid, prefix)
    assert shown.shape == (weights.shape[1], grid, grid)
    assert ((shown >= 0) & (shown <= 1)).all()


@few
@given(attentions(), FUSIONS, RATIOS)
def test_pictures_and_heads_have_no_order(
    drawn: tuple[Tensor, int, int], fusion: str, ratio: float
) -> None:
    weights, _, prefix = drawn
    rollout = attention_rollout(weights, fusion, ratio, prefix)
    assert torch.allclose(
        attention_rollout(weights.flip(2), fusion, ratio, prefix), rollout, atol=1e-5
    )
    flipped = attention_rollout(weights.flip(1), fusion, ratio, prefix)
    assert torch.allclose(flipped, rollout.flip(0), atol=1e-6)  # sums may be taken in another order


@few
@given(attentions(), st.integers(0, 2**31))
def test_it_does_not_matter_how_the_patches_are_numbered(
    drawn: tuple[Tensor, int, int], seed: int
) -> None:
    weights, _, prefix = drawn
    order = torch.randperm(weights.shape[-1], generator=torch.Generator().manual_seed(seed))
    shuffled = weights[..., order, :][..., order]
    rollout = attention_rollout(weights, num_prefix_tokens=prefix)
    assert torch.allclose(
        attention_rollout(shuffled, num_prefix_tokens=prefix),
        rollout[:, order][..., order],
        atol=1e-5,
    )


@few
@given(st.integers(1, 4), st.integers(2, 6), FUSIONS)
def test_who_looks_at_himself_stays_himself(layers: int, tokens: int, fusion: str) -> None:
    identity = torch.eye(tokens)
    rollout = attention_rollout(identity.expand(layers, 1, 2, tokens, tokens), fusion)
    assert torch.equal(rollout[0], identity)


@few
@given(attentions())
def test_layers_chain(drawn: tuple[Tensor, int, int]) -> None:
    layers = drawn[0].mean(2)
    parts = [chain(layers[i : i + 1]) for i in range(len(layers))]
    product = parts[0]
    for part in parts[1:]:
        product = part @ product
    assert torch.allclose(chain(layers), product, atol=1e-6)


@few
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), st.floats(0.001, 1000))
def test_a_stretched_row_has_no_scale(values: list[float], factor: float) -> None:
    row = torch.tensor([values], dtype=torch.float64)
    shown = stretch(row)
    assert ((shown >= 0) & (shown <= 1)).all()
    assert float(shown.max()) in (0.0, 1.0) and float(shown.min()) == 0.0
    assert torch.allclose(stretch(row * factor), shown, atol=1e-6) or not shown.any()
