"""Relatives of attention rollout: one head's attention, and maps that depend on a class.

The class methods weight the attention of every head with the gradient of the class's logit and keep
the positive part, relu(dy/dA * A), averaged over the heads. They differ in how layers are joined:

* `gradient_rollout` puts that in the place of the attention in the rollout of Abnar and Zuidema
  (https://arxiv.org/abs/2005.00928), so every row still sums to 1. (vit-explain, which made the
  idea known, averages the heads before it cuts off what is negative.)
* `transformer_attribution` is the rule for self-attention of Chefer, Gur and Wolf, "Generic
  Attention-model Explainability" (ICCV 2021, https://arxiv.org/abs/2103.15679, equations 5 and 6):
  R += mean over heads of relu(dy/dA * A) @ R. It is not the method of their CVPR 2021 paper, which
  has relevance from layer-wise propagation in the place of A.

Nothing is hooked and nothing is kept between calls. Axes as in `vit.rollout`.
"""

import torch
from torch import Tensor

from vit.model import ViT
from vit.rollout import chain


def attention_gradients(model: ViT, x: Tensor, label: int) -> Tensor:
    """Return how the logit of a class changes with every attention weight.

    Args:
        model: In eval mode.
        x: Normalised images (B, 3, H, W), float.
        label: Index of the class, in [0, num_classes).

    Returns:
        float (L, B, h, N, N), first layer first, as the attentions of `ViT.forward_with_attention`.

    Raises:
        ValueError: If there is no such class.
    """
    if not 0 <= label < model.config.num_classes:
        raise ValueError(f"class {label} was asked for; choose 0 to {model.config.num_classes - 1}")
    with torch.enable_grad():
        logits, attentions = model.forward_by_layer(x)
        # Pictures do not mix, so the sum over the batch has each picture's own gradient.
        return torch.stack(torch.autograd.grad(logits[:, label].sum(), attentions))


def raw_attention(attentions: Tensor, layer: int, head: int | None = None) -> Tensor:
    """Return the attention of one layer as it is, without what came before or after.

    Args:
        attentions: float (L, B, h, N, N).
        layer: From 1 to L.
        head: From 1 to h, or None for the mean of all.

    Returns:
        float (B, N, N), whose rows sum to 1.

    Raises:
        ValueError: If there is no such layer or head.
    """
    depth, heads = attentions.shape[0], attentions.shape[2]
    if not 1 <= layer <= depth:
        raise ValueError(f"layer {layer} was asked for; choose 1 to {depth}")
    if head is None:
        return attentions[layer - 1].mean(dim=1)
    if not 1 <= head <= heads:
        raise ValueError(f"head {head} was asked for; choose 1 to {heads}")
    return attentions[layer - 1, :, head - 1]


def gradient_rollout(attentions: Tensor, gradients: Tensor) -> Tensor:
    """Roll out the attention that speaks for a class.

    Args:
        attentions: float (L, B, h, N, N).
        gradients: The same shape and order, of `attention_gradients`.

    Returns:
        float (B, N, N), whose rows sum to 1.
    """
    return chain(_speaking_for(attentions, gradients))


def transformer_attribution(attentions: Tensor, gradients: Tensor) -> Tensor:
    """Return the relevance of every input token for every output token (Chefer et al., ICCV 2021).

    Args:
        attentions: float (L, B, h, N, N).
        gradients: The same shape and order, of `attention_gradients`.

    Returns:
        float (B, N, N), at least the identity; rows have no fixed sum.
    """
    layers = _speaking_for(attentions, gradients)
    relevance = torch.eye(layers.shape[-1], dtype=layers.dtype, device=layers.device)
    for layer in layers:
        relevance = relevance + layer @ relevance
    return relevance


def _speaking_for(attentions: Tensor, gradients: Tensor) -> Tensor:
    """Return the positive part of gradient times attention, mean of the heads: (L, B, N, N)."""
    if attentions.shape != gradients.shape or attentions.ndim != 5:
        raise ValueError(
            f"attentions have shape {tuple(attentions.shape)} and gradients "
            f"{tuple(gradients.shape)}; expected (L, B, h, N, N) twice"
        )
    return (attentions * gradients).relu().mean(dim=2)
