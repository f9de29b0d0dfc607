"""Recipes and the training loop: everything random follows from the seed and the step.

So a run that is stopped at any step goes on as if it had not been stopped: the state on disk is the
weights, the optimisers' moments and the step.
"""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW, Optimizer
from tqdm import tqdm

from vit.checkpoint import (
    Checkpoint,
    Preprocessing,
    load_tensors,
    save_checkpoint,
    save_tensors,
)
from vit.data import ImageSet, Split, normalize, random_crop_flip
from vit.model import ViT, ViTConfig
from vit.muon import Muon


@dataclass(frozen=True)
class TrainConfig:
    """Hold a recipe; the defaults are the reference one.

    Attributes:
        optimizer: "adamw", or "muon" for the blocks' matrices with AdamW for the rest.
        lr: Peak learning rate of AdamW.
        muon_lr: Peak learning rate of Muon; unused with "adamw".
        weight_decay: Decoupled weight decay of the matrices.
        schedule: "cosine" or "linear": the way from the peak down to 0, step by step.
        warmup: Share of all steps in which the learning rate rises from 0.
        batch_size: Images a step.
        epochs: Passes over the training images.
        dropout: Dropout probability of the model.
        label_smoothing: Share of the target spread over all classes.
        crop_padding: Largest shift of the random crop, in pixels.
        precision: "fp32", or "bf16" for the matrix products (weights and moments stay float32).
        test_every: Epochs between two test passes; the last epoch is always tested.
        seed: Seed of everything random.
    """

    optimizer: str = "adamw"
    lr: float = 3e-4
    muon_lr: float = 0.02
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup: float = 0.0
    batch_size: int = 128
    epochs: int = 100
    dropout: float = 0.1
    label_smoothing: float = 0.0
    crop_padding: int = 4
    precision: str = "fp32"
    test_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {allowed}")
        for name in ("lr", "muon_lr", "batch_size", "epochs", "test_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")


CHOICES = {
    "optimizer": ("adamw", "muon"),
    "schedule": ("cosine", "linear"),
    "precision": ("fp32", "bf16"),
}
RECIPES = {
    "reference": TrainConfig(),
    # For an hour or two on a CPU: every part is there to learn more per step.
    "short": TrainConfig(
        optimizer="muon",
        lr=2e-3,
        weight_decay=0.05,
        schedule="linear",
        warmup=0.05,
        epochs=12,
        dropout=0.0,
        label_smoothing=0.1,
        precision="bf16",
    ),
}


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Return the factor in [0, 1] on the peak learning rate at `step` of `steps`.

    >>> [round(learning_rate(step, 100, TrainConfig(warmup=0.1)), 2) for step in (0, 9, 10, 55)]
    [0.1, 1.0, 1.0, 0.5]
    """
    warmup = int(config.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = torch.tensor((step - warmup) / max(1, steps - warmup))
    if config.schedule == "linear":
        return float(1 - progress)
    return float(0.5 * (1 + torch.cos(torch.pi * progress)))


def build_optimizers(model: ViT, config: TrainConfig) -> list[Optimizer]:
    """Return the optimisers of a recipe; vectors and embeddings are never decayed."""
    matrices = [(n, p) for n, p in model.blocks.named_parameters() if p.ndim == 2]
    inside = {id(p) for _, p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    if config.optimizer == "adamw":
        groups = [{"params": [p for _, p in matrices]}, {"params": others, "weight_decay": 0.0}]
        return [AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)]
    groups = [
        {"params": [p for n, p in matrices if "qkv" in n], "split": 3},
        {"params": [p for n, p in matrices if "qkv" not in n]},
    ]
    return [
        Muon(
            groups,
            lr=config.muon_lr,
            weight_decay=config.weight_decay,
            precision=torch.bfloat16 if config.precision == "bf16" else torch.float32,
        ),
        AdamW(others, lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


@torch.inference_mode()
def evaluate(model: ViT, split: Split, preprocessing: Preprocessing) -> float:
    """Return the accuracy in [0, 1] of `model` on `split`."""
    training = model.training
    model.eval()
    mean, std = _statistics(preprocessing, split.images.device)
    correct = 0
    for images, labels in zip(split.images.split(500), split.labels.split(500), strict=True):
        correct += int((model(normalize(images, mean, std)).argmax(1) == labels).sum())
    model.train(training)
    return correct / len(split.labels)


def _statistics(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor([preprocessing.mean, preprocessing.std], device=device)
    return mean, std


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
    """Train a ViT on an `ImageSet` and keep its state and its best checkpoint in a folder."""

    def __init__(
        self,
        config: TrainConfig,
        model_config: ViTConfig,
        data: ImageSet,
        folder: Path,
        device: torch.device,
    ) -> None:
        """Build the model and the optimisers of `config`; nothing is written yet."""
        torch.manual_seed(config.seed)
        self.config, self.folder, self.device = config, folder, device
        self.classes, self.data_name = data.classes, data.name
        self.train_split, self.test_split = data.train.to(device), data.test.to(device)
        self.model = ViT(model_config).to(device).train()
        self.optimizers = build_optimizers(self.model, config)
        self.peaks = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self.preprocessing = Preprocessing()
        self.statistics = _statistics(self.preprocessing, device)
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of full batches in the training split."""
        return max(1, len(self.train_split.labels) // self.config.batch_size)

    def run(self) -> None:
        """Train to the last epoch, or until Ctrl-C or SIGTERM, and save."""
        total = self.steps_per_epoch * self.config.epochs
        with (
            stop_on_signal() as stop,
            tqdm(total=total, initial=self.step, unit="step", smoothing=0.02) as bar,
        ):
            while self.step < total and not stop.is_set():
                began = time.perf_counter()
                loss = self.train_step(total)
                self.seconds += time.perf_counter() - began
                bar.update()
                if self.step % 20 == 0:
                    bar.set_postfix(epoch=self.step // self.steps_per_epoch, loss=f"{loss:.3f}")
                if self.step % self.steps_per_epoch == 0:
                    self.end_epoch(self.step // self.steps_per_epoch, float(loss))
            self.save_state()
        if self.step < total:
            print(f"Stopped at step {self.step} of {total}; go on with --resume {self.folder}")

    def train_step(self, total: int) -> Tensor:
        """Take one optimiser step and return the loss (a scalar on the device)."""
        config = self.config
        epoch, position = divmod(self.step, self.steps_per_epoch)
        chosen = self._epoch_order(epoch)[position * config.batch_size :][: config.batch_size]
        # Seeding every step makes augmentation and dropout independent of the past.
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        images = random_crop_flip(self.train_split.images[chosen], config.crop_padding)
        bf16 = config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            logits = self.model(normalize(images, *self.statistics))
        loss = F.cross_entropy(
            logits.float(), self.train_split.labels[chosen], label_smoothing=config.label_smoothing
        )
        self._set_learning_rates(learning_rate(self.step, total, config))
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return loss.detach()

    def _epoch_order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + 500_000 + epoch)
        order = torch.randperm(len(self.train_split.labels), generator=generator)
        return order.to(self.device)

    def _set_learning_rates(self, factor: float) -> None:
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor

    def end_epoch(self, epoch: int, loss: float) -> None:
        """Test if it is time, keep the checkpoint if it is the best so far, save the state."""
        if epoch % self.config.test_every == 0 or epoch == self.config.epochs:
            accuracy = evaluate(self.model, self.test_split, self.preprocessing)
            best = max((row["test_accuracy"] for row in self.history), default=0.0)
            row = {"epoch": epoch, "loss": loss, "test_accuracy": accuracy}
            self.history.append(row | {"train_minutes": round(self.seconds / 60, 2)})
            tqdm.write(f"epoch {epoch:3d}  loss {loss:.3f}  test accuracy: {accuracy:.2%}")
            if accuracy >= best:
                self.save_best()
        self.save_state()

    def save_best(self) -> None:
        """Write `best.safetensors`, which the app and `load_checkpoint` read."""
        recipe = asdict(self.config) | {"train_images": len(self.train_split.labels)}
        metrics = self.history[-1] | {
            "data": self.data_name,
            "test_images": len(self.test_split.labels),
            "device": str(self.device),
            "torch": torch.__version__,
        }
        checkpoint = Checkpoint(self.model, self.classes, self.preprocessing, recipe, metrics)
        save_checkpoint(self.folder / "best.safetensors", checkpoint)

    def save_state(self) -> None:
        """Write `state.safetensors`, from which `resume` goes on bit for bit on a CPU."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{index}.{name}": t for name, t in state.items()}
        facts: dict[str, Any] = {
            "step": self.step,
            "history": self.history,
            "seconds": self.seconds,
            "train_config": asdict(self.config),
            "config": asdict(self.model.config),
        }
        metadata = {key: json.dumps(value) for key, value in facts.items()}
        save_tensors(self.folder / "state.safetensors", tensors, metadata)

    def resume(self) -> None:
        """Continue from `state.safetensors` in the folder.

        Raises:
            ValueError: If there is none, or it is of another recipe or architecture.
        """
        path = self.folder / "state.safetensors"
        tensors, facts = load_tensors(path)
        expected = {"train_config": asdict(self.config), "config": asdict(self.model.config)}
        for name, value in expected.items():
            if facts[name] != value:
                other = {k: v for k, v in facts[name].items() if value[k] != v}
                raise ValueError(f"{path} was trained with {other}; give the same flags to resume")
        self.step, self.history, self.seconds = facts["step"], facts["history"], facts["seconds"]
        self.model.load_state_dict(_under("model.", tensors))
        for i, optimizer in enumerate(self.optimizers):
            states: dict[int, dict[str, Tensor]] = {}
            for key, tensor in _under(f"optimizer.{i}.", tensors).items():
                index, name = key.split(".", 1)
                states.setdefault(int(index), {})[name] = tensor
            optimizer.load_state_dict(optimizer.state_dict() | {"state": states})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
