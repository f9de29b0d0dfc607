"""The optimisers that a recipe asks for, and the running mean of the weights."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from vit.model import ViT
from vit.muon import Muon
from vit.recipes import TrainConfig


def build_optimizers(model: ViT, config: TrainConfig) -> list[Optimizer]:
    """Return the optimisers of a recipe; vectors and embeddings are never decayed."""
    matrices = [(n, p) for n, p in model.blocks.named_parameters() if p.ndim == 2]
    inside = {id(p) for _, p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    if config.optimizer != "muon":
        groups = [{"params": [p for _, p in matrices]}, {"params": others, "weight_decay": 0.0}]
        kind = {"adam": Adam, "adamw": AdamW}[config.optimizer]
        return [kind(groups, lr=config.lr, weight_decay=config.weight_decay)]
    groups = [
        {"params": [p for n, p in matrices if "qkv" in n], "split": 3},
        {"params": [p for n, p in matrices if "qkv" not in n]},
    ]
    return [
        Muon(
            groups,
            lr=config.muon_lr,
            weight_decay=config.weight_decay,
            precision=torch.bfloat16 if config.precision == "bf16" else torch.float32,
        ),
        AdamW(others, lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the update of a running mean of weights, for torch's `AveragedModel`.

    The decay rises to `decay` as (1 + n) / (10 + n) after n updates, so that a short run does not
    end with a mean over its beginning.
    """

    def update(mean: Tensor, weight: Tensor, updates: Tensor) -> Tensor:
        now = ((1 + updates) / (10 + updates)).clamp(max=decay)
        return weight.lerp(mean, now.to(weight.dtype))

    return update
