import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vit.checkpoint import Checkpoint, Preprocessing, save_checkpoint
from vit.data import ImageSet, Split
from vit.model import ViT, ViTConfig
from vit.predictor import Predictor
from vit.view import Look


def randomized(model: ViT) -> ViT:
    """Give every weight a value that matters; as built, the head is 0 and the biases too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


@pytest.fixture
def tiny_config() -> ViTConfig:
    return ViTConfig(
        image_size=8, patch_size=2, num_classes=3, embed_dim=16, depth=2, num_heads=2, mlp_dim=24
    )


@pytest.fixture
def make_model(tiny_config: ViTConfig) -> Callable[..., ViT]:
    """Return a function that makes a tiny model with the options of ViTConfig it is given."""
    return lambda **options: randomized(ViT(dataclasses.replace(tiny_config, **options)))


@pytest.fixture
def tiny_model(make_model: Callable[..., ViT]) -> ViT:
    return make_model()


@pytest.fixture
def tiny_set() -> ImageSet:
    """Three classes a child can tell apart: red, green and blue noise."""
    generator = torch.Generator().manual_seed(2)

    def split(count: int) -> Split:
        labels = torch.arange(count) % 3
        images = torch.randint(0, 100, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
        images[torch.arange(count), labels] += 150
        return Split(images, labels)

    return ImageSet(split(13), split(9), ("red", "green", "blue"), "colours")


@pytest.fixture
def make_checkpoint(tmp_path: Path, make_model: Callable[..., ViT]) -> Callable[..., Path]:
    """Return a function that writes a checkpoint of a tiny model, as train_vit.py would."""

    def write(classes: tuple[str, ...] = ("red", "green", "blue"), **options: Any) -> Path:
        path = tmp_path / "tiny.safetensors"
        metrics = {"test_accuracy": 0.875, "test_images": 1234, "data": "colours"}
        model = make_model(num_classes=len(classes), **options)
        save_checkpoint(path, Checkpoint(model, classes, Preprocessing(), {"epochs": 1}, metrics))
        return path

    return write


@pytest.fixture
def tiny_checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint()


def look_at(checkpoint: Path) -> Look:
    """Return the answer to a lying picture of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    picture, predictor = Image.fromarray(pixels), Predictor(checkpoint)
    return Look(predictor, predictor.predict(picture), picture)


@pytest.fixture
def look(tiny_checkpoint: Path) -> Look:
    return look_at(tiny_checkpoint)
