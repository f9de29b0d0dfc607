"""Attention rollout: how much each token of the input has reached each token of the output.

Abnar and Zuidema, ACL 2020 (https://arxiv.org/abs/2005.00928): in every layer the heads are fused
to one matrix, the residual connection is added as an identity, and the layers are multiplied, the
last one leftmost. The result does not depend on a class.

Axes: L layers, B batch, h heads, g grid, N tokens: P = `ViTConfig.num_prefix_tokens` of them, then
g*g patches row by row.
"""

from collections.abc import Callable

import torch
from torch import Tensor

HEAD_FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda attentions: attentions.mean(dim=-3),
    "max": lambda attentions: attentions.amax(dim=-3),
    "min": lambda attentions: attentions.amin(dim=-3),
}


def attention_rollout(
    attentions: Tensor,
    head_fusion: str = "mean",
    discard_ratio: float = 0.0,
    num_prefix_tokens: int = 1,
) -> Tensor:
    """Multiply the attention of the given layers, residual connections included.

    Args:
        attentions: float (L, B, h, N, N), softmax weights of `ViT.forward_with_attention`.
        head_fusion: How the heads of a layer become one: a key of `HEAD_FUSIONS`.
        discard_ratio: Share in [0, 1) of patches whose weight is set to 0 in each row, the
            lowest ones; the columns of the prefix tokens always stay.
        num_prefix_tokens: Number P of tokens before the patches, in [0, N).

    Returns:
        float (B, N, N); row i says from where token i of the output comes, and sums to 1.

    Raises:
        ValueError: If the shape, the fusion, the ratio or the number is not as above.

    >>> attention_rollout(torch.full((6, 1, 8, 4, 4), 1 / 4)).sum(dim=-1)
    tensor([[1., 1., 1., 1.]])
    """
    _check(attentions, head_fusion, discard_ratio, num_prefix_tokens)
    fused = HEAD_FUSIONS[head_fusion](attentions)
    return chain(_discard(fused, discard_ratio, num_prefix_tokens))


def chain(layers: Tensor) -> Tensor:
    """Add the residual connection to every layer and multiply the layers, the last one leftmost.

    Args:
        layers: float (L, B, N, N), at least 0; rows need not sum to 1.

    Returns:
        float (B, N, N), whose rows sum to 1.
    """
    identity = torch.eye(layers.shape[-1], dtype=layers.dtype, device=layers.device)
    # The second time matters for a row that is all 0, which "min" can leave.
    layers = _normalize_rows(0.5 * _normalize_rows(layers) + 0.5 * identity)
    rollout = layers[0]
    for layer in layers[1:]:
        rollout = layer @ rollout
    return rollout


def answer_row(relevance: Tensor, num_prefix_tokens: int) -> Tensor:
    """Return what reached the tokens that the answer is read from.

    These are the prefix tokens, class token and distillation token, whose two heads share the
    answer equally; without prefix tokens they are all patches, each as much: the weights that a
    model with `pool` "seq" has learnt for them are not in it.

    Args:
        relevance: float (..., N, N), a row per output token.
        num_prefix_tokens: Number P of tokens before the patches.

    Returns:
        float (..., N - P), the mean of those tokens' rows, patch columns only.
    """
    rows = relevance[..., : num_prefix_tokens or None, num_prefix_tokens:]
    return rows.mean(dim=-2)


def attention_map(rollout: Tensor, grid: int, num_prefix_tokens: int = 1) -> Tensor:
    """Return how much of each patch has reached the answer, stretched to [0, 1].

    Args:
        rollout: float (B, N, N) of `attention_rollout` or of a function of `vit.attribution`,
            N = P + grid * grid; see `answer_row` for which of its rows count.
        grid: Number g of patches along one side.
        num_prefix_tokens: Number P of tokens before the patches.

    Returns:
        float (B, g, g), smallest 0 and largest 1 in each picture; all 0 where all are equal.

    Raises:
        ValueError: If `rollout` does not fit `grid`.
    """
    tokens = num_prefix_tokens + grid * grid
    if rollout.ndim != 3 or rollout.shape[1:] != (tokens, tokens):
        raise ValueError(
            f"rollout has shape {tuple(rollout.shape)}; grid {grid} with {num_prefix_tokens} "
            f"prefix tokens expects (B, {tokens}, {tokens})"
        )
    return stretch(answer_row(rollout, num_prefix_tokens).view(-1, grid, grid))


def stretch(maps: Tensor) -> Tensor:
    """Stretch each map of float (..., H, W) to [0, 1]; one whose values are all equal becomes 0.

    >>> stretch(torch.tensor([[[1.0, 2.0, 3.0]], [[5.0, 5.0, 5.0]]]))
    tensor([[[0.0000, 0.5000, 1.0000]],
    <BLANKLINE>
            [[0.0000, 0.0000, 0.0000]]])
    """
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    flat = high - low <= 1e-5 * high.abs()  # no more than rounding: nothing to show
    return torch.where(flat, 0.0, (maps - low) / torch.where(flat, 1.0, high - low))


def _check(attentions: Tensor, head_fusion: str, discard_ratio: float, prefix: int) -> None:
    shape = tuple(attentions.shape)
    if len(shape) != 5 or shape[3] != shape[4] or 0 in shape:
        raise ValueError(f"attentions have shape {shape}; expected (L, B, h, N, N)")
    if head_fusion not in HEAD_FUSIONS:
        raise ValueError(f"head_fusion is {head_fusion!r}; choose one of {tuple(HEAD_FUSIONS)}")
    if not 0 <= discard_ratio < 1:
        raise ValueError(f"discard_ratio is {discard_ratio}; it must be in [0, 1)")
    if not 0 <= prefix < shape[-1]:
        raise ValueError(f"num_prefix_tokens is {prefix}; of {shape[-1]} tokens it is impossible")


def _discard(layers: Tensor, ratio: float, prefix: int) -> Tensor:
    """Set the lowest `ratio` of the patch columns to 0, row by row: (..., N, N) to the same."""
    patches = layers[..., prefix:]
    count = int(ratio * patches.shape[-1] + 1e-6)  # 0.57 * 100 is a bit below 57
    lowest = patches.topk(count, dim=-1, largest=False).indices
    return torch.cat((layers[..., :prefix], patches.scatter(-1, lowest, 0.0)), dim=-1)


def _normalize_rows(layers: Tensor) -> Tensor:
    total = layers.sum(dim=-1, keepdim=True)
    return layers / total.clamp_min(torch.finfo(layers.dtype).tiny)
