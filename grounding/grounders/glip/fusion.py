"""The text parts of a head block: attention between picture and text, and a BERT layer.

Li et al., CVPR 2022, "Grounded Language-Image Pre-training" (https://arxiv.org/abs/2112.03857),
section 3.2. Axes: B batch, N positions of all levels, T tokens, C channels, D text width, h heads.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The official code clamps here against overflow in half precision.
LIMIT = 50_000.0
BERT_EPS = 1e-12


class CrossAttention(nn.Module):
    """Let picture and text attend to each other with one matrix of scores.

    The picture has some 18,000 positions and a caption a dozen tokens, so every product is taken
    in the order that never makes an (N, fusion_dim) matrix: the projections of the picture are
    moved to the side of the text. The result is the same to rounding.
    """

    def __init__(self, channels: int, text_dim: int, fusion_dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (fusion_dim // heads) ** -0.5
        self.v_proj = nn.Linear(channels, fusion_dim)
        self.l_proj = nn.Linear(text_dim, fusion_dim)
        self.values_v_proj = nn.Linear(channels, fusion_dim)
        self.values_l_proj = nn.Linear(text_dim, fusion_dim)
        self.out_v_proj = nn.Linear(fusion_dim, channels)
        self.out_l_proj = nn.Linear(fusion_dim, text_dim)

    def forward(self, v: Tensor, t: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what the picture (B, N, C) and the text (B, T, D) receive from each other.

        Args:
            v: Picture positions.
            t: Tokens.
            valid: bool (B, T), False on padding; None if there is none.
        """
        scores = self._scores(v, t)  # (B, h, T, N)
        to_text = (scores - scores.amax(-1, keepdim=True)).clamp(min=-LIMIT).softmax(-1)
        # Neither padded tokens nor padded pixels are masked on the way to the text.
        text = self._gather_picture(to_text, v)
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, :, None], -torch.inf)
        return self._spread_text(scores.softmax(2), t), text

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, T, d)

    def _scores(self, v: Tensor, t: Tensor) -> Tensor:
        keys = self._heads(self.l_proj(t)) * self.scale
        weight = self.v_proj.weight.unflatten(0, (self.heads, -1))  # (h, d, C)
        bias = self.v_proj.bias.unflatten(0, (self.heads, -1, 1))  # (h, d, 1)
        queries = (keys @ weight).flatten(1, 2)  # (B, h*T, C)
        scores = (queries @ v.mT).unflatten(1, (self.heads, -1))
        return (scores + keys @ bias).float().clamp(-LIMIT, LIMIT)

    def _gather_picture(self, weights: Tensor, v: Tensor) -> Tensor:
        """Take the mean of the picture's values by `weights` (B, h, T, N), for the text."""
        means = (weights.flatten(1, 2).to(v.dtype) @ v).unflatten(1, (self.heads, -1))
        weight = self.values_v_proj.weight.unflatten(0, (self.heads, -1))
        # The weights of a token sum to 1, so the bias comes through as it is.
        values = (means @ weight.mT).transpose(1, 2).flatten(2) + self.values_v_proj.bias
        return self.out_l_proj(values)

    def _spread_text(self, weights: Tensor, t: Tensor) -> Tensor:
        """Take the mean of the text's values by `weights` (B, h, T, N), for the picture."""
        values = self._heads(self.values_l_proj(t))
        weight = self.out_v_proj.weight.unflatten(1, (self.heads, -1)).transpose(0, 1)  # (h, C, d)
        outputs = (values @ weight.mT).flatten(1, 2)  # (B, h*T, C)
        return weights.flatten(1, 2).to(outputs.dtype).mT @ outputs + self.out_v_proj.bias


class Fusion(nn.Module):
    """Exchange information between picture and text."""

    def __init__(self, channels: int, text_dim: int, fusion_dim: int, heads: int) -> None:
        super().__init__()
        self.layer_norm_v = nn.LayerNorm(channels)
        self.layer_norm_l = nn.LayerNorm(text_dim)
        self.attn = CrossAttention(channels, text_dim, fusion_dim, heads)
        self.gamma_v = nn.Parameter(torch.full((channels,), 1 / 6))
        self.gamma_l = nn.Parameter(torch.full((text_dim,), 1 / 6))

    def forward(
        self, maps: list[Tensor], text: Tensor, valid: Tensor | None
    ) -> tuple[list[Tensor], Tensor]:
        """Return new maps, each (B, C, H, W), and a new text (B, T, D)."""
        v = self.layer_norm_v(torch.cat([x.flatten(2).mT for x in maps], dim=1))
        t = self.layer_norm_l(text)
        to_picture, to_text = self.attn(v, t, valid)
        # The sum is with the normalised inputs, not with the inputs: so was GLIP trained.
        v = v + self.gamma_v * to_picture
        parts = v.mT.split([x[0, 0].numel() for x in maps], dim=2)
        new = [part.reshape(x.shape) for part, x in zip(parts, maps, strict=True)]
        return new, t + self.gamma_l * to_text


class _SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = (q @ k.mT / math.sqrt(q.shape[-1])).clamp(-LIMIT, LIMIT)
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, None], -torch.inf)
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class _Output(nn.Module):
    def __init__(self, dim_in: int, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim_in, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=BERT_EPS)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class TextLayer(nn.Module):
    """One BERT encoder layer with GLIP's clamps; module names are BERT's."""

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": _SelfAttention(dim, heads), "output": _Output(dim, dim)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(dim, mlp_dim)})
        self.output = _Output(mlp_dim, dim)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Map tokens (B, T, D) to the same; keys where `valid` (B, T) is False are not seen."""
        x = self.attention["output"](self.attention["self"](x, valid), x)
        hidden = F.gelu(self.intermediate["dense"](x).clamp(-LIMIT, LIMIT)).clamp(-LIMIT, LIMIT)
        out = self.output.dense(hidden).clamp(-LIMIT, LIMIT)
        return self.output.LayerNorm(out + x).clamp(-LIMIT, LIMIT)
