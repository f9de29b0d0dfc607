"""The optimisers that a recipe asks for, and the running mean of the weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from vit.model import ViT
from vit.muon import Muon
from vit.recipes import TrainConfig, in_bfloat16


def build_optimizers(model: ViT, config: TrainConfig) -> list[Optimizer]:
    """Return the optimisers of a recipe; only the matrices of the blocks are decayed."""
    matrices = [(n, p) for n, p in model.blocks.named_parameters() if p.ndim == 2]
    inside = {id(p) for _, p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    device = model.head.weight.device
    if config.optimizer != "muon":
        groups = [{"params": [p for _, p in matrices]}, {"params": others, "weight_decay": 0.0}]
        kind = {"adam": Adam, "adamw": AdamW}[config.optimizer]
        lr, options = rate_on(device, config.lr), adam_options(device)
        return [kind(groups, lr=lr, weight_decay=config.weight_decay, **options)]
    groups = [
        {"params": [p for n, p in matrices if "qkv" in n], "split": 3},
        {"params": [p for n, p in matrices if "qkv" not in n]},
    ]
    return [
        Muon(
            groups,
            lr=rate_on(device, config.muon_lr),
            weight_decay=config.weight_decay,
            precision=torch.bfloat16 if in_bfloat16(config, device) else torch.float32,
        ),
        AdamW(
            others,
            lr=rate_on(device, config.lr),
            betas=(0.9, 0.95),
            weight_decay=0.0,
            **adam_options(device),
        ),
    ]


def rate_on(device: torch.device, lr: float) -> float | Tensor:
    """Return a learning rate that `Graphed` steps read anew each time; on a CPU the number."""
    return torch.tensor(lr, device=device) if device.type == "cuda" else lr


def adam_options(device: torch.device) -> dict[str, bool]:
    """Return what makes one kernel of Adam or AdamW, and lets a `Graphed` step hold it."""
    return {"fused": True, "capturable": device.type == "cuda"}


def scale_learning_rates(optimizers: Sequence[Optimizer], factor: float) -> None:
    """Set every learning rate to its first value times `factor`."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:  # all before any is changed: groups may share a tensor
        if "initial_lr" not in group:  # or each step would wait for a GPU to say what it is
            group["initial_lr"] = float(group["lr"])
    for group in groups:
        lr = group["initial_lr"] * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


@torch.no_grad()
def update_mean(mean: nn.Module, model: nn.Module, decay: float, updates: int) -> None:
    """Move a running mean of weights towards those of `model`.

    Args:
        mean: The same architecture as `model`.
        model: Whose weights have changed.
        decay: Share of the mean that stays, in [0, 1]; it rises to this as (1 + n) / (10 + n), so
            that a short run does not end with a mean over its beginning.
        updates: The number n of updates before this one.
    """
    now = min(decay, (1 + updates) / (10 + updates))
    torch._foreach_lerp_(list(mean.parameters()), list(model.parameters()), 1 - now)
