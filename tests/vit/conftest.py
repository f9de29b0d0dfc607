from pathlib import Path

import pytest
import torch

from vit.checkpoint import Checkpoint, Preprocessing, save_checkpoint
from vit.data import ImageSet, Split
from vit.model import ViT, ViTConfig


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
def tiny_model(tiny_config: ViTConfig) -> ViT:
    return randomized(ViT(tiny_config))


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
def tiny_checkpoint(tmp_path: Path, tiny_model: ViT) -> Path:
    path = tmp_path / "tiny.safetensors"
    metrics = {"test_accuracy": 0.875, "test_images": 1234, "data": "colours"}
    classes = ("red", "green", "blue")
    save_checkpoint(path, Checkpoint(tiny_model, classes, Preprocessing(), {"epochs": 1}, metrics))
    return path
