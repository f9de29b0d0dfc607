import dataclasses
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.vit.configs import ADAM, ADAMW, EVERYTHING, MUON
from vit import recipes, report, training
from vit.checkpoint import load_checkpoint, load_tensors, save_tensors
from vit.data import ImageSet
from vit.evaluation import confusion_matrix
from vit.model import ViT, ViTConfig
from vit.recipes import TrainConfig, build_model_config, rate_factor
from vit.teacher import load_teacher
from vit.training import Trainer
from vit.update import Update

RECIPE_FIELDS = ("dropout", "drop_path", "pool", "stem", "distilled")

Make = Callable[[TrainConfig, str], Trainer]


@pytest.fixture(autouse=True)
def nothing_to_draw_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests a second of drawing for each run."""
    monkeypatch.setattr(report, "_is_installed", lambda _: False)


@pytest.fixture
def make(tmp_path: Path, tiny_config: ViTConfig, tiny_set: ImageSet) -> Make:
    """Return a function that makes a trainer; thirteen pictures are three steps an epoch."""

    def trainer(config: TrainConfig, folder: str) -> Trainer:
        recipe = build_model_config(config)
        given = {name: getattr(recipe, name) for name in RECIPE_FIELDS}
        sizes = dataclasses.replace(tiny_config, **given)
        return Trainer(config, sizes, tiny_set, tmp_path / folder, torch.device("cpu"))

    return trainer


def interrupt_after(trainer: Trainer, steps: int) -> None:
    """Send ourselves what Ctrl-C sends while the trainer is in its step number `steps`."""
    train_step = trainer.train_step

    def interrupted() -> Tensor:
        loss = train_step()
        if trainer.step == steps:
            signal.raise_signal(signal.SIGINT)
        return loss

    trainer.train_step = interrupted


def without_time(trainer: Trainer) -> list[dict[str, float]]:
    return [row | {"train_minutes": 0} for row in trainer.history]


@pytest.mark.parametrize(
    ("asked", "units", "used"),
    [
        ("bf16", True, torch.bfloat16),
        ("bf16", False, torch.float32),  # most laptops: there bfloat16 takes 28 times as long
        ("fp32", True, torch.float32),
    ],
)
def test_bfloat16_where_the_device_has_units(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: str,
    units: bool,
    used: torch.dtype,
) -> None:
    monkeypatch.setattr(recipes, "has_units", lambda _: units)
    trainer, seen = make(dataclasses.replace(MUON, precision=asked, epochs=1), "run"), set()
    trainer.model.head.register_forward_hook(
        lambda model, _, logits: seen.add(logits.dtype) if model.training else None
    )
    trainer.run()
    assert seen == {used}
    assert trainer.update.optimizers[0].precision == used
    kept = load_checkpoint(trainer.folder / "model.safetensors").recipe["precision"]
    assert kept == ("bf16" if used == torch.bfloat16 else "fp32")
    said = "Training in float32: device cpu has no units for bfloat16" in capsys.readouterr().out
    assert said is (asked == "bf16" and not units)


@pytest.mark.parametrize("config", [ADAMW, MUON, EVERYTHING], ids=["adamw", "muon", "everything"])
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
    assert second.seconds == first.seconds > 0, "what was spent counts"
    second.run()

    assert straight.step == second.step == 9
    assert without_time(straight) == without_time(second)
    tensors = [load_tensors(t.folder / "state.safetensors")[0] for t in (straight, second)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


@pytest.mark.parametrize(
    ("steps", "weights"), [(2, "none yet"), (5, "those of epoch 1"), (6, "those of epoch 2")]
)
def test_interrupt_saves_and_says_what_there_is(make: Make, steps: int, weights: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    trainer = make(ADAMW, "stopped")
    interrupt_after(trainer, steps)
    assert not trainer.run()
    assert signal.getsignal(signal.SIGINT) is before
    said = f"Stopped at step {steps} of 9. Weights in model.safetensors: {weights}."
    assert trainer.describe_stop() == said
    assert load_tensors(trainer.folder / "state.safetensors")[1]["step"] == steps


def test_a_second_interrupt_leaves_the_saving_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(ADAMW, "stopped")
    interrupt_after(trainer, 2)
    save = trainer.save_state

    def impatient() -> None:
        signal.raise_signal(signal.SIGINT)
        save()

    monkeypatch.setattr(trainer, "save_state", impatient)
    trainer.run()
    assert load_tensors(trainer.folder / "state.safetensors")[1]["step"] == 2


def test_stopped_while_it_is_tested(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by who kills a run that does not end at once: the epoch is not lost, but tested next."""
    straight, first = make(ADAMW, "straight"), make(ADAMW, "stopped")
    straight.run()
    test = training.confusion_matrix
    monkeypatch.setattr(training, "confusion_matrix", lambda *_: test(*_) if first.step < 6 else 1)
    with pytest.raises(AttributeError):
        first.run()
    monkeypatch.setattr(training, "confusion_matrix", test)
    second = make(ADAMW, "stopped")
    second.resume()
    assert (second.step, len(second.history), second.done) == (6, 1, False)
    second.run()
    assert second.done and without_time(second) == without_time(straight)
    tensors = [load_tensors(t.folder / "state.safetensors")[0] for t in (straight, second)]
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


def test_processes_stop_together(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two got the signal: the other one, which is this, stops as well."""
    trainer = make(ADAMW, "run")
    monkeypatch.setattr(training, "world_size", lambda: 2)
    monkeypatch.setattr(training, "total", lambda mine: mine + 1)
    trainer.run()
    assert trainer.step == 0


def test_resume_refuses_another_recipe(make: Make) -> None:
    make(ADAMW, "run").save_state()
    other = make(dataclasses.replace(ADAMW, lr=0.5), "run")
    with pytest.raises(
        ValueError, match=re.escape("was trained with {'lr': 0.003}; resume without")
    ):
        other.resume()


def test_resume_refuses_other_pictures_and_another_teacher(
    make: Make, tiny_set: ImageSet, make_checkpoint: Callable[..., Path]
) -> None:
    config = dataclasses.replace(ADAMW, teacher=str(make_checkpoint()))
    make(config, "run").save_state()
    make(config, "run").resume()
    make_checkpoint(depth=1)  # in the same place
    tiny_set.train.images[0] += 1
    with pytest.raises(ValueError, match=re.escape("(training pictures, teacher)")):
        make(config, "run").resume()


def test_resume_refuses_other_test_pictures(make: Make, tiny_set: ImageSet) -> None:
    make(ADAMW, "run").save_state()
    tiny_set.test.images[0] += 1
    with pytest.raises(ValueError, match=re.escape("other sources (test pictures); resume with")):
        make(ADAMW, "run").resume()


def test_what_is_held_out_is_said(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make(dataclasses.replace(ADAMW, epochs=1, holdout=4), "run").run()
    assert re.search(
        r"^Held out: Always answering \w+ would be right on [\d.]+ % of the 4$",
        capsys.readouterr().out,
        re.MULTILINE,
    )


def test_resumed_with_more_epochs_follows_the_longer_schedule(make: Make) -> None:
    """Six steps of two epochs are done; the next one is the seventh of four epochs."""
    make(dataclasses.replace(MUON, epochs=2), "run").run()
    longer = make(dataclasses.replace(MUON, epochs=4), "run")
    longer.resume()
    longer.train_step()
    assert longer.update.optimizers[0].param_groups[0]["lr"] == pytest.approx(
        MUON.muon_lr * rate_factor(6, 12, longer.config)
    )
    longer.run()
    assert [row["epoch"] for row in longer.history] == [1, 2, 3, 4]
    saved = load_checkpoint(longer.folder / "model.safetensors")
    assert saved.recipe["lengthened"] == [{"step": 6, "epochs": 2}]
    assert saved.recipe["epochs"] == saved.metrics["epochs"] == 4


def test_resume_refuses_fewer_epochs(make: Make) -> None:
    make(ADAMW, "run").save_state()
    with pytest.raises(ValueError, match="a run of 3 epochs; to resume give as many or more"):
        make(dataclasses.replace(ADAMW, epochs=2), "run").resume()


@pytest.mark.parametrize("name", ["epoch_loss", "train_config", "sources", "step"])
def test_resume_refuses_the_state_of_another_program(make: Make, name: str) -> None:
    """The first version kept no "epoch_loss", and the demo weights have states of that name."""
    make(ADAMW, "run").save_state()
    trainer = make(ADAMW, "run")
    path = trainer.folder / "state.safetensors"
    tensors, facts = load_tensors(path)
    kept = {key: json.dumps(value) for key, value in facts.items() if key != name}
    save_tensors(path, {key: t for key, t in tensors.items() if key != name}, kept)
    with pytest.raises(ValueError, match=f"another program or version, there is no '{name}' in it"):
        trainer.resume()


def test_resume_needs_a_state(make: Make) -> None:
    with pytest.raises(ValueError, match=r"state\.safetensors is not a checkpoint"):
        make(ADAMW, "nothing").resume()


@pytest.mark.parametrize("config", [ADAM, ADAMW, MUON], ids=lambda config: config.optimizer)
def test_learns_and_the_checkpoint_loads(
    make: Make, tiny_set: ImageSet, config: TrainConfig
) -> None:
    trainer = make(dataclasses.replace(config, epochs=15, dropout=0.0, test_every=5), "run")
    trainer.run()
    checkpoint = load_checkpoint(trainer.folder / "model.safetensors")
    assert checkpoint.metrics["test_accuracy"] == 1
    again = confusion_matrix(checkpoint.model, tiny_set.test, checkpoint.preprocessing)
    assert checkpoint.metrics["confusion"] == again.tolist() == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
    assert checkpoint.classes == ("red", "green", "blue")
    assert checkpoint.recipe["train_images"] == 13
    assert checkpoint.metrics["test_images"] == 9
    assert checkpoint.metrics["data"] == "colours"
    assert checkpoint.metrics["epochs"] == 15
    assert not checkpoint.model.training


def test_the_last_weights_are_kept_whatever_the_test_says(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of three epochs and, once more at the end, for the picture.
    counts = (torch.tensor([[n, 4 - n, 0], [0] * 3, [0] * 3]) for n in (2, 3, 1, 1))
    monkeypatch.setattr(training, "confusion_matrix", lambda *_: next(counts))
    trainer = make(ADAMW, "run")
    trainer.run()
    kept = load_checkpoint(trainer.folder / "model.safetensors")
    assert (kept.metrics["epoch"], kept.metrics["test_accuracy"]) == (3, 0.25)
    assert_equal_weights(kept.model, trainer.model)
    assert [row["epoch"] for row in trainer.history] == [1, 2, 3]


def assert_equal_weights(one: nn.Module, other: nn.Module) -> None:
    states = one.state_dict(), other.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_running_mean_is_what_is_tested_and_kept(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = []

    def record(model: ViT, *_: object) -> Tensor:
        tested.append(model)
        return torch.eye(3, dtype=torch.int64)

    monkeypatch.setattr(training, "confusion_matrix", record)
    trainer = make(dataclasses.replace(ADAMW, ema_decay=0.9), "run")
    weights = []
    train_step = trainer.train_step

    def step() -> Tensor:
        loss = train_step()
        weights.append(trainer.model.head.weight.detach().clone())
        return loss

    trainer.train_step = step
    trainer.run()
    mean = weights[0]
    for updates, weight in enumerate(weights[1:], 1):
        decay = min(0.9, (1 + updates) / (10 + updates))
        mean = decay * mean + (1 - decay) * weight
    kept = load_checkpoint(trainer.folder / "model.safetensors").model
    torch.testing.assert_close(kept.head.weight, mean)
    assert_equal_weights(kept, tested[-1])
    assert not torch.equal(kept.head.weight, weights[-1])


def test_a_part_needs_an_image(make: Make) -> None:
    """Said before a teacher is loaded, which may take a download."""
    with pytest.raises(ValueError, match="accumulate 5 cannot share 4 images a step"):
        make(dataclasses.replace(ADAMW, accumulate=5, teacher="nobody"), "run")


@pytest.mark.parametrize("name", ["nobody", 300 * "x"])  # no file, and none that could be
def test_a_teacher_that_is_not_there(make: Make, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is not a checkpoint"):
        make(dataclasses.replace(ADAMW, teacher=name), "run")


def test_holdout_never_looks_at_the_test_set(
    make: Make, tiny_set: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(dataclasses.replace(ADAMW, holdout=5, epochs=1), "run")
    seen = torch.cat((trainer.train_split.images, trainer.test_split.images)).flatten(1)
    assert sorted(seen.tolist()) == sorted(tiny_set.train.images.flatten(1).tolist())
    trainer.run()
    assert "held-out accuracy: " in capsys.readouterr().out
    metrics = load_checkpoint(trainer.folder / "model.safetensors").metrics
    assert metrics["test_images"] == 5
    assert metrics["data"] == "colours (held-out training pictures)"


def test_training_on_a_part(make: Make, tiny_set: ImageSet) -> None:
    trainer = make(dataclasses.replace(ADAMW, train_images=5, holdout=4), "run")
    assert len(trainer.train_split.labels) == 5
    seen = {tuple(image) for image in trainer.train_split.images.flatten(1).tolist()}
    held = {tuple(image) for image in trainer.test_split.images.flatten(1).tolist()}
    assert len(held) == 4 and not seen & held


def test_every_step_has_its_rate_and_seed_and_the_last_are_plain(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors, seeds, plains = [], [], []

    def record(_: Update, chosen: Tensor, factor: float, seed: int, plain: bool) -> Tensor:
        factors.append(factor)
        seeds.append(seed)
        plains.append(plain)
        return torch.tensor(0.0)

    monkeypatch.setattr(Update, "__call__", record)
    make(dataclasses.replace(ADAMW, plain_epochs=1), "run").run()
    make(dataclasses.replace(ADAMW, seed=1), "other").run()
    assert factors == 2 * [rate_factor(step, 9, ADAMW) for step in range(9)]
    assert len(set(seeds)) == 18
    assert plains == [False] * 6 + [True] * 3 + [False] * 9


def test_the_teacher_of_the_recipe_teaches(
    make: Make, tiny_set: ImageSet, tiny_checkpoint: Path
) -> None:
    student = make(dataclasses.replace(ADAMW, teacher=str(tiny_checkpoint)), "run")
    same = load_teacher(str(tiny_checkpoint), tiny_set.classes, torch.device("cpu"))
    answers = [teach(tiny_set.test.images).logits for teach in (student.update.teach, same)]
    assert torch.equal(*answers)


def test_logs_and_pictures(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run repeats no row of the table."""
    monkeypatch.setattr(report, "_is_installed", lambda _: True)
    config = dataclasses.replace(ADAMW, test_every=2)
    first = make(config, "run")
    interrupt_after(first, 4)
    first.run()
    assert not (first.folder / "curve.png").exists()
    second = make(config, "run")
    second.resume()
    second.run()
    lines = (second.folder / "log.csv").read_text().splitlines()
    assert sorted(lines[0].split(",")) == ["epoch", "loss", "test_accuracy", "train_minutes"]
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]
    assert (second.folder / "curve.png").stat().st_size > 5000
    assert (second.folder / "confusion.png").stat().st_size > 5000
    assert len(list((second.folder / "tensorboard").iterdir())) == 3


def test_the_loss_of_an_epoch_is_the_mean_over_its_steps(make: Make) -> None:
    trainer = make(dataclasses.replace(ADAMW, epochs=1), "run")
    losses = []
    train_step = trainer.train_step
    trainer.train_step = lambda: losses.append(train_step()) or losses[-1]
    trainer.run()
    assert trainer.history[0]["loss"] == pytest.approx(float(sum(losses) / 3))


@pytest.mark.parametrize(
    ("test_every", "tested"),
    [(1, [1, 2, 3]), (2, [2, 3]), (9, [3])],  # the last epoch always
)
def test_test_every(make: Make, test_every: int, tested: list[int]) -> None:
    trainer = make(dataclasses.replace(ADAMW, test_every=test_every), "run")
    trainer.run()
    assert [row["epoch"] for row in trainer.history] == [1, 2, 3]
    assert [row["epoch"] for row in trainer.history if "test_accuracy" in row] == tested


def test_every_picture_once_an_epoch(make: Make) -> None:
    trainer = make(ADAMW, "run")
    orders = [trainer._epoch_order(epoch).tolist() for epoch in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(13))
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("config", "rates"),
    [(ADAMW, "lr 0.003; lower them"), (MUON, "lr 0.003 and muon_lr 0.02; lower them")],
)
def test_a_loss_that_is_no_number_ends_the_run(make: Make, config: TrainConfig, rates: str) -> None:
    trainer = make(config, "run")
    interrupt_after(trainer, 4)
    trainer.run()
    before = files_of(trainer)
    with torch.no_grad():
        trainer.model.head.bias.fill_(torch.nan)
    words = f"diverged in epoch 2: its loss or a weight is no finite number with {rates}"
    with pytest.raises(ValueError, match=re.escape(words)):
        trainer.run()
    assert files_of(trainer) == before


@pytest.mark.parametrize("steps", [5, 6], ids=["Ctrl-C in an epoch", "the last step of an epoch"])
def test_weights_that_are_no_numbers_are_never_written(make: Make, steps: int) -> None:
    trainer = make(ADAMW, "run")
    interrupt_after(trainer, 4)
    trainer.run()
    before, step = files_of(trainer), trainer.train_step

    def diverge() -> torch.Tensor:
        loss = step()  # itself still a number
        if trainer.step == steps:
            with torch.no_grad():
                trainer.model.head.bias.fill_(torch.nan)
        return loss

    trainer.train_step = diverge
    interrupt_after(trainer, steps - 4)
    with pytest.raises(ValueError, match="diverged in epoch 2"):
        trainer.run()
    assert files_of(trainer) == before


def files_of(trainer: Trainer) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in trainer.folder.glob("*.safetensors")}


def test_a_run_begins_with_weights_and_says_so(make: Make, tiny_checkpoint: Path) -> None:
    config = dataclasses.replace(ADAM, epochs=1, start=str(tiny_checkpoint), ema_decay=0.9)
    trainer = make(config, "run")
    start, train_step = load_checkpoint(tiny_checkpoint), trainer.train_step

    def checked() -> Tensor:
        if trainer.step == 0:
            for name, tensor in start.model.state_dict().items():
                for model in (trainer.model, trainer.ema):
                    assert torch.equal(model.state_dict()[name], tensor)
        return train_step()

    trainer.train_step = checked
    trainer.run()
    recipe = load_checkpoint(trainer.folder / "model.safetensors").recipe
    assert recipe["started_from"] == {"recipe": start.recipe, "metrics": start.metrics}


def test_a_run_goes_on_without_what_it_began_with(make: Make, tiny_checkpoint: Path) -> None:
    config = dataclasses.replace(ADAM, start=str(tiny_checkpoint), ema_decay=0.9)
    straight, stopped = make(config, "straight"), make(config, "stopped")
    straight.run()
    interrupt_after(stopped, 4)
    stopped.run()
    tiny_checkpoint.unlink()
    resumed = make(config, "stopped")
    resumed.resume()
    resumed.run()
    one, other = (load_checkpoint(t.folder / "model.safetensors") for t in (straight, resumed))
    assert one.recipe == other.recipe and "started_from" in one.recipe
    weights = one.model.state_dict()
    assert all(torch.equal(t, weights[name]) for name, t in other.model.state_dict().items())


def test_a_checkpoint_has_the_batch_size_that_was_used(make: Make, tiny_set: ImageSet) -> None:
    """A batch cannot have more pictures than there are."""
    trainer = make(dataclasses.replace(ADAMW, batch_size=1000, epochs=1), "run")
    trainer.run()
    recipe = load_checkpoint(trainer.folder / "model.safetensors").recipe
    assert recipe["batch_size"] == recipe["train_images"] == len(tiny_set.train.labels)
