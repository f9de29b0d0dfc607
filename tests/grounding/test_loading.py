import torch
from torch import nn

from grounding.loading import NoInit


def test_nothing_is_drawn_and_the_rest_is_computed() -> None:
    state = torch.get_rng_state()
    with NoInit():
        model = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(2, 2, 3), nn.Embedding(5, 2))
        nn.init.trunc_normal_(model[0].weight, std=0.02)
        positions = torch.arange(3).float().sin()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(positions, torch.arange(3).float().sin())
    assert nn.Linear(3, 4).weight.std() > 0  # afterwards as ever


def test_what_draws_still_returns_its_tensor() -> None:
    """Some models go on with what they get back."""
    with NoInit():
        drawn = torch.empty(2)
        assert drawn.normal_() is drawn
        assert nn.init.zeros_(drawn) is nn.init.zeros_(tensor=drawn) is drawn
