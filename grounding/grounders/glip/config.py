"""The sizes of a GLIP; the defaults are GLIP-T's (Swin-T, BERT-base, six head blocks)."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

STRIDES = (8, 16, 32, 64, 128)
ANCHOR_SIZES = (64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class GlipConfig:
    """Hold the sizes of a GLIP.

    Attributes:
        embed_dim: Width of Swin's first stage.
        depths: Blocks of Swin's four stages.
        num_heads: Attention heads of Swin's four stages.
        window_size: Side of Swin's attention windows, in tokens.
        channels: Channels of the feature pyramid and of the head.
        head_blocks: Number of head blocks, each fusion + text layer + dynamic convolution.
        fusion_dim: Width of the attention between picture and text.
        fusion_heads: Heads of that attention.
        vocab_size: Rows of BERT's vocabulary.
        text_dim: Width of BERT.
        text_layers: Layers of BERT.
        text_heads: Attention heads of BERT and of the head's text layers.
        text_mlp_dim: Hidden width of their MLPs.
        text_positions: Rows of BERT's table of positions.
        max_tokens: Longest caption, its first and last token included.
        short_side: Pictures are scaled until their short side has so many pixels,
        long_side: but the long one no more than so many.
    """

    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    channels: int = 256
    head_blocks: int = 6
    fusion_dim: int = 2048
    fusion_heads: int = 8
    vocab_size: int = 30522
    text_dim: int = 768
    text_layers: int = 12
    text_heads: int = 12
    text_mlp_dim: int = 3072
    text_positions: int = 512
    max_tokens: int = 256
    short_side: int = 800
    long_side: int = 1333


def read_config(path: Path) -> GlipConfig:
    """Read a config from a JSON file with the fields of `GlipConfig`.

    Raises:
        ValueError: If it is no such file.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tuples = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return GlipConfig(**tuples)
    except (OSError, TypeError, AttributeError, json.JSONDecodeError) as error:
        known = ", ".join(field.name for field in fields(GlipConfig))
        raise ValueError(f"{path} is no config of a GLIP ({error}); it may hold {known}") from error
