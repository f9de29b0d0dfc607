import pytest
from torch import nn

from vit.model import ViT
from vit.optimizers import build_optimizers, update_mean
from vit.recipes import TrainConfig


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
