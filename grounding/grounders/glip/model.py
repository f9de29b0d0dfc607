"""GLIP: a detector whose classes are the tokens of a caption.

Li et al., CVPR 2022, "Grounded Language-Image Pre-training" (https://arxiv.org/abs/2112.03857).
Swin and BERT come from transformers. The behaviour is that of the official code at
https://github.com/microsoft/GLIP, commit 9dda955, to rounding; where that is surprising, a comment
says so.

Axes: B batch, C channels, D text width, T tokens, H W the map of one of five levels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel, SwinBackbone, SwinConfig

from grounding.grounders.glip.config import STRIDES, GlipConfig
from grounding.grounders.glip.dyconv import DyConv
from grounding.grounders.glip.fusion import LIMIT, Fusion, TextLayer


def build_swin(config: GlipConfig) -> SwinBackbone:
    """Return the backbone; its outputs have strides 8, 16 and 32."""
    swin = SwinBackbone(
        SwinConfig(
            image_size=224,
            embed_dim=config.embed_dim,
            depths=list(config.depths),
            num_heads=list(config.num_heads),
            window_size=config.window_size,
            drop_path_rate=0.0,
            out_features=["stage2", "stage3", "stage4"],
        )
    )
    swin.swin.layernorm = nn.Identity()  # of a classifier; GLIP has none
    return swin


def build_bert(config: GlipConfig) -> BertModel:
    """Return the text encoder."""
    return BertModel(
        BertConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.text_dim,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.text_heads,
            intermediate_size=config.text_mlp_dim,
            max_position_embeddings=config.text_positions,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        add_pooling_layer=False,
    )


class FPN(nn.Module):
    """A feature pyramid of five levels from three (https://arxiv.org/abs/1612.03144)."""

    def __init__(self, inputs: list[int], channels: int) -> None:
        super().__init__()
        self.fpn_inner2, self.fpn_inner3, self.fpn_inner4 = (
            nn.Conv2d(width, channels, 1) for width in inputs
        )
        self.fpn_layer2, self.fpn_layer3, self.fpn_layer4 = (
            nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs
        )
        self.top_blocks = nn.ModuleDict(
            {name: nn.Conv2d(channels, channels, 3, 2, padding=1) for name in ("p6", "p7")}
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map (B, C_i, H, W) at strides 8, 16, 32 to (B, C, H, W) at strides 8 to 128."""
        c3, c4, c5 = maps
        inner4 = self.fpn_inner4(c5)
        inner3 = self.fpn_inner3(c4) + F.interpolate(inner4, c4.shape[-2:])
        inner2 = self.fpn_inner2(c3) + F.interpolate(inner3, c3.shape[-2:])
        p3, p4, p5 = self.fpn_layer2(inner2), self.fpn_layer3(inner3), self.fpn_layer4(inner4)
        p6 = self.top_blocks["p6"](p5)
        return [p3, p4, p5, p6, self.top_blocks["p7"](p6.relu())]


class HeadBlock(nn.Module):
    """Fuse picture and text, then let each go on by itself."""

    def __init__(self, config: GlipConfig) -> None:
        super().__init__()
        c = config
        self.fusion = Fusion(c.channels, c.text_dim, c.fusion_dim, c.fusion_heads)
        self.text = TextLayer(c.text_dim, c.text_heads, c.text_mlp_dim)
        self.visual = DyConv(c.channels)

    def forward(
        self, maps: list[Tensor], text: Tensor, valid: Tensor | None
    ) -> tuple[list[Tensor], Tensor]:
        """Map five levels (B, C, H, W) and the text (B, T, D) to the same shapes."""
        maps, text = self.fusion(maps, text, valid)
        return self.visual(maps), self.text(text, valid)


class Scale(nn.Module):
    """A learned factor on the boxes of one level."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


@dataclass(frozen=True)
class RawDetections:
    """Hold what the head says about each position of each level, finest level first.

    Attributes:
        logits: Per level float (B, H*W, T): does the position show what the token names?
        deltas: Per level float (B, 4, H, W): the box relative to the anchor.
        centerness: Per level float (B, 1, H, W), logits.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    centerness: list[Tensor]


class Glip(nn.Module):
    """The whole network."""

    def __init__(self, config: GlipConfig) -> None:
        super().__init__()
        self.config = config
        self.swin, self.bert = build_swin(config), build_bert(config)
        self.fpn = FPN([config.embed_dim * 2**i for i in (1, 2, 3)], config.channels)
        self.tower = nn.ModuleList(HeadBlock(config) for _ in range(config.head_blocks))
        self.bbox_pred = nn.Conv2d(config.channels, 4, 1)
        self.centerness = nn.Conv2d(config.channels, 1, 1)
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)
        self.dot_product_projection_text = nn.Linear(config.text_dim, config.channels)
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.bias_lang = nn.Parameter(torch.zeros(config.text_dim))
        self.bias0 = nn.Parameter(torch.tensor([-4.595]))

    def forward(
        self, pixels: Tensor, input_ids: Tensor, valid: Tensor | None = None
    ) -> RawDetections:
        """Detect what a caption names: `look`, then `read`."""
        return self.read(self.look(pixels), input_ids, valid)

    def look(self, pixels: Tensor) -> list[Tensor]:
        """Return five maps (B, C, H/s, W/s), which do not depend on any caption.

        Args:
            pixels: float (B, 3, H, W), BGR, normalised; sides are multiples of 32.
        """
        return self.fpn(list(self.swin(pixels).feature_maps))

    def read(
        self, maps: list[Tensor], input_ids: Tensor, valid: Tensor | None = None
    ) -> RawDetections:
        """Detect what a caption names.

        Args:
            maps: The result of `look`.
            input_ids: int64 (B, T) token ids. Padding changes nothing, so better leave it away.
            valid: bool (B, T), False on padding; None if there is none.
        """
        mask = None if valid is None else valid.long()
        text = self.bert(input_ids, attention_mask=mask).last_hidden_state
        for block in self.tower:
            maps, text = block(maps, text, valid)
        return self._heads(maps, text)

    # Scores and boxes are small differences of large numbers: never in half precision.
    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def _heads(self, maps: list[Tensor], text: Tensor) -> RawDetections:
        maps, text = [x.float() for x in maps], text.float()
        unit = F.normalize(text, dim=-1, eps=1e-12)
        # The projection takes half of the unit vector and the bias all of it, as released.
        words = self.dot_product_projection_text(unit / 2) / self.log_scale.exp()
        bias = unit @ self.bias_lang + self.bias0  # (B, T)
        logits = [(x.flatten(2).mT @ words.mT + bias[:, None]).clamp(-LIMIT, LIMIT) for x in maps]
        deltas = [s.scale * self.bbox_pred(x) for s, x in zip(self.scales, maps, strict=True)]
        return RawDetections(logits, deltas, [self.centerness(x) for x in maps])
