import dataclasses
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vit import training
from vit.checkpoint import Preprocessing, load_checkpoint, load_tensors
from vit.data import ImageSet
from vit.model import ViTConfig
from vit.training import RECIPES, TrainConfig, Trainer, build_optimizers, evaluate, learning_rate

ADAMW = TrainConfig(batch_size=4, epochs=3, crop_padding=1, lr=3e-3)
MUON = dataclasses.replace(ADAMW, optimizer="muon", schedule="linear", warmup=0.2, precision="bf16")

Make = Callable[[TrainConfig, str], Trainer]


@pytest.fixture
def make(tmp_path: Path, tiny_config: ViTConfig, tiny_set: ImageSet) -> Make:
    """Return a function that makes a trainer; thirteen pictures are three steps an epoch."""

    def trainer(config: TrainConfig, folder: str) -> Trainer:
        sizes = dataclasses.replace(tiny_config, dropout=config.dropout)
        return Trainer(config, sizes, tiny_set, tmp_path / folder, torch.device("cpu"))

    return trainer


def interrupt_after(trainer: Trainer, steps: int) -> None:
    """Send ourselves what Ctrl-C sends while the trainer is in its step number `steps`."""
    train_step = trainer.train_step

    def interrupted(total: int) -> Tensor:
        loss = train_step(total)
        if trainer.step == steps:
            signal.raise_signal(signal.SIGINT)
        return loss

    trainer.train_step = interrupted


def accuracies(trainer: Trainer) -> list[tuple[float, float, float]]:
    return [(row["epoch"], row["loss"], row["test_accuracy"]) for row in trainer.history]


@pytest.mark.parametrize("config", [ADAMW, MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("steps", [3, 4], ids=["between epochs", "inside an epoch"])
def test_resumed_is_the_same_as_never_stopped(make: Make, config: TrainConfig, steps: int) -> None:
    straight = make(config, "straight")
    straight.run()
    first = make(config, "stopped")
    interrupt_after(first, steps)
    first.run()
    assert first.step == steps
    second = make(config, "stopped")
    second.resume()
    second.run()

    assert straight.step == second.step == 9
    assert accuracies(straight) == accuracies(second)
    tensors = [load_tensors(t.folder / "state.safetensors")[0] for t in (straight, second)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


def test_interrupt_saves_and_says_how_to_go_on(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    trainer = make(ADAMW, "stopped")
    interrupt_after(trainer, 2)
    trainer.run()
    assert signal.getsignal(signal.SIGINT) is before
    assert (
        f"Stopped at step 2 of 9; go on with --resume {trainer.folder}" in capsys.readouterr().out
    )
    assert load_tensors(trainer.folder / "state.safetensors")[1]["step"] == 2


def test_resume_refuses_another_recipe(make: Make) -> None:
    make(ADAMW, "run").save_state()
    other = make(dataclasses.replace(ADAMW, lr=0.5), "run")
    with pytest.raises(
        ValueError, match=re.escape("was trained with {'lr': 0.003}; give the same")
    ):
        other.resume()


def test_resume_needs_a_state(make: Make) -> None:
    with pytest.raises(ValueError, match=r"state\.safetensors is not a checkpoint"):
        make(ADAMW, "nothing").resume()


@pytest.mark.parametrize("config", [ADAMW, MUON], ids=["adamw", "muon"])
def test_learns_and_the_best_checkpoint_loads(
    make: Make, tiny_set: ImageSet, config: TrainConfig
) -> None:
    trainer = make(dataclasses.replace(config, epochs=15, dropout=0.0, test_every=5), "run")
    trainer.run()
    checkpoint = load_checkpoint(trainer.folder / "best.safetensors")
    assert checkpoint.metrics["test_accuracy"] == max(r["test_accuracy"] for r in trainer.history)
    assert checkpoint.metrics["test_accuracy"] == 1
    assert evaluate(checkpoint.model, tiny_set.test, checkpoint.preprocessing) == 1
    assert checkpoint.classes == ("red", "green", "blue")
    assert checkpoint.recipe["train_images"] == 13
    assert checkpoint.metrics["test_images"] == 9
    assert checkpoint.metrics["data"] == "colours"
    assert not checkpoint.model.training


def test_the_best_epoch_is_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter((0.5, 0.75, 0.25))
    monkeypatch.setattr(training, "evaluate", lambda *_: next(scores))
    trainer = make(ADAMW, "run")
    trainer.run()
    metrics = load_checkpoint(trainer.folder / "best.safetensors").metrics
    assert (metrics["epoch"], metrics["test_accuracy"]) == (2, 0.75)
    assert [row["epoch"] for row in trainer.history] == [1, 2, 3]


@pytest.mark.parametrize(
    ("test_every", "tested"),
    [(1, [1, 2, 3]), (2, [2, 3]), (9, [3])],  # the last epoch always
)
def test_test_every(make: Make, test_every: int, tested: list[int]) -> None:
    trainer = make(dataclasses.replace(ADAMW, test_every=test_every), "run")
    trainer.run()
    assert [row["epoch"] for row in trainer.history] == tested


def test_every_picture_once_an_epoch(make: Make) -> None:
    trainer = make(ADAMW, "run")
    orders = [trainer._epoch_order(epoch).tolist() for epoch in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(13))
    assert orders[0] != orders[1]


def test_evaluate_leaves_the_mode_as_it_was(make: Make, tiny_set: ImageSet) -> None:
    model = make(ADAMW, "run").model
    for mode in (True, False):
        model.train(mode)
        assert 0 <= evaluate(model, tiny_set.test, Preprocessing()) <= 1
        assert model.training is mode


COSINE, LINEAR = TrainConfig(), TrainConfig(schedule="linear", warmup=0.1)


@pytest.mark.parametrize(
    ("config", "step", "factor"),
    [
        (COSINE, 0, 1.0),  # no warm-up: the peak at once
        (COSINE, 50, 0.5),
        (COSINE, 100, 0.0),
        (COSINE, 25, 0.853553),
        (LINEAR, 0, 0.1),  # the first step already moves
        (LINEAR, 9, 1.0),
        (LINEAR, 10, 1.0),
        (LINEAR, 55, 0.5),
        (LINEAR, 100, 0.0),
    ],
)
def test_learning_rate(config: TrainConfig, step: int, factor: float) -> None:
    assert learning_rate(step, 100, config) == pytest.approx(factor, abs=1e-6)


def test_learning_rate_reaches_the_optimizers(make: Make) -> None:
    trainer = make(MUON, "run")
    trainer.step = 5
    trainer.train_step(9)
    factor = learning_rate(5, 9, MUON)
    muon, adamw = trainer.optimizers
    assert {group["lr"] for group in muon.param_groups} == {0.02 * factor}
    assert {group["lr"] for group in adamw.param_groups} == {3e-3 * factor}


@pytest.mark.parametrize("config", [ADAMW, MUON], ids=["adamw", "muon"])
def test_every_weight_has_one_optimizer_and_only_matrices_decay(
    make: Make, config: TrainConfig
) -> None:
    model = make(config, "run").model
    groups = [group for o in build_optimizers(model, config) for group in o.param_groups]
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in model.blocks.parameters() if p.ndim == 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; choose one of ('adamw', 'muon')"),
        ({"schedule": "step"}, "schedule is 'step'; choose one of ('cosine', 'linear')"),
        ({"lr": 0.0}, "lr is 0.0; it must be above 0"),
        ({"epochs": -1}, "epochs is -1; it must be above 0"),
    ],
)
def test_impossible_recipes(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainConfig(**changes)


def test_recipes() -> None:
    assert RECIPES["reference"] == TrainConfig()
    for recipe in RECIPES.values():
        assert TrainConfig(**json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe
