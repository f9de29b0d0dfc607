"""The parts of transformers' GroundingDINO that do more than they must, replaced.

The results are the same to rounding; benchmarks/first_answer.py measures the time.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.precision import fast
from grounding.grounders.glip.fusion import CrossAttention
from grounding.grounders.grounding_dino.deformable import DeformableAttention
from grounding.recent import Recent

# Positions at a time: few enough that the hidden layer, eight times as wide, stays in the cache.
CHUNK = 512


class Backbone(nn.Module):
    """The part of the model that sees no text; it remembers the latest pictures."""

    def __init__(self, stock: Any) -> None:
        """Take over a `GroundingDinoConvModel`."""
        super().__init__()
        self.backbone = stock
        self.position_embedding = stock.position_embedding  # the model asks for it
        self.seen: Recent[Any] = Recent()

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> tuple[list[Any], list[Tensor]]:
        """Return the feature maps with their masks, and their positions, for one picture.

        Args:
            pixel_values: float (1, 3, H, W), without padding.
            pixel_mask: int64 (1, H, W), all 1.
        """
        maps, positions = self.seen.get(
            pixel_values.cpu().numpy(), lambda: self._look(pixel_values, pixel_mask)
        )
        return [*maps], [*positions]  # the model adds to these lists

    def _look(self, pixels: Tensor, mask: Tensor) -> tuple[list[Any], list[Tensor]]:
        with fast(pixels.device.type):
            maps = self.backbone.conv_encoder(pixels, mask)
        maps = [(features.float(), inside) for features, inside in maps]
        return maps, [self.position_embedding(*pair) for pair in maps]


class Fusion(nn.Module):
    """Let picture and text attend to each other.

    It is the layer of GLIP (equation 4 of the paper is taken from there), so it is computed as
    there: without a wide projection of all the picture's positions.
    """

    def __init__(self, stock: Any) -> None:
        """Take over the weights of a `GroundingDinoBiMultiHeadAttention`."""
        super().__init__()
        with torch.device("meta"):  # its own weights are never made
            self.attention = CrossAttention(
                stock.vision_dim, stock.text_dim, stock.embed_dim, stock.num_heads
            )
        self.attention.v_proj, self.attention.l_proj = stock.vision_proj, stock.text_proj
        self.attention.values_v_proj = stock.values_vision_proj
        self.attention.values_l_proj = stock.values_text_proj
        self.attention.out_v_proj = stock.out_vision_proj
        self.attention.out_l_proj = stock.out_text_proj

    def forward(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        vision_attention_mask: Tensor,
        text_attention_mask: Tensor,
    ) -> tuple[tuple[Tensor, None], tuple[Tensor, None]]:
        """Return what each side receives; the attention itself is never returned.

        Args:
            vision_features: float (B, S, C), one picture without padding.
            text_features: float (B, T, C).
            vision_attention_mask: bool (B, S), True on padding, of which there is none.
            text_attention_mask: bool (B, T), True on padding.
        """
        picture, text = self.attention(vision_features, text_features, ~text_attention_mask)
        return (picture, None), (text, None)


class SelfAttention(nn.Module):
    """Let the queries attend to each other, without making the matrices of their attention."""

    def __init__(self, stock: Any) -> None:
        """Take over a `GroundingDinoMultiheadAttention`."""
        super().__init__()
        self.stock = stock

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, **_nothing: object
    ) -> tuple[Tensor, None]:
        """Return what each query receives, (B, Q, C); nothing is masked, no attention returned."""
        stock = self.stock
        projected = (stock.query(queries), stock.key(keys), stock.value(values))
        heads = [
            x.unflatten(-1, (stock.num_attention_heads, -1)).transpose(1, 2) for x in projected
        ]
        seen = F.scaled_dot_product_attention(*heads)  # (B, h, Q, d)
        return stock.out_proj(seen.transpose(1, 2).flatten(2)), None


class FeedForward(nn.Module):
    """Run the two layers of an MLP on some positions at a time, in bfloat16 where that is fast."""

    def __init__(self, first: nn.Module, activation: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.steps = nn.Sequential(first, activation, second)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, S, C) to the same."""
        with fast(x.device.type):
            parts = [self.steps(part) for part in x.split(CHUNK, dim=1)]
        return torch.cat(parts, dim=1).float()


def make_lean(model: Any, device: str) -> None:
    """Replace parts of a `GroundingDinoForObjectDetection` in eval mode, in place."""
    model.model.backbone = Backbone(model.model.backbone)
    for layer in model.model.decoder.layers:
        layer.self_attn = SelfAttention(layer.self_attn)
    for layer in model.model.encoder.layers:
        layer.fusion_layer.attn = Fusion(layer.fusion_layer.attn)
    if device != "cpu":  # the rest is for caches and vector units of a processor
        return
    for layer in model.model.encoder.layers:
        part = layer.deformable_layer
        part.self_attn.attn = DeformableAttention()
        part.fc1 = FeedForward(part.fc1, part.activation_fn, part.fc2)
        part.activation_fn = part.fc2 = nn.Identity()
    for layer in model.model.decoder.layers:
        layer.encoder_attn.attn = DeformableAttention()
