import pytest
import torch
from torch import Tensor

from grounding.grounders.glip.fusion import CrossAttention, Fusion, TextLayer


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def textbook(m: CrossAttention, v: Tensor, t: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Attend as the paper writes it, with every projection of the picture spelt out."""

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (m.heads, -1)).transpose(1, 2)

    q, k = heads(m.v_proj(v) * m.scale), heads(m.l_proj(t))
    scores = q @ k.mT  # (B, h, N, T)
    to_picture = scores.masked_fill(~valid[:, None, None], -torch.inf).softmax(-1)
    to_text = scores.mT.softmax(-1)
    picture = (to_picture @ heads(m.values_l_proj(t))).transpose(1, 2).flatten(2)
    text = (to_text @ heads(m.values_v_proj(v))).transpose(1, 2).flatten(2)
    return m.out_v_proj(picture), m.out_l_proj(text)


@pytest.mark.parametrize(
    "valid",
    [
        [[True] * 5, [True] * 5],  # no padding
        [[True] * 5, [True, True, False, False, False]],  # one caption is shorter
        [[True, False, False, False, False]] * 2,  # a single token
    ],
)
def test_cross_attention_equals_the_textbook(valid: list[list[bool]]) -> None:
    torch.manual_seed(0)
    module, mask = CrossAttention(6, 8, 12, heads=3), torch.tensor(valid)
    v, t = noise(2, 40, 6, seed=1), noise(2, 5, 8, seed=2)
    for ours, wanted in zip(module(v, t, mask), textbook(module, v, t, mask), strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_padding_of_the_text_changes_nothing() -> None:
    torch.manual_seed(0)
    fusion, layer = Fusion(6, 8, 12, heads=3), TextLayer(8, 2, 16)
    maps, text = [noise(1, 6, 3, 4, seed=1), noise(1, 6, 1, 2, seed=2)], noise(1, 7, 8, seed=3)
    valid = torch.arange(7)[None] < 4
    padded_maps, padded_text = fusion(maps, text, valid)
    short_maps, short_text = fusion(maps, text[:, :4], None)
    for padded, short in zip(padded_maps, short_maps, strict=True):
        torch.testing.assert_close(padded, short)
    torch.testing.assert_close(padded_text[:, :4], short_text)
    torch.testing.assert_close(layer(padded_text, valid)[:, :4], layer(short_text, None))
