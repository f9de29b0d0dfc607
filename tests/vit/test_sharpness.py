import pytest
import torch
from torch import Tensor, nn

from vit.sharpness import uphill


@pytest.fixture
def weights() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (5,), ())]


def loss(weights: list[nn.Parameter]) -> Tensor:
    """Steep along the first, flat along the others."""
    return sum(
        factor * weight.square().sum() for factor, weight in zip((9, 1, 1), weights, strict=True)
    )


def flat(weights: list[nn.Parameter]) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in weights])


@pytest.mark.parametrize("rho", [0.01, 2.0])
def test_there_and_back(weights: list[nn.Parameter], rho: float) -> None:
    before, low = flat(weights), loss(weights)
    low.backward()
    gradient = torch.cat([weight.grad.flatten() for weight in weights])
    with uphill(weights, rho):
        way = flat(weights) - before
        assert loss(weights) > low
    assert way.norm() == pytest.approx(rho, rel=1e-4)
    assert torch.cosine_similarity(way, gradient, dim=0) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(flat(weights), before)


def test_the_gradient_of_the_block_is_kept(weights: list[nn.Parameter]) -> None:
    loss(weights).backward()
    with uphill(weights, 0.5):
        there = [weight.detach().clone() for weight in weights]
        for weight in weights:
            weight.grad = None
        loss(weights).backward()
    for weight, place, factor in zip(weights, there, (9, 1, 1), strict=True):
        torch.testing.assert_close(weight.grad, 2 * factor * place)


def test_who_has_no_gradient_stays(weights: list[nn.Parameter]) -> None:
    weights[0].square().sum().backward()
    with uphill(weights, 1.0):
        moved = [weight.detach().clone() for weight in weights]
    assert [torch.equal(a, b) for a, b in zip(moved, weights, strict=True)] == [False, True, True]


def test_at_the_bottom_nothing_moves(weights: list[nn.Parameter]) -> None:
    """A gradient of 0 has no direction."""
    (0 * loss(weights)).backward()
    before = flat(weights)
    with uphill(weights, 1.0):
        assert torch.equal(flat(weights), before)


def test_back_after_an_error(weights: list[nn.Parameter]) -> None:
    loss(weights).backward()
    before = flat(weights)
    with pytest.raises(ValueError, match="stop"), uphill(weights, 1.0):
        raise ValueError("stop")
    torch.testing.assert_close(flat(weights), before)
