import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vit.checkpoint import load_checkpoint
from vit.model import ViT
from vit.start import resize_patch_embed, resize_positions, start_from

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (4, 2),  # finer patches, more tokens
        (2, 4),  # coarser
        (2, 2),  # the same
    ],
)
def test_a_resized_embedding_says_the_same_of_a_resized_patch(old: int, new: int) -> None:
    weight = torch.randn(5, 3, old, old)
    patch = torch.randn(1, 3, min(old, new), min(old, new))
    before = F.interpolate(patch, size=(old, old), mode="nearest")
    after = F.interpolate(patch, size=(new, new), mode="nearest")
    resized = resize_patch_embed(weight, new)
    assert resized.shape == (5, 3, new, new)
    torch.testing.assert_close(F.conv2d(after, resized), F.conv2d(before, weight))


@pytest.mark.parametrize(("old", "new"), [(8, 12), (4, 6), (6, 8)])
def test_patches_that_grow_by_a_fraction_keep_their_answers(old: int, new: int) -> None:
    weight, patch = torch.randn(5, 3, old, old), torch.randn(1, 3, old, old)
    grown = F.interpolate(patch, size=(new, new), mode="area")
    before, after = F.conv2d(patch, weight), F.conv2d(grown, resize_patch_embed(weight, new))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_positions_keep_their_prefix_and_their_places() -> None:
    # One channel counts columns, the other rows; two tokens stand before the grid of 2 x 2.
    grid = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    prefix = torch.tensor([[7.0, 7.0], [8.0, 8.0]])
    resized = resize_positions(torch.cat((prefix, grid))[None], prefix=2, grid_size=4)[0]
    assert torch.equal(resized[:2], prefix)
    columns, rows = resized[2:].view(4, 4, 2).unbind(-1)
    assert torch.equal(columns, rows.T)
    assert (columns.diff(dim=1) > 0).all() and (columns.diff(dim=0) == 0).all()
    assert torch.equal(resize_positions(resized[None], 2, 4)[0], resized)


@pytest.mark.parametrize(
    ("classes", "same_head"),
    [
        (("red", "green", "blue"), True),
        (("red", "blue", "green"), False),  # another order is another head
        (("cat", "dog"), False),
    ],
)
def test_the_same_picture_twice_as_large_gets_the_same_answer(
    make_checkpoint: Write, make_model: Callable[..., ViT], classes: Sequence[str], same_head: bool
) -> None:
    """Patches that grow with the picture see the same, so only a new head answers otherwise."""
    checkpoint = load_checkpoint(make_checkpoint(pool="mean"))
    model = make_model(pool="mean", image_size=16, patch_size=4, num_classes=len(classes))
    own_head = model.head.weight.detach().clone()
    start_from(model, checkpoint, classes)
    small = torch.randn(2, 3, 8, 8)
    large = F.interpolate(small, scale_factor=2, mode="nearest")
    if same_head:
        torch.testing.assert_close(model(large), checkpoint.model(small))
    else:
        assert torch.equal(model.head.weight, own_head)
        old, new = checkpoint.model.forward_to_learn(small), model.forward_to_learn(large)
        torch.testing.assert_close(new[2], old[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 1}, "start is of a model with {'depth': 2}; this one has {'depth': 1}"),
        ({"pool": "mean"}, "{'pool': 'cls'}; this one has {'pool': 'mean'}"),
        ({"stem": "conv", "patch_size": 4}, "'stem': 'patch'"),
    ],
)
def test_another_architecture_is_refused(
    tiny_checkpoint: Path,
    make_model: Callable[..., ViT],
    options: dict[str, Any],
    message: str,
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    with pytest.raises(ValueError, match=re.escape(message)):
        start_from(make_model(**options), checkpoint, checkpoint.classes)
