import pytest
import torch
from torch import Tensor, nn

from vit.dropout import SHIFTS, Dropout, DropPath, multiplier_pool

SHAPE = (300, 17, 24)


def ones(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(SHAPE, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_rate_and_scale(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    out = Dropout(p)(ones(dtype))
    assert out.dtype == dtype
    # Exactly what torch's own dropout scales by, rounding included.
    assert set(out.unique().tolist()) == set(nn.Dropout(p)(ones(dtype)).unique().tolist())
    # Five standard deviations of 122,400 draws.
    assert (out == 0).float().mean().item() == pytest.approx(p, abs=5 * (p / 122_400) ** 0.5)
    per_position = (out == 0).float().mean(0)
    assert per_position.max() < p + 0.2  # no position of the batch is dropped more often


def test_drop_path_drops_whole_images() -> None:
    torch.manual_seed(0)
    out = DropPath(0.25)(torch.ones(2000, 3, 4))
    assert (out.amin((1, 2)) == out.amax((1, 2))).all()
    assert sorted(out.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("module", [Dropout(0.5), DropPath(0.5)])
def test_the_seed_decides(module: nn.Module) -> None:
    torch.manual_seed(1)
    first, second = module(ones()), module(ones())
    torch.manual_seed(1)
    multiplier_pool.cache_clear()  # as after a restart
    assert torch.equal(module(ones()), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("module", [Dropout(0.5).eval(), DropPath(0.5).eval(), Dropout(0.0)])
def test_identity(module: nn.Module) -> None:
    assert torch.equal(module(ones()), ones())


def test_the_gradient_passes_where_the_value_did() -> None:
    x = ones().requires_grad_()
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out)


def test_any_slice_fits_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor(SHIFTS - 1))  # the last one
    for size in (1, SHIFTS, SHIFTS + 1):
        assert Dropout(0.5)(torch.ones(size)).shape == (size,)
