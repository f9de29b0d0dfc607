"""The training loop: everything random follows from the seed and the step.

So a run that is stopped at any step goes on as if it had not been stopped: the state on disk is the
weights, the optimisers' moments and the step. What is kept of a run is its last weights (or their
running mean), never an epoch that the test pictures chose.
"""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vit import report
from vit.checkpoint import (
    Checkpoint,
    Preprocessing,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
)
from vit.data import ImageSet, describe_commonest, hold_out, take
from vit.distributed import rank, total, world_size
from vit.evaluation import accuracy, confusion_matrix
from vit.leaks import describe_leaks
from vit.model import ViT, ViTConfig
from vit.optimizers import update_mean
from vit.plan import describe_plan
from vit.recipes import TrainConfig, rate_factor
from vit.start import start_from
from vit.state import check_run, complete, pack, unpack
from vit.teacher import fingerprint, load_teacher
from vit.update import Update


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C or SIGTERM sets, so that the loop can save and leave."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


class Trainer:
    """Train a ViT on an `ImageSet` and keep its state, weights and logs in a folder.

    Under torchrun every process has a trainer and takes its part of each batch.
    """

    def __init__(
        self,
        config: TrainConfig,
        model_config: ViTConfig,
        data: ImageSet,
        folder: Path,
        device: torch.device,
    ) -> None:
        """Build the model and the optimisers of `config`; nothing is written yet.

        Raises:
            ValueError: If a batch has fewer images than parts, there are fewer pictures than are
                held out, or the teacher does not know the classes.
        """
        torch.manual_seed(config.seed)
        self.config, self.folder, self.device = config, folder, device
        data = hold_out(data, config.holdout) if config.holdout else data
        data = take(data, config.train_images) if config.train_images else data
        self.classes, self.data_name = data.classes, data.name
        self.train_split, self.test_split = data.train.to(device), data.test.to(device)
        self.batch_size = min(config.batch_size, len(data.train.labels))
        if world_size() * config.accumulate > self.batch_size:
            raise ValueError(
                f"{world_size()} processes x accumulate {config.accumulate} cannot share "
                f"{self.batch_size} images a step; each part needs one at least"
            )
        self.preprocessing = Preprocessing()
        self._build(model_config)
        self.sources = {  # once the teacher's file is known to be readable
            "training pictures": data.train.fingerprint(),
            "test pictures": data.test.fingerprint(),
            "teacher": fingerprint(config.teacher),
        }
        self._epoch_order = lru_cache(maxsize=1)(self._epoch_order)  # the same for many steps
        self.step = 0
        self.started_from: dict[str, Any] | None = None
        self.lengthened: list[dict[str, int]] = []  # runs that were resumed with more epochs
        self.epoch_loss = torch.zeros((), device=device)  # summed over the steps of the epoch
        self.history: list[report.Row] = []
        self.seconds = 0.0

    def _build(self, model_config: ViTConfig) -> None:
        config = self.config
        self.model = ViT(model_config).to(self.device).train()
        self.ema = deepcopy(self.model) if config.ema_decay else None
        teach = load_teacher(config.teacher, self.classes, self.device) if config.teacher else None
        self.update = Update(self.model, config, self.train_split, self.preprocessing, teach)

    def _start(self) -> None:
        start = load_checkpoint(Path(self.config.start))
        start_from(self.model, start, self.classes)
        if self.ema:
            self.ema.load_state_dict(self.model.state_dict())
        metrics = {name: value for name, value in start.metrics.items() if name != "confusion"}
        self.started_from = {"recipe": start.recipe, "metrics": metrics}

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of full batches in the training split."""
        return len(self.train_split.labels) // self.batch_size

    @property
    def total_steps(self) -> int:
        """Return the number of steps of the whole run."""
        return self.steps_per_epoch * self.config.epochs

    @property
    def done(self) -> bool:
        """Return whether a run that was resumed is at its end, its last test included."""
        return len(self.history) == self.config.epochs

    @property
    def kept_model(self) -> ViT:
        """Return the model that is tested and saved: the running mean if there is one."""
        return self.ema or self.model

    def run(self) -> bool:
        """Train to the last epoch, or until Ctrl-C or SIGTERM, and save.

        Returns:
            Whether the run is at its end.

        Raises:
            ValueError: If the checkpoint that it starts with cannot be read or does not fit, or as
                `end_epoch`.
        """
        if self.config.start and not self.step and not self.started_from:
            self._start()
        if rank() == 0:
            self._announce()
        with stop_on_signal() as stop:
            if self.step == (len(self.history) + 1) * self.steps_per_epoch:
                self.end_epoch(len(self.history) + 1)  # it was stopped while it was tested
            with self._progress_bar() as bar:
                self._train(stop, bar)
            if rank() == 0:  # while a second Ctrl-C does no harm
                self.finish()
        return self.step == self.total_steps

    def _announce(self) -> None:
        """Say what is ahead, and what is otherwise than one may think."""
        report.announce_missing_packages()
        if self.config.precision == "bf16" and not self.update.bf16:
            print(f"Training in float32: device {self.device} has no units for bfloat16")
        for line in describe_leaks(self.config):
            print(line)
        if self.done:
            print("This run is at its end; with more --epochs it goes on")
            return
        if self.config.holdout:
            held = ImageSet(self.train_split, self.test_split, self.classes, self.data_name)
            print(f"Held out: {describe_commonest(held)}")
        pictures = len(self.train_split.labels)
        print(describe_plan(self.config.epochs, pictures, self.batch_size))

    def _train(self, stop: threading.Event, bar: tqdm) -> None:
        began = time.perf_counter()
        while self.step < self.total_steps and not self._must_stop(stop):
            loss = self.train_step()
            bar.update(self.batch_size)
            if self.step % 20 == 0:
                now = -(-self.step // self.steps_per_epoch)
                bar.set_postfix(epoch=now, loss=f"{loss:.3f}", refresh=False)
            if self.step % self.steps_per_epoch == 0:
                self._count_seconds(began)
                self.end_epoch(self.step // self.steps_per_epoch)
                began = time.perf_counter()
        self._count_seconds(began)

    def _progress_bar(self) -> tqdm:
        return tqdm(
            total=self.total_steps * self.batch_size,
            initial=self.step * self.batch_size,
            unit="img",
            unit_scale=True,
            smoothing=0.02,
            disable=rank() > 0,
        )

    def _count_seconds(self, began: float) -> None:
        self.epoch_loss.item()  # waits for a GPU that is still at work
        self.seconds += time.perf_counter() - began

    def _must_stop(self, stop: threading.Event) -> bool:
        if world_size() == 1:
            return stop.is_set()
        # A process that left alone would let the others wait for its gradients.
        return bool(total(torch.tensor(int(stop.is_set()), device=self.device)))

    def train_step(self) -> Tensor:
        """Take one optimiser step and return the mean loss of the batch, a scalar tensor."""
        config = self.config
        epoch, position = divmod(self.step, self.steps_per_epoch)
        chosen = self._epoch_order(epoch)[position * self.batch_size :][: self.batch_size]
        loss = self.update(
            chosen,
            factor=rate_factor(self.step, self.total_steps, config),
            seed=config.seed * 1_000_003 + self.step,
            plain=epoch >= config.epochs - config.plain_epochs,
        )
        if self.ema:
            update_mean(self.ema, self.model, config.ema_decay, self.step)
        self.epoch_loss += loss
        self.step += 1
        return loss

    def _epoch_order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + 500_000 + epoch)
        order = torch.randperm(len(self.train_split.labels), generator=generator)
        return order.to(self.device)

    def end_epoch(self, epoch: int) -> None:
        """Test if it is time and save: the weights that were tested, the state and the logs.

        Raises:
            ValueError: If the loss or a weight is not a finite number; nothing is written then.
        """
        self._check_finite(epoch)
        tested = epoch % self.config.test_every == 0 or epoch == self.config.epochs
        if tested and rank() == 0 and self.device.type == "cpu":
            self.save_state()  # whoever stops a run may not wait for the test
        row = {"epoch": epoch, "loss": float(self.epoch_loss) / self.steps_per_epoch}
        self.epoch_loss.zero_()
        if rank() > 0:
            return
        line = f"epoch {epoch:3d}  loss {row['loss']:.3f}"
        if tested:
            confusion = self._test()
            row["test_accuracy"] = accuracy(confusion)
            line += f"  {self.config.accuracy_name}: {100 * row['test_accuracy']:.2f} %"
        self.history.append(row | {"train_minutes": round(self.seconds / 60, 2)})
        tqdm.write(line)
        if tested:
            self.save_model(confusion)
        report.write_csv(self.folder / "log.csv", self.history)
        self.save_state()
        report.write_tensorboard(self.folder / "tensorboard", self.history[-1])

    def _test(self) -> Tensor:
        return confusion_matrix(self.kept_model, self.test_split, self.preprocessing)

    def _check_finite(self, epoch: int) -> None:
        weights = torch.stack([weight.isfinite().all() for weight in self.model.parameters()])
        if self.epoch_loss.isfinite() and weights.all():
            return
        rates = f"lr {self.config.lr}"
        if self.config.optimizer == "muon":
            rates += f" and muon_lr {self.config.muon_lr}"
        raise ValueError(
            f"training diverged in epoch {epoch}: its loss or a weight is no finite number with "
            f"{rates}; lower them"
        )

    def finish(self) -> None:
        """Save the state; draw the pictures if the run is at its end.

        Raises:
            ValueError: As `end_epoch`.
        """
        self._check_finite(self.step // self.steps_per_epoch + 1)
        self.save_state()
        if self.step < self.total_steps:
            return
        report.plot_curve(self.folder / "curve.png", self.history, self.config.accuracy_name)
        path = self.folder / "model.safetensors"  # of the last epoch
        if not path.exists():  # any more; the state has the weights, too
            self.save_model(self._test())
        confusion = torch.tensor(load_checkpoint(path).metrics["confusion"])
        report.plot_confusion(self.folder / "confusion.png", confusion, self.classes)

    def describe_stop(self) -> str:
        """Say where the run was stopped, and which weights there are."""
        tested = [row["epoch"] for row in self.history if "test_accuracy" in row]
        weights = f"those of epoch {tested[-1]}" if tested else "none yet"
        return (
            f"Stopped at step {self.step} of {self.total_steps}. Weights in model.safetensors: "
            f"{weights}."
        )

    def save_model(self, confusion: Tensor) -> None:
        """Write `model.safetensors`, which the app and `load_checkpoint` read.

        Args:
            confusion: int64 (K, K), of the weights that are saved.
        """
        recipe = asdict(self.config) | {
            "train_images": len(self.train_split.labels),
            "batch_size": self.batch_size,
            "precision": "bf16" if self.update.bf16 else "fp32",
            "lengthened": self.lengthened,
        }
        if self.started_from:
            recipe["started_from"] = self.started_from
        metrics = self.history[-1] | {
            "epochs": self.config.epochs,
            "data": self.data_name,
            "test_images": len(self.test_split.labels),
            "confusion": confusion.tolist(),
            "device": str(self.device),
            "torch": torch.__version__,
        }
        checkpoint = Checkpoint(self.kept_model, self.classes, self.preprocessing, recipe, metrics)
        save_checkpoint(self.folder / "model.safetensors", checkpoint)

    def save_state(self) -> None:
        """Write `state.safetensors`, from which `resume` goes on bit for bit on a CPU."""
        facts: dict[str, Any] = {
            "step": self.step,
            "history": self.history,
            "seconds": self.seconds,
            "lengthened": self.lengthened,
            "train_config": asdict(self.config),
            "config": asdict(self.model.config),
            "sources": self.sources,
            "started_from": self.started_from,
        }
        metadata = {key: json.dumps(value) for key, value in facts.items()}
        tensors = pack(self._modules, self.update.optimizers) | {"epoch_loss": self.epoch_loss}
        save_tensors(self.folder / "state.safetensors", tensors, metadata)

    def resume(self) -> None:
        """Continue from `state.safetensors` in the folder.

        More epochs than the run had are allowed: the learning rate then follows the longer
        schedule from this step on, and the checkpoint's recipe says so.

        Raises:
            ValueError: If there is none, or it is of another version, recipe, architecture, teacher
                or of other pictures.
        """
        path = self.folder / "state.safetensors"
        tensors, facts = load_tensors(path)
        with complete(path):
            planned = check_run(path, facts, self.config, self.model.config, self.sources)
            self.step, self.seconds = facts["step"], facts["seconds"]
            self.history = facts["history"]
            self.lengthened, self.started_from = facts["lengthened"], facts["started_from"]
            self.epoch_loss.copy_(tensors["epoch_loss"])
        if self.config.epochs > planned:
            self.lengthened = [*self.lengthened, {"step": self.step, "epochs": planned}]
        unpack(tensors, self._modules, self.update.optimizers)

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model} | ({"ema": self.ema} if self.ema else {})
