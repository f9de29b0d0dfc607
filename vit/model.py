"""The Vision Transformer of Dosovitskiy et al., ICLR 2021 (https://arxiv.org/abs/2010.11929).

Patches are embedded linearly, a class token is put in front, learned positions are added, encoder
blocks of multi-head self-attention and an MLP follow (LayerNorm first, residual around each), and
a linear head reads the class token. Only torch is needed.

Axes: B batch, C channels, H W image, N tokens, D embed_dim, L layers, h heads, g grid.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ViTConfig:
    """Hold the sizes of a ViT; the defaults are the reference setup with 3.2 M parameters.

    Attributes:
        image_size: Side of the square input, in pixels.
        patch_size: Side of a patch, in pixels; divides `image_size`.
        num_classes: Number of logits.
        embed_dim: Width D of a token; a multiple of `num_heads`.
        depth: Number L of encoder blocks.
        num_heads: Number h of attention heads.
        mlp_dim: Hidden width of a block's MLP.
        dropout: Probability in [0, 1) of dropping an activation in training.
    """

    image_size: int = 32
    patch_size: int = 4
    num_classes: int = 10
    embed_dim: int = 256
    depth: int = 6
    num_heads: int = 8
    mlp_dim: int = 512
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "dropout" and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patch_size {self.patch_size} does not divide image_size {self.image_size}"
            )
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be in [0, 1)")

    @property
    def grid_size(self) -> int:
        """Return the number g of patches along one side."""
        return self.image_size // self.patch_size


class PatchEmbed(nn.Module):
    """Cut the image into patches and embed each linearly."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        # A convolution whose stride is its kernel is the linear map of flattened patches.
        self.proj = nn.Conv2d(3, config.embed_dim, config.patch_size, config.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, g*g, D), patches in row-major order."""
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, n, d = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.num_heads, d // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, h, N, D/h)
        return q, k, v

    def _merge(self, heads: Tensor) -> Tensor:
        return self.proj(heads.transpose(1, 2).flatten(2))  # (B, N, D)

    def forward(self, x: Tensor) -> Tensor:
        """Attend with torch's fused kernel: (B, N, D) to (B, N, D)."""
        if self.training and x.device.type == "cpu":
            # On CPUs the backward pass of the fused kernel costs more than it saves.
            return self.forward_with_attention(x)[0]
        return self._merge(F.scaled_dot_product_attention(*self._split(x)))

    def forward_with_attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output (B, N, D) and the softmax weights (B, h, N, N)."""
        q, k, v = self._split(x)
        weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self._merge(weights @ v), weights


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embed_dim, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        return self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))


class Block(nn.Module):
    """One encoder block: attention, then the MLP, each normalised first and added to its input."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        x = x + self.dropout(self.attn(self.norm1(x)))
        return x + self.mlp(self.norm2(x))

    def forward_with_attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output (B, N, D) and its attention weights (B, h, N, N)."""
        out, weights = self.attn.forward_with_attention(self.norm1(x))
        x = x + self.dropout(out)
        return x + self.mlp(self.norm2(x)), weights


class ViT(nn.Module):
    """The whole classifier."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid_size**2, config.embed_dim))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.head = nn.Linear(config.embed_dim, config.num_classes)
        self._init_weights()

    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.head.weight)  # as in the paper: uniform predictions at the start
        for block in self.blocks:
            # Every block starts as the identity, so a high learning rate is safe from the start.
            nn.init.zeros_(block.attn.proj.weight)
            nn.init.zeros_(block.mlp.fc2.weight)

    def embed(self, x: Tensor) -> Tensor:
        """Return the encoder's input tokens, class token first.

        Args:
            x: Normalised images (B, 3, image_size, image_size), float.

        Returns:
            Tokens (B, 1 + g*g, D).

        Raises:
            ValueError: If the images are not square with side `image_size`.
        """
        side = self.config.image_size
        if x.ndim != 4 or x.shape[1:] != (3, side, side):
            raise ValueError(f"images have shape {tuple(x.shape)}; expected (B, 3, {side}, {side})")
        patches = self.patch_embed(x) + self.pos_embed[:, 1:]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        return self.dropout(torch.cat((cls, patches), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """Classify images (B, 3, H, W): logits (B, num_classes)."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))

    def forward_with_attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Classify images and return what every head looked at.

        Args:
            x: Normalised images (B, 3, H, W), float.

        Returns:
            Logits (B, num_classes) and attentions (L, B, h, N, N), whose last axis sums to 1.
        """
        x = self.embed(x)
        attentions = []
        for block in self.blocks:
            x, weights = block.forward_with_attention(x)
            attentions.append(weights)
        return self.head(self.norm(x[:, 0])), torch.stack(attentions)
