import pytest
import torch
from torch import Tensor, nn

from vit.muon import Muon, orthogonalize


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def step(weights: list[Tensor], gradients: list[Tensor], **options: float) -> list[Tensor]:
    """Return the weights after one step of Muon."""
    params = [nn.Parameter(weight.clone()) for weight in weights]
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = gradient.clone()
    split = options.pop("split", 1)
    Muon([{"params": params, "split": split}], **{"lr": 0.1, **options}).step()
    return [param.detach() for param in params]


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 9), (2, 12, 5), (1, 1, 6)])
def test_orthogonalize(shape: tuple[int, ...]) -> None:
    matrices = noise(*shape)
    got = orthogonalize(matrices)
    assert got.shape == shape
    values = torch.linalg.svdvals(got)
    assert values.min() > 0.3
    assert values.max() < 1.3
    # The singular vectors stay: with those of the input on both sides it is diagonal.
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    inside = u.mT @ got @ vh.mT
    torch.testing.assert_close(inside, torch.diag_embed(inside.diagonal(dim1=1, dim2=2)),
                               atol=2e-3, rtol=0)  # fmt: skip


def test_orthogonalize_does_each_matrix_alone() -> None:
    matrices = torch.stack((noise(4, 6), 1000 * noise(4, 6, seed=1)))
    torch.testing.assert_close(orthogonalize(matrices)[1:], orthogonalize(matrices[1:]))


def test_zero_gradient_moves_nothing() -> None:
    weight = noise(4, 4)
    assert torch.equal(step([weight], [torch.zeros(4, 4)])[0], weight)


def test_split_is_as_many_weights() -> None:
    """A stacked qkv weight moves as its three parts do, and not as one matrix."""
    weight, gradient = noise(12, 4), noise(12, 4, seed=1)
    parts = step(list(weight.chunk(3)), list(gradient.chunk(3)))
    torch.testing.assert_close(step([weight], [gradient], split=3)[0], torch.cat(parts))
    assert not torch.allclose(step([weight], [gradient])[0], torch.cat(parts), atol=1e-2)


def test_equal_shapes_are_not_mixed_up() -> None:
    weights = [noise(4, 4, seed=i) for i in range(3)]
    gradients = [noise(4, 4, seed=i + 3) for i in range(3)]
    together = step(weights, gradients)
    alone = [step([w], [g])[0] for w, g in zip(weights, gradients, strict=True)]
    torch.testing.assert_close(together, alone)


def test_weight_decay_is_decoupled() -> None:
    weight, gradient = noise(4, 4), noise(4, 4, seed=1)
    plain, decayed = (step([weight], [gradient], weight_decay=wd)[0] for wd in (0.0, 0.5))
    torch.testing.assert_close(plain - decayed, weight * 0.1 * 0.5)


def test_tall_matrices_move_further() -> None:
    moved = [step([torch.zeros(s)], [noise(*s)])[0] for s in ((16, 4), (4, 16))]
    norms = [torch.linalg.svdvals(m).mean() for m in moved]
    assert norms[0] / norms[1] == pytest.approx(2, rel=0.2)


def test_momentum_remembers() -> None:
    param = nn.Parameter(torch.zeros(4, 4))
    optimizer = Muon([{"params": [param]}], lr=0.1)
    for gradient in (noise(4, 4), noise(4, 4, seed=1)):
        before = param.detach().clone()
        param.grad = gradient
        optimizer.step()
    alone = step([before], [noise(4, 4, seed=1)])[0]
    assert not torch.allclose(param, alone, atol=1e-3)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has one from 2.9 on")
@pytest.mark.parametrize("shape", [(8, 8), (12, 4), (4, 12)])
def test_equals_torchs_own(shape: tuple[int, int]) -> None:
    ours, theirs = nn.Parameter(noise(*shape)), nn.Parameter(noise(*shape))
    optimizers = (
        Muon([{"params": [ours]}], lr=0.1, weight_decay=0.1, precision=torch.bfloat16),
        torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="original"),
    )
    for seed in range(5):
        for param, optimizer in zip((ours, theirs), optimizers, strict=True):
            param.grad = noise(*shape, seed=seed + 1)
            optimizer.step()
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # bfloat16


def test_without_gradient_nothing_happens() -> None:
    param = nn.Parameter(noise(4, 4))
    Muon([{"params": [param]}], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(param, noise(4, 4))
