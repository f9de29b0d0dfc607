from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vit.learned import patch_filters, position_similarity
from vit.model import ViT


@pytest.mark.parametrize("options", [{}, {"pool": "mean"}, {"distilled": True}], ids=str)
def test_similarity_of_the_patches_only(
    make_model: Callable[..., ViT], options: dict[str, Any]
) -> None:
    model = make_model(**options)
    got = position_similarity(model).view(16, 16)
    places = model.pos_embed[0, model.config.num_prefix_tokens :].detach().numpy()
    for i in range(16):
        for j in range(16):
            size = np.linalg.norm(places[i]) * np.linalg.norm(places[j])
            assert float(got[i, j]) == pytest.approx(places[i] @ places[j] / size, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (12, 3, 2, 2)),  # no more components than numbers in a patch
        ({"stem": "conv"}, (16, 3, 3, 3)),  # a single convolution for patches of 2
        ({"patch_size": 4}, (15, 3, 4, 4)),  # fewer components than filters
    ],
    ids=str,
)
def test_filters(
    make_model: Callable[..., ViT], options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    filters = patch_filters(make_model(**options))
    assert filters.shape == shape
    assert filters.amin((1, 2, 3)).tolist() == [0] * shape[0]
    assert filters.amax((1, 2, 3)).tolist() == [1] * shape[0]


def test_filters_that_are_all_alike(make_model: Callable[..., ViT]) -> None:
    """As of a model of a single channel: nothing is important, and there is something to draw."""
    model = make_model()
    torch.nn.init.ones_(model.patch_embed.proj.weight)
    assert len(patch_filters(model)) > 0


def test_the_first_filter_is_what_the_filters_share_most(tiny_model: ViT) -> None:
    pattern = torch.rand(3, 2, 2)
    with torch.no_grad():
        weight = tiny_model.patch_embed.proj.weight
        weight *= 0.01
        weight += pattern * torch.linspace(-1, 1, len(weight)).view(-1, 1, 1, 1)
        weight += 3 * torch.rand(3, 2, 2)  # in what all have alike they do not differ
    first, pattern = patch_filters(tiny_model)[0].flatten(), pattern.flatten()
    assert abs(np.corrcoef(first, pattern)[0, 1]) > 0.99
