import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.vit.configs import ADAMW, EVERYTHING, MUON
from vit import update
from vit.checkpoint import Preprocessing
from vit.data import ImageSet, normalize
from vit.model import ViT, ViTConfig
from vit.recipes import TrainConfig
from vit.teacher import Answer, load_teacher
from vit.update import Update

Make = Callable[..., Update]
BATCH = torch.tensor([7, 0, 12, 3])


@pytest.fixture
def make(tiny_config: ViTConfig, tiny_set: ImageSet) -> Make:
    """Return a function that makes the update of a new model, with the same weights each time."""

    def build(config: TrainConfig, teach: Callable[[Tensor], Answer] | None = None) -> Update:
        torch.manual_seed(1)
        sizes = {"dropout": config.dropout, "pool": config.pool, "distilled": bool(teach)}
        model = ViT(dataclasses.replace(tiny_config, **sizes))
        return Update(model.train(), config, tiny_set.train, Preprocessing(), teach)

    return build


def step(one: Update, seed: int = 0, factor: float = 1.0, plain: bool = False) -> Tensor:
    return one(BATCH, factor=factor, seed=seed, plain=plain)


@pytest.mark.parametrize("config", [ADAMW, EVERYTHING], ids=["adamw", "everything"])
def test_the_seed_decides_a_step(make: Make, config: TrainConfig) -> None:
    """What was drawn before does not matter; the factor is 0, so the weights stay as they are."""
    one = make(config)
    first = step(one, factor=0.0)
    torch.rand(5)
    assert torch.equal(step(one, factor=0.0), first)
    one.model.head.weight.data.normal_()  # at first all answers are the same
    assert not torch.equal(step(one, factor=0.0), step(one, seed=1, factor=0.0))


def test_the_rate_is_of_the_peak(make: Make) -> None:
    one = make(MUON)
    for factor in (0.5, 0.25):
        step(one, factor=factor)
        muon, adamw = one.optimizers
        assert {group["lr"] for group in muon.param_groups} == {0.02 * factor}
        assert {group["lr"] for group in adamw.param_groups} == {3e-3 * factor}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("accumulate", [2, 3, 4])  # 3 does not divide a batch of 4
def test_accumulation_equals_the_whole_batch(make: Make, optimizer: str, accumulate: int) -> None:
    config = dataclasses.replace(ADAMW, optimizer=optimizer, dropout=0.0, cutmix=0.5)
    whole, parts = make(config), make(dataclasses.replace(config, accumulate=accumulate))
    for seed in range(4):
        torch.testing.assert_close(step(parts, seed), step(whole, seed))
    for ours, theirs in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("plain", "share"), [(False, 0.5), (True, 0.0)])
def test_a_plain_step(
    make: Make, monkeypatch: pytest.MonkeyPatch, plain: bool, share: float
) -> None:
    asked = []

    def record(images: Tensor, targets: Tensor, _: TrainConfig, plain: bool) -> tuple:
        asked.append(plain)
        return images, targets

    monkeypatch.setattr(update, "augment", record)
    one = make(dataclasses.replace(ADAMW, patch_dropout=0.5))
    step(one, plain=plain)
    assert asked == [plain]
    assert one.model.patch_dropout.p == share


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sharpness_aware_gradient(make: Make, accumulate: int) -> None:
    """It is that of weights which lie `sam_rho` away along the gradient; the weights stay."""
    config = dataclasses.replace(ADAMW, dropout=0.0, augment="none", accumulate=accumulate)
    one, other = make(dataclasses.replace(config, sam_rho=0.3)), make(config)
    for update_ in (one, other):
        torch.manual_seed(2)
        nn.init.normal_(update_.model.head.weight)  # at first all answers are the same
    weights = list(other.model.parameters())
    here = step(other, factor=0.0)
    gradients = [weight.grad for weight in weights]
    length = sum(gradient.square().sum() for gradient in gradients).sqrt()
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.data += 0.3 * gradient / length
    there = step(other, factor=0.0)
    before = [weight.detach().clone() for weight in one.model.parameters()]
    torch.testing.assert_close(step(one, factor=0.0), there)
    assert there > here
    for ours, was, theirs in zip(one.model.parameters(), before, weights, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(ours, was)


def test_a_teacher_is_asked_once_a_part(make: Make) -> None:
    asked = []

    def teach(images: Tensor) -> Answer:
        asked.append(images)
        return Answer(torch.zeros(len(images), 3))

    step(make(dataclasses.replace(ADAMW, sam_rho=0.1, accumulate=2), teach))
    assert [len(images) for images in asked] == [2, 2]


def test_a_student_is_taught_what_it_sees(
    make: Make, tiny_set: ImageSet, tiny_checkpoint: Path
) -> None:
    """Its second head learns the teacher's answers to the augmented images."""
    teach, asked = load_teacher(str(tiny_checkpoint), tiny_set.classes, torch.device("cpu")), []
    student = make(ADAMW, lambda images: asked.append(images) or teach(images))
    before = student.model.distill_head.weight.detach().clone()
    step(student)
    assert asked[0].shape == (4, 3, 8, 8)
    assert not any((asked[0][0] == image).all() for image in tiny_set.train.images)
    assert not torch.equal(student.model.distill_head.weight, before)


def test_the_patches_of_a_student_come_near_to_the_maps(make: Make) -> None:
    """The teacher sees one channel a colour, in each map half as many places as in the last."""

    def teach(images: Tensor) -> Answer:
        maps = [F.avg_pool2d(images.float(), size) for size in (1, 2, 4)]
        return Answer(torch.zeros(len(images), 3), tuple(maps))

    student = make(dataclasses.replace(MUON, hint=3.0, teacher="convnet:net"), teach)
    pictures = student.split.images[BATCH]
    maps, hints = teach(pictures).maps, student.objective.hints
    assert hints.weight == 3

    def loss() -> Tensor:
        inputs = normalize(pictures, *student.statistics)
        return hints(student.model.forward_to_learn(inputs)[2], maps) / (3 * len(BATCH))

    assert loss() > 2  # of three maps, which have nothing to do with the tokens at first
    for seed in range(60):
        step(student, seed)
    assert loss() < 0.5


def test_without_a_hint_in_the_recipe_there_is_none(make: Make) -> None:
    assert make(MUON, lambda images: Answer(torch.zeros(len(images), 3))).objective.hints is None


def test_features_are_measured_on_pictures_of_all_classes(
    make: Make, tiny_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives have one class after the other. A part is as large as a batch, for the memory."""
    asked = []

    def teach(images: Tensor) -> Answer:
        asked.append(images)
        maps = F.avg_pool2d(images.float(), 2)
        return Answer(torch.zeros(len(images), 3), (maps,) * 3)

    order = tiny_set.train.labels.argsort()
    tiny_set.train.images[:] = tiny_set.train.images[order]
    tiny_set.train.labels[:] = tiny_set.train.labels[order]
    monkeypatch.setattr(update, "KNOWN", 9)
    make(dataclasses.replace(MUON, hint=1.0, teacher="convnet:net"), teach)
    assert [len(images) for images in asked] == [4, 4, 1]
    brightest = torch.cat(asked).float().mean((2, 3)).argmax(1)  # of the colours, so the class
    assert set(brightest.tolist()) == {0, 1, 2}
