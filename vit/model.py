"""The Vision Transformer of Dosovitskiy et al., ICLR 2021 (https://arxiv.org/abs/2010.11929).

Patches are embedded linearly, a class token is put in front, learned positions are added, encoder
blocks of multi-head self-attention and an MLP follow (LayerNorm first, residual around each), and
a linear head reads the class token. `ViTConfig` offers a convolutional stem, pooling instead of the
class token, and DeiT's distillation token. Only torch is needed.

Axes: B batch, C channels, H W image, N tokens, D embed_dim, L layers, h heads, g grid.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit.dropout import Dropout, DropPath, PatchDropout

CHOICES = {"pool": ("cls", "mean", "seq"), "stem": ("patch", "conv")}
SIZES = ("image_size", "patch_size", "num_classes", "embed_dim", "depth", "num_heads", "mlp_dim")


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
        pool: What the head reads: "cls", a class token; "mean" of the patch tokens; or "seq", their
            mean with learned weights. With the last two there is no class token.
        stem: "patch" for a linear map of each patch, "conv" for convolutions that give as many
            tokens; then `patch_size` is a power of two.
        drop_path: Probability in [0, 1) of skipping a branch of the last block for an image in
            training; in the blocks before it falls linearly down to 0 in the first.
        distilled: Whether there are a second token and a second head that learn from a teacher;
            only with `pool` "cls".
    """

    image_size: int = 32
    patch_size: int = 4
    num_classes: int = 10
    embed_dim: int = 256
    depth: int = 6
    num_heads: int = 8
    mlp_dim: int = 512
    dropout: float = 0.1
    pool: str = "cls"
    stem: str = "patch"
    drop_path: float = 0.0
    distilled: bool = False

    def __post_init__(self) -> None:
        for name in SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1)")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {allowed}")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.image_size % self.patch_size:
            fits = [n for n in range(1, self.image_size + 1) if self.image_size % n == 0]
            raise ValueError(
                f"patch_size {self.patch_size} does not divide image_size {self.image_size}; "
                f"choose one of {fits}"
            )
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}"
            )
        if self.stem == "conv" and (self.patch_size == 1 or self.patch_size.bit_count() > 1):
            raise ValueError(
                f"patch_size is {self.patch_size}; with stem 'conv' it must be 2, 4, 8 or so on"
            )
        if self.distilled and self.pool != "cls":
            raise ValueError(f"pool is {self.pool!r}; with a distillation token it must be 'cls'")

    @property
    def grid_size(self) -> int:
        """Return the number g of patches along one side."""
        return self.image_size // self.patch_size

    @property
    def num_prefix_tokens(self) -> int:
        """Return the number of tokens before the patches: class token, distillation token."""
        return int(self.pool == "cls") + int(self.distilled)


class PatchEmbed(nn.Module):
    """Cut the image into patches and embed each linearly."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        # A convolution whose stride is its kernel is the linear map of flattened patches.
        self.proj = nn.Conv2d(3, config.embed_dim, config.patch_size, config.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, g*g, D), patches in row-major order."""
        return self.proj(x).flatten(2).transpose(1, 2)


class ConvStem(nn.Module):
    """Embed overlapping surroundings of each patch: 3x3 convolutions, each halving the grid.

    The stem of CCT-6/3x2 (Hassani et al. 2021, https://arxiv.org/abs/2104.05704) for patches of 4
    pixels; other sizes have another number of convolutions.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        halvings = config.patch_size.bit_length() - 1
        widths = (3, *[64] * (halvings - 1), config.embed_dim)
        self.convs = nn.ModuleList(
            nn.Conv2d(inside, outside, 3, padding=1) for inside, outside in pairwise(widths)
        )
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, g*g, D), patches in row-major order."""
        for conv in self.convs:
            x = F.max_pool2d(conv(x), kernel_size=3, stride=2, padding=1).relu()
        return x.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def _split(self, x: Tensor, first: int | None) -> tuple[Tensor, Tensor, Tensor]:
        if first is None:
            # Split before the axes change places: the backward pass then copies once, not twice.
            q, k, v = self._to_heads(self.qkv(x)).unbind(2)
        else:
            d = x.shape[2]
            q_weight, kv_weight = self.qkv.weight.tensor_split((d,))
            q_bias, kv_bias = self.qkv.bias.tensor_split((d,))
            (q,) = self._to_heads(F.linear(x[:, :first], q_weight, q_bias)).unbind(2)
            k, v = self._to_heads(F.linear(x, kv_weight, kv_bias)).unbind(2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # each (B, h, N, D/h)

    def _to_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, self.num_heads, self.proj.in_features // self.num_heads))

    def _merge(self, heads: Tensor) -> Tensor:
        return self.proj(heads.transpose(1, 2).flatten(2))  # (B, N, D)

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """Attend with torch's fused kernel: (B, N, D) to (B, N, D); `first` as in `Block`."""
        if self.training and x.device.type == "cpu":
            # On CPUs the backward pass of the fused kernel costs more than it saves.
            return self.forward_with_attention(x, first)[0]
        return self._merge(F.scaled_dot_product_attention(*self._split(x, first)))

    def forward_with_attention(self, x: Tensor, first: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the output (B, N, D) and softmax weights (B, h, N, N); `first` as in `Block`."""
        q, k, v = self._split(x, first)
        weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self._merge(weights @ v), weights


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embed_dim, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.embed_dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        return self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))


class Block(nn.Module):
    """One encoder block: attention, then the MLP, each normalised first and added to its input."""

    def __init__(self, config: ViTConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.mlp = MLP(config)
        self.dropout = Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """Map (B, N, D) to (B, N, D).

        Args:
            x: The tokens.
            first: How many of them to compute, which look at all: (B, first, D). None for all.
        """
        return self._add_branches(x[:, :first], self.attn(self.norm1(x), first))

    def forward_with_attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output (B, N, D) and its attention weights (B, h, N, N)."""
        out, weights = self.attn.forward_with_attention(self.norm1(x))
        return self._add_branches(x, out), weights

    def _add_branches(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.drop_path(self.dropout(attended))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ViT(nn.Module):
    """The whole classifier."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        width, tokens = config.embed_dim, config.num_prefix_tokens + config.grid_size**2
        self.patch_embed = ConvStem(config) if config.stem == "conv" else PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if config.pool == "cls" else None
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.dropout = Dropout(config.dropout)
        self.patch_dropout = PatchDropout(config.num_prefix_tokens)  # its share: the trainer's
        self.blocks = nn.ModuleList(
            Block(config, config.drop_path * i / max(1, config.depth - 1))
            for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, config.num_classes)
        if config.pool == "seq":
            self.pool_score = nn.Parameter(torch.zeros(width))  # at first the plain mean
        self.distill_token = nn.Parameter(torch.zeros(1, 1, width)) if config.distilled else None
        self.distill_head = nn.Linear(width, config.num_classes) if config.distilled else None
        self._init_weights()

    def _init_weights(self) -> None:
        for token in (self.cls_token, self.pos_embed, self.distill_token):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for head in (self.head, self.distill_head):
            if head is not None:
                nn.init.zeros_(head.weight)  # as in the paper: uniform predictions at the start
        for block in self.blocks:
            # Every block starts as the identity, so a high learning rate is safe from the start.
            nn.init.zeros_(block.attn.proj.weight)
            nn.init.zeros_(block.mlp.fc2.weight)

    def embed(self, x: Tensor) -> Tensor:
        """Return the encoder's input tokens: class token, distillation token, patches.

        Args:
            x: Normalised images (B, 3, image_size, image_size), float.

        Returns:
            Tokens (B, num_prefix_tokens + g*g, D); fewer in training with patch dropout.

        Raises:
            ValueError: If the images are not square with side `image_size`.
        """
        side = self.config.image_size
        if x.ndim != 4 or x.shape[1:] != (3, side, side):
            raise ValueError(f"images have shape {tuple(x.shape)}; expected (B, 3, {side}, {side})")
        prefix = (self.cls_token, self.distill_token)
        first = [t.expand(x.shape[0], -1, -1) for t in prefix if t is not None]
        patches = self.patch_embed(x)
        tokens = torch.cat((*first, patches), dim=1) + self.pos_embed
        # Under autocast the residual stream is as short as the patches: 3 % faster on a CPU.
        return self.dropout(self.patch_dropout(tokens.to(patches.dtype)))

    def forward(self, x: Tensor) -> Tensor:
        """Classify images (B, 3, H, W): logits (B, num_classes), of two heads their mean."""
        x = self.embed(x)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        # With a class token nobody reads what the last block makes of the patches; a training step
        # without that is 1.1 times as fast (benchmarks/train_step.py).
        return self._classify(last(x, self.config.num_prefix_tokens or None))

    def forward_to_learn(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return all from which a teacher can be learnt.

        Hard distillation of DeiT (Touvron et al. 2021, https://arxiv.org/abs/2012.12877) trains the
        class head with the labels and the distillation head with a teacher's answers.

        Args:
            x: Normalised images (B, 3, H, W), float.

        Returns:
            The logits (B, num_classes) of the class head, those of the distillation head (without
            one the same again), and the tokens (B, N, D) after every block.
        """
        x, tokens = self.embed(x), []
        for block in self.blocks:
            x = block(x)
            tokens.append(x)
        return *self._read_heads(x), tokens

    def forward_with_attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Classify images and return what every head looked at.

        Args:
            x: Normalised images (B, 3, H, W), float.

        Returns:
            Logits (B, num_classes) of `forward` and attentions (L, B, h, N, N), whose last axis
            sums to 1; N as in `embed`.
        """
        logits, attentions = self.forward_by_layer(x)
        return logits, torch.stack(attentions)

    def forward_by_layer(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Do as `forward_with_attention`, with the L attentions (B, h, N, N) by themselves."""
        x, attentions = self.embed(x), []
        for block in self.blocks:
            x, weights = block.forward_with_attention(x)
            attentions.append(weights)
        return self._classify(x), attentions

    def _classify(self, x: Tensor) -> Tensor:
        logits, distilled = self._read_heads(x)
        return (logits + distilled) / 2 if self.config.distilled else logits

    def _read_heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.head(self._pool(x))
        return logits, self.distill_head(self.norm(x[:, 1])) if self.distill_head else logits

    def _pool(self, x: Tensor) -> Tensor:
        """Turn the encoder's output (B, N, D) into what the head reads (B, D)."""
        if self.config.pool == "cls":
            return self.norm(x[:, 0])
        x = self.norm(x)
        if self.config.pool == "mean":
            return x.mean(dim=1)
        # Sequence pooling of CCT (https://arxiv.org/abs/2104.05704).
        weights = (x @ self.pool_score).softmax(dim=1)  # (B, N)
        return (weights[..., None] * x).sum(dim=1)
