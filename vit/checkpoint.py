"""One safetensors file that holds a trained ViT and all that is needed to use it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vit.model import ViT, ViTConfig

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """Hold what turns RGB in [0, 1] into the model's input: (rgb - mean) / std per channel."""

    mean: Triple = (0.4914, 0.4822, 0.4465)
    std: Triple = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Checkpoint:
    """Hold a model in eval mode with its classes, preprocessing, recipe and metrics."""

    model: ViT
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    recipe: dict[str, Any]
    metrics: dict[str, Any]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write a new file, so that a crash leaves the old one or the new, never half.

    Raises:
        ValueError: If it cannot be written; the old file is still there.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        partial.touch()
        rights = (path if path.exists() else partial).stat().st_mode & 0o777
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())  # before the old file goes, in case the power does
        partial.chmod(rights)  # safetensors lets nobody but the owner read its files
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be written ({error}); is the disk full?") from error
    finally:
        if partial.exists():  # not where even the folder is none
            partial.unlink()


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file in the place of an older one.

    Raises:
        ValueError: If it cannot be written; the old file is still there.
    """
    with replacing(path) as new:
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, new, metadata)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `save_tensors`: its tensors and its metadata, parsed from JSON.

    Raises:
        ValueError: If there is no such file or it is no safetensors file.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        # Read, not mapped: Windows replaces no file that is, and a run writes over its own state.
        with safe_open(path, framework="pt", backend="pread") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            facts = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            return tensors, facts
    except (OSError, SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a checkpoint of train_vit.py ({error})") from error


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path` (.safetensors), everything but the weights as JSON metadata."""
    facts = {
        "config": asdict(checkpoint.model.config),
        "classes": checkpoint.classes,
        "preprocessing": asdict(checkpoint.preprocessing),
        "recipe": checkpoint.recipe,
        "metrics": checkpoint.metrics,
    }
    metadata = {key: json.dumps(value) for key, value in facts.items()}
    save_tensors(path, checkpoint.model.state_dict(), metadata)


def load_checkpoint(path: Path) -> Checkpoint:
    """Build the model a checkpoint describes and load its weights, in eval mode on the CPU.

    Raises:
        ValueError: If the file is missing, no checkpoint, or its weights do not fit its config.
    """
    tensors, facts = load_tensors(path)
    if missing := {"config", "classes", "preprocessing", "recipe", "metrics"} - facts.keys():
        raise ValueError(f"{path} is not a checkpoint of train_vit.py: no {sorted(missing)} in it")
    try:
        model = ViT(ViTConfig(**facts["config"]))
        model.load_state_dict(tensors)
        classes = tuple(facts["classes"])
        preprocessing = Preprocessing(
            **{name: tuple(numbers) for name, numbers in facts["preprocessing"].items()}
        )
    # TypeError: a size this version does not know, or facts of another kind.
    except (TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path}: the weights do not fit its config: {error}") from error
    if len({*classes}) != len(classes) or len(classes) != model.config.num_classes:
        raise ValueError(
            f"{path} names the classes {classes}; its model answers with "
            f"{model.config.num_classes}, and each needs a name of its own"
        )
    return Checkpoint(model.eval(), classes, preprocessing, facts["recipe"], facts["metrics"])
