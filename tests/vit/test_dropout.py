import pytest
import torch
from torch import Tensor, nn

from vit.dropout import SHIFTS, Dropout, DropPath, PatchDropout, multiplier_pool

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


def patch_dropout(p: float, prefix: int = 1) -> PatchDropout:
    module = PatchDropout(prefix)
    module.p = p
    return module


@pytest.mark.parametrize(
    ("p", "prefix", "kept"),
    [
        (0.5, 1, 8),  # half of the sixteen patches
        (0.5, 2, 8),  # 7.5 of fifteen
        (0.7, 0, 5),  # 5.1 of seventeen
        (0.99, 1, 1),  # one at least
    ],
)
def test_patch_dropout_keeps_the_prefix_and_some_patches(p: float, prefix: int, kept: int) -> None:
    torch.manual_seed(0)
    x = torch.arange(200.0 * 17 * 2).view(200, 17, 2)
    out = patch_dropout(p, prefix)(x)
    assert out.shape == (200, prefix + kept, 2)
    assert torch.equal(out[:, :prefix], x[:, :prefix])
    places = (out[:, prefix:, 0] - x[:, :1, 0]) / 2  # which token it was
    assert all(len(set(row)) == kept and min(row) >= prefix for row in places.tolist())
    assert len(places.unique()) == 17 - prefix  # in one image or another each is kept


@pytest.mark.parametrize("module", [Dropout(0.5), DropPath(0.5), patch_dropout(0.5)])
def test_the_seed_decides(module: nn.Module) -> None:
    x = ones().cumsum(1)  # each token another value
    torch.manual_seed(1)
    first, second = module(x), module(x)
    torch.manual_seed(1)
    multiplier_pool.cache_clear()  # as after a restart
    assert torch.equal(module(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "module", [Dropout(0.5).eval(), DropPath(0.5).eval(), patch_dropout(0.5).eval(), Dropout(0.0)]
)
def test_identity(module: nn.Module) -> None:
    assert torch.equal(module(ones()), ones())


def test_the_parts_of_a_model_share_one_pool() -> None:
    """Or those of two models in turn would draw their pools anew in each step."""
    multiplier_pool.cache_clear()
    for tokens, width in [(65, 256), (65, 512), (1, 256), (64, 512)]:
        Dropout(0.1)(torch.ones(128, tokens, width))
    assert multiplier_pool.cache_info().currsize == 1


def test_the_gradient_passes_where_the_value_did() -> None:
    x = ones().requires_grad_()
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out)


def test_any_slice_fits_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor(SHIFTS - 1))  # the last one
    for size in (1, SHIFTS, SHIFTS + 1):
        assert Dropout(0.5)(torch.ones(size)).shape == (size,)
