import pytest
import torch

from vit.model import ViT
from vit.optimizers import build_optimizers, moving_average
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
def test_moving_average(updates: int, decay: float) -> None:
    got = moving_average(0.99)(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(updates))
    assert float(got) == pytest.approx(decay)
