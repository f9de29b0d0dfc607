import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from vit.hints import Hints
from vit.model import ViT, ViTConfig
from vit.objective import Objective
from vit.teacher import Answer


def test_smoothing_gives_every_class_a_share(tiny_model: ViT) -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.3, 0.7]])  # one of CutMix
    wanted = 0.9 * targets + 0.1 / 3
    expected = -(wanted * tiny_model(images).log_softmax(1)).sum()
    got = Objective(tiny_model, label_smoothing=0.1)(images, targets, None)
    torch.testing.assert_close(got, expected)


def test_distillation_is_half_of_the_loss(tiny_config: ViTConfig) -> None:
    model = ViT(dataclasses.replace(tiny_config, distilled=True)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    targets, answers = torch.eye(3)[[0, 1, 2, 0, 1]], [2, 2, 1, 1, 0]
    taught = torch.randn(5, 3) + 9 * torch.eye(3)[answers]
    logits, distilled, _ = model.forward_to_learn(images)
    first = -(targets * logits.log_softmax(1)).sum()
    second = -distilled.log_softmax(1)[range(5), answers].sum()
    got = Objective(model, label_smoothing=0.0)(images, targets, Answer(taught))
    torch.testing.assert_close(got, (first + second) / 2)


def test_without_its_token_the_head_learns_the_teachers_probabilities(
    make_model: Callable[..., ViT],
) -> None:
    model = make_model(pool="mean")
    images, taught = torch.randn(2, 3, 8, 8), torch.tensor([[0.0, 1.0, 2.0], [5.0, 0.0, 0.0]])
    targets = torch.eye(3)[[0, 1]]
    logs = model(images).log_softmax(1)
    wanted = (targets + taught.softmax(1)) / 2
    got = Objective(model, label_smoothing=0.0)(images, targets, Answer(taught))
    torch.testing.assert_close(got, -(wanted * logs).sum())


@pytest.mark.parametrize("options", [{"pool": "mean"}, {"distilled": True}], ids=str)
def test_hints_come_on_top(make_model: Callable[..., ViT], options: dict[str, object]) -> None:
    model = make_model(**options)
    images, targets = torch.randn(2, 3, 8, 8), torch.eye(3)[[0, 1]]
    maps = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 4, 4), torch.randn(2, 7, 2, 2)
    taught = Answer(torch.randn(2, 3), maps)
    hints = Hints(taught.maps, model.config, weight=2.0)
    extra = hints(model.forward_to_learn(images)[2], taught.maps)
    plain = Objective(model, label_smoothing=0.0)(images, targets, taught)
    assert extra > 0.5
    got = Objective(model, 0.0, hints)(images, targets, taught)
    torch.testing.assert_close(got, plain + extra)
