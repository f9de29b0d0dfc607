import dataclasses

import pytest
import torch
from torch import Tensor, nn

from vit.hints import Hint, Hints
from vit.model import ViTConfig


def random_maps(channels: int, side: int, count: int = 6) -> Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(3))


def wanted(hint: Hint, features: Tensor) -> Tensor:
    """Return patches that are in every place as the hint wants them: (B, side * side, D)."""
    return (features.flatten(2).mT - hint.mean) @ hint.turn


@pytest.mark.parametrize("channels", [3, 16, 40])  # fewer than, as many as, more than D
def test_patches_that_look_alike(channels: int) -> None:
    features = 5 + random_maps(channels, 4)
    hint = Hint(features, embed_dim=16)
    patches = wanted(hint, features)
    # How long each of them is does not matter.
    lengths = torch.rand(1, patches.shape[1], 1) + 0.5
    assert hint(lengths * patches, features) == pytest.approx(0, abs=1e-4)
    assert hint(-patches, features) == pytest.approx(2 * 6, abs=1e-4)  # of six pictures
    elsewhere = hint(patches.roll(1, dims=1), features)
    assert 0.5 * 6 < elsewhere < 1.5 * 6


@pytest.mark.parametrize("side", [1, 2, 8])
def test_a_map_of_another_grid_is_stretched(side: int) -> None:
    """A map that is the same in all places is so in any grid."""
    features = random_maps(5, 1).expand(-1, -1, side, side)
    hint = Hint(features, embed_dim=16)
    assert hint(wanted(hint, features)[:, :1].expand(-1, 16, -1), features) < 1e-4


def test_a_finer_map_is_averaged() -> None:
    features = random_maps(5, 8)
    hint = Hint(features, embed_dim=16)
    coarse = features.unflatten(2, (2, 4)).unflatten(4, (2, 4)).mean((3, 5))
    assert hint(wanted(hint, coarse), features) < 1e-4


@pytest.mark.parametrize("count", [1, 6])
def test_features_that_are_all_alike_give_numbers(count: int) -> None:
    """As of a single picture, or of a teacher that knows nothing."""
    features = torch.ones(count, 5, 1, 1)
    assert Hint(features, 16)(torch.randn(count, 16, 16), features).isfinite()


def test_every_channel_counts_as_much_and_a_dead_one_no_more() -> None:
    features = random_maps(4, 4)
    patches = wanted(Hint(features, 16), features)
    scale = torch.tensor([1.0, 10.0, 0.5, 1.0]).view(1, 4, 1, 1)
    assert Hint(scale * features, 16)(patches, scale * features) < 1e-4
    dead = features.clone()
    dead[:, 3] = 0
    hint = Hint(dead, 16)
    dead[:, 3] = 0.01  # a hundredth of what the others do
    assert hint(patches, dead) < 0.5 * len(features)


def test_the_maps_of_a_teacher(tiny_config: ViTConfig) -> None:
    """After two, four and six of six blocks, of the same pictures, without the class token."""
    config = dataclasses.replace(tiny_config, depth=6, distilled=True)
    maps = random_maps(3, 4), random_maps(5, 4), random_maps(7, 4)
    hints = Hints(maps, config, weight=1.5)
    tokens = [torch.full((6, 2 + 16, 16), torch.nan) for _ in range(6)]
    for block, hint, features in zip((1, 3, 5), hints.each, maps, strict=True):
        tokens[block][:, 2:] = wanted(hint, features)
    assert hints(tokens, maps) == pytest.approx(0, abs=1e-3)
    tokens[3][:, 2:] *= -1
    assert hints(tokens, maps) == pytest.approx(1.5 * 2 * 6, abs=1e-3)


@pytest.mark.parametrize(
    ("depth", "blocks"), [(1, [1, 1, 1]), (2, [1, 1, 2]), (6, [2, 4, 6]), (10, [3, 7, 10])]
)
def test_after_which_blocks(tiny_config: ViTConfig, depth: int, blocks: list[int]) -> None:
    maps = random_maps(3, 4), random_maps(5, 4), random_maps(7, 4)
    assert Hints(maps, dataclasses.replace(tiny_config, depth=depth), 1.0).blocks == blocks


def test_nothing_of_it_is_trained_or_by_chance(tiny_config: ViTConfig) -> None:
    maps = random_maps(3, 4), random_maps(5, 4), random_maps(7, 4)
    first, second = (Hints(maps, tiny_config, 1.0) for _ in range(2))
    assert not list(first.parameters())
    for ours, theirs in zip(first.buffers(), second.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    assert isinstance(first, nn.Module)  # so it is compiled and moved with the objective
