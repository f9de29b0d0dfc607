"""Trains the demo models from scratch on synthetic scenes.

    python -m grounding.demo.train sam2 --minutes 150
    python -m grounding.demo.train glip --minutes 110
    python -m grounding.demo.train grounding_dino --minutes 180
    python -m grounding.demo.train clipseg --minutes 180

Each run keeps its state in runs/demo/NAME (Ctrl-C saves, --resume goes on) and writes the averaged
weights to assets/demo/NAME at every evaluation. Minutes are those a processor spends on the
training steps: on a busy machine the same training takes longer.
With `--start assets/demo/NAME` a run begins with exported weights instead of random ones, and with
a lower `--rate` it forgets less of them.
"""

import argparse
import copy
import importlib
import json
import math
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from common.folders import make_writable
from common.precision import fast
from grounding.weights import DEMO_ROOT

ROOT = Path(__file__).resolve().parents[2]
WARMUP_STEPS = 150
EMA_DECAY = 0.998
FLOOR = 0.02
# Weights that were trained before need no small pictures and no auxiliary tasks any more.
TRAINED = 0.8


class Recipe(Protocol):
    """What a `train_*` module holds: its model, its loss, how it is saved and measured."""

    LEARNING_RATE: float
    BATCH: int

    def build(self) -> nn.Module:
        """Return the untrained model."""

    def loss(self, model: nn.Module, rng: np.random.Generator, progress: float) -> Tensor:
        """Return the loss on a fresh batch of scenes, given the share of the training done."""

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the model as the app loads it."""

    def load(self, folder: Path) -> nn.Module:
        """Return the model that `save` wrote, to be trained on."""

    def evaluate(self, model: nn.Module, scenes: int) -> dict[str, float]:
        """Return held-out metrics."""


RECIPES = {
    "sam2": "grounding.demo.train_sam2",
    "grounding_dino": "grounding.demo.train_grounding_dino",
    "clipseg": "grounding.demo.train_clipseg",
    "glip": "grounding.demo.train_glip",
}


@dataclass
class Progress:
    """Hold how far a run has come, and what it began with.

    Attributes:
        rate: Peak learning rate.
        steps: Steps taken.
        pictures: Pictures seen.
        minutes: Time that a processor spent on the steps.
        start: Metrics of the weights that it started from, if any.
    """

    rate: float
    steps: int = 0
    pictures: int = 0
    minutes: float = 0.0
    start: dict[str, Any] = field(default_factory=dict)


def learning_rate(peak: float, steps: int, share: float) -> float:
    """Return the rate after warm-up and a cosine down to 2 %.

    >>> learning_rate(1.0, 1000, 0.0), round(learning_rate(1.0, 1000, 1.0), 6)
    (1.0, 0.02)
    """
    cosine = FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
    return peak * min(1.0, (steps + 1) / WARMUP_STEPS) * cosine


def make_optimizer(model: nn.Module, rate: float) -> torch.optim.AdamW:
    """Return AdamW that spares parameters of one dimension (biases, norms) from weight decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def average_weight(steps: int, trained: bool) -> float:
    """Return the share of the average that the weights of this step become.

    A run from random weights forgets its start soon. One from trained weights hardly moves but
    for noise, and takes the mean of all steps, each counting as much as its number (Shamir and
    Zhang 2013, "Stochastic Gradient Descent for Non-smooth Optimization",
    https://arxiv.org/abs/1212.1824).

    >>> average_weight(0, True), average_weight(98, True), round(average_weight(9000, False), 4)
    (1.0, 0.02, 0.002)
    """
    return 2 / (2 + steps) if trained else max(1 - EMA_DECAY, 9 / (10 + steps))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, weight: float) -> None:
    """Move the averaged weights towards the model's by `weight`, in [0, 1]."""
    targets = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(targets[name], weight)


def _read_start(recipe: Recipe, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return exported weights to begin with, and their metrics."""
    try:
        return recipe.load(folder), json.loads((folder / "metrics.json").read_text())
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no weights to begin with ({error})") from error


class Run:
    """One training run and its files."""

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        folder: Path,
        start: Path | None = None,
        rate: float | None = None,
    ) -> None:
        self.name, self.recipe, self.folder = name, recipe, folder
        self.model, metrics = _read_start(recipe, start) if start else (recipe.build(), {})
        self.average = copy.deepcopy(self.model).eval()
        self.progress = Progress(rate or recipe.LEARNING_RATE, start=metrics)
        self.optimizer = make_optimizer(self.model, self.progress.rate)

    def save(self) -> None:
        """Write the state of the run so that a crash leaves the old one or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        parts = {"model": self.model.state_dict(), "average": self.average.state_dict()}
        parts |= {str(i): moments for i, moments in self.optimizer.state_dict()["state"].items()}
        tensors = {
            f"{part}/{name}": tensor.contiguous().clone()  # a model may share some of its tensors
            for part, state in parts.items()
            for name, tensor in state.items()
        }
        partial = self.folder / "state.partial"
        save_file(tensors, partial, {"progress": json.dumps(asdict(self.progress))})
        partial.replace(self.folder / "state.safetensors")

    def load(self) -> None:
        """Go on from the file of `save`.

        Raises:
            ValueError: If it is not there, or not that of a run.
        """
        try:
            self._read()
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"{self.folder} holds no run to go on with ({error})") from error

    def _read(self) -> None:
        parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
        with safe_open(self.folder / "state.safetensors", "pt", backend="pread") as file:
            self.progress = Progress(**json.loads(file.metadata()["progress"]))
            for key in file.keys():  # noqa: SIM118
                part, name = key.split("/", 1)
                parts[part][name] = file.get_tensor(key)
        self.model.load_state_dict(parts.pop("model"))
        self.average.load_state_dict(parts.pop("average"))
        moments = {int(index): state for index, state in parts.items()}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def step(self, share: float) -> float:
        """Take one step and return its loss; a loss that is not finite changes nothing."""
        # A run that goes on with exported weights sees other scenes than the one before.
        seed = 1 + self.progress.start.get("steps", 0)
        rng = np.random.default_rng((seed, self.progress.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.progress.rate, self.progress.steps, share)
        begin = TRAINED if self.progress.start else 0.0
        with fast("cpu"):
            loss = self.recipe.loss(self.model, rng, begin + (1 - begin) * share)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimizer.step()
            weight = average_weight(self.progress.steps, bool(self.progress.start))
            update_average(self.average, self.model, weight)
        self.progress.steps += 1
        self.progress.pictures += self.recipe.BATCH
        return loss.item()

    def export(self, out: Path, scenes: int) -> dict[str, float]:
        """Measure the averaged weights, write them for the app, and return the metrics."""
        held_out = self.recipe.evaluate(self.average, scenes)
        out.mkdir(parents=True, exist_ok=True)
        self.recipe.save(self.average, out)
        metrics = {
            "trained_minutes": round(self.progress.minutes, 1),
            "steps": self.progress.steps,
            "pictures": self.progress.pictures,
            "held_out": held_out,
            "start": self.progress.start,
            "note": f"{scenes} held-out scenes: unseen seeds and backgrounds; CPU, fp32",
        }
        (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
        return held_out


def train(run: Run, minutes: float, out: Path, every: float, scenes: int) -> None:
    """Train until `minutes` of steps are done, with an evaluation and export every `every`.

    A run that is complete is only measured and exported again.
    """
    next_export = run.progress.minutes + every
    smooth = None

    def report(bar: tqdm) -> None:
        run.save()
        state = f"step {run.progress.steps}, {run.progress.minutes:.1f} min"
        bar.write(f"{run.name}: {state}, loss {smooth or 0:.3f}, {run.export(out, scenes)}")

    with tqdm(total=round(minutes, 1), unit="min", mininterval=5) as bar:
        bar.update(run.progress.minutes)
        while run.progress.minutes < minutes:
            started = time.process_time()
            loss = run.step(run.progress.minutes / minutes)
            smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
            spent = (time.process_time() - started) / 60
            run.progress.minutes += spent
            bar.update(spent)
            bar.set_postfix(step=run.progress.steps, loss=f"{smooth:.3f}", refresh=False)
            if run.progress.minutes >= next_export:
                next_export += every
                report(bar)
        report(bar)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Train a demo model on synthetic scenes.")
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the whole training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=float, default=3.0, help="minutes between evaluations")
    parser.add_argument("--scenes", type=int, default=40, help="held-out scenes per evaluation")
    parser.add_argument("--out", type=Path, help="default: assets/demo/MODEL")
    parser.add_argument("--start", type=Path, metavar="DIR", help="exported weights to begin with")
    parser.add_argument("--rate", type=float, help="peak learning rate; default: the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on with the last run")
    args = parser.parse_args(argv)
    if args.resume and (args.start or args.rate):
        parser.error("--resume keeps the run's own --start and --rate; give neither")
    for name in ("minutes", "threads", "every", "scenes"):
        if not getattr(args, name) > 0:  # nor is NaN
            parser.error(f"--{name} is {getattr(args, name)}; it must be above 0")
    out = args.out or DEMO_ROOT / args.model
    make_writable(out)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    recipe = cast(Recipe, importlib.import_module(RECIPES[args.model]))
    run = Run(args.model, recipe, ROOT / "runs" / "demo" / args.model, args.start, args.rate)
    if args.resume:
        run.load()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        train(run, args.minutes, out, args.every, args.scenes)
    except KeyboardInterrupt:
        run.save()
        print(f"saved after {run.progress.steps} steps; --resume goes on")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"grounding.demo.train: {error}")
