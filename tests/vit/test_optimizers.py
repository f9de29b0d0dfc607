import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from vit.model import ViT
from vit.muon import Muon
from vit.optimizers import build_optimizers, scale_learning_rates, update_mean
from vit.recipes import TrainConfig


@pytest.mark.parametrize(
    ("optimizer", "kinds"), [("adam", [Adam]), ("adamw", [AdamW]), ("muon", [Muon, AdamW])]
)
def test_the_kind_of_optimizer(tiny_model: ViT, optimizer: str, kinds: list[type]) -> None:
    built = build_optimizers(tiny_model, TrainConfig(optimizer=optimizer))
    assert [type(one) for one in built] == kinds


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_every_weight_has_one_optimizer_and_only_matrices_decay(
    tiny_model: ViT, optimizer: str
) -> None:
    model, config = tiny_model, TrainConfig(optimizer=optimizer)
    groups = [group for o in build_optimizers(model, config) for group in o.param_groups]
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in model.blocks.parameters() if p.ndim == 2}


def test_muon_splits_queries_keys_and_values(tiny_model: ViT) -> None:
    muon, adamw = build_optimizers(tiny_model, TrainConfig(optimizer="muon"))
    split = {id(p): group["split"] for group in muon.param_groups for p in group["params"]}
    names = {name: split[id(p)] for name, p in tiny_model.named_parameters() if id(p) in split}
    assert {name for name, parts in names.items() if parts == 3} == {
        f"blocks.{i}.attn.qkv.weight" for i in range(2)
    }
    assert set(names.values()) == {1, 3}
    assert adamw.defaults["betas"] == (0.9, 0.95)


@pytest.mark.parametrize(
    "lr",
    [0.5, torch.tensor(0.5)],  # as a GPU has it: one tensor for all groups of an optimiser
    ids=["number", "tensor"],
)
def test_scale_learning_rates(lr: float | Tensor) -> None:
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    groups: list[dict] = [{"params": [weights[0]]}, {"params": [weights[1]]}]
    optimizers = [SGD(groups, lr=lr), SGD([weights[2]], lr=2.0)]
    kept = optimizers[0].param_groups[0]["lr"]
    for factor in (0.5, 0.25, 1.0):
        scale_learning_rates(optimizers, factor)
        rates = [float(g["lr"]) for o in optimizers for g in o.param_groups]
        assert rates == [0.5 * factor, 0.5 * factor, 2 * factor]
    if isinstance(lr, Tensor):
        assert optimizers[0].param_groups[0]["lr"] is kept  # what a CUDA graph reads


@pytest.mark.parametrize(
    ("updates", "decay"),
    [(1, 2 / 11), (8, 0.5), (10_000, 0.99)],  # an early mean is young
)
def test_update_mean(updates: int, decay: float) -> None:
    mean, model = nn.Linear(2, 1), nn.Linear(2, 1)
    nn.init.ones_(mean.weight)
    nn.init.zeros_(model.weight)
    update_mean(mean, model, 0.99, updates)
    assert mean.weight.tolist() == [[pytest.approx(decay)] * 2]
