"""Most of it only a CUDA device can show; elsewhere those tests are skipped."""

import dataclasses
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.vit.configs import ADAMW, EVERYTHING, MUON
from vit import report, update
from vit.data import ImageSet
from vit.graphed import WARM_UP, Graphed, compiled
from vit.model import ViTConfig
from vit.recipes import TrainConfig
from vit.training import Trainer

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

RECIPES = {"adamw": ADAMW, "muon": MUON, "everything": EVERYTHING}
EPOCHS = 5  # of three steps, so that both kinds of epochs have steps to replay

Make = Callable[[TrainConfig, str], Trainer]


@pytest.fixture
def make(
    tmp_path: Path, tiny_config: ViTConfig, tiny_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> Make:
    monkeypatch.setattr(report, "_is_installed", lambda _: False)
    monkeypatch.setattr(update, "compiled", lambda function: function)  # another dropout

    def trainer(config: TrainConfig, folder: str) -> Trainer:
        config = dataclasses.replace(
            config, epochs=EPOCHS, plain_epochs=2 * bool(config.plain_epochs)
        )
        sizes = dataclasses.replace(tiny_config, dropout=0.1, pool=config.pool)
        return Trainer(config, sizes, tiny_set, tmp_path / folder, torch.device("cuda"))

    return trainer


@needs_cuda
def test_random_numbers_follow_the_seed() -> None:
    ones = torch.ones(1000, device="cuda")
    drop = Graphed(lambda x: F.dropout(x, 0.5))
    for seed in range(2 * WARM_UP):
        torch.manual_seed(seed)
        got = drop(ones * seed).clone()
        torch.manual_seed(seed)
        assert torch.equal(got, F.dropout(ones * seed, 0.5))
    assert drop.graph


def losses(trainer: Trainer, steps: int) -> Tensor:
    return torch.stack([trainer.train_step().clone() for _ in range(steps)])


@needs_cuda
@pytest.mark.parametrize("config", RECIPES.values(), ids=RECIPES)
def test_a_replayed_step_is_a_step(
    make: Make, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphed = losses(make(config, "graphed"), 15)
    monkeypatch.setattr(update, "Graphed", lambda function: function)
    torch.testing.assert_close(graphed, losses(make(config, "eager"), 15), rtol=1e-3, atol=1e-4)


@needs_cuda
@pytest.mark.parametrize("config", RECIPES.values(), ids=RECIPES)
def test_resumed_goes_on(make: Make, config: TrainConfig) -> None:
    straight = make(config, "run")
    losses(straight, 7)
    straight.save_state()
    resumed = make(config, "run")
    resumed.resume()
    torch.testing.assert_close(losses(resumed, 8), losses(straight, 8), rtol=1e-3, atol=1e-4)


@needs_cuda
@pytest.mark.filterwarnings("default")  # torch's compiler warns of its own parts
def test_compiled_learns(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "compiled", compiled)
    trainer = make(MUON, "run")
    trainer.run()
    assert trainer.history[-1]["test_accuracy"] == 1
    assert trainer.update.steps[False].graph


@pytest.mark.parametrize(
    ("triton", "compiler", "expected"),
    [
        (True, "gcc", True),
        (True, None, False),  # a slim container
        (False, "gcc", False),  # Windows
    ],
)
def test_compiled_where_there_is_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    triton: bool,
    compiler: str | None,
    expected: bool,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: triton or None)
    monkeypatch.setattr(shutil, "which", lambda name: compiler if name == compiler else None)
    monkeypatch.setattr(torch, "compile", lambda function, dynamic, options: ("compiled", function))
    assert compiled(abs) == (("compiled", abs) if expected else abs)
    assert ("needs Triton and a C compiler" in capsys.readouterr().out) is not expected
