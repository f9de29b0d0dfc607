"""What a classifier answers on a split of pictures, and how often it is right."""

import torch
from torch import Tensor, nn

from vit.checkpoint import Preprocessing
from vit.data import Split, normalize, statistics
from vit.model import ViT


@torch.inference_mode()
def predict(model: nn.Module, split: Split, preprocessing: Preprocessing) -> Tensor:
    """Return the answers of `model` on `split`: int64 (N,), the labels with the largest logits."""
    training = model.training
    model.eval()
    mean, std = statistics(preprocessing, split.images.device)
    answers = [model(normalize(images, mean, std)).argmax(1) for images in split.images.split(500)]
    model.train(training)
    return torch.cat(answers)


def confusion_matrix(model: ViT, split: Split, preprocessing: Preprocessing) -> Tensor:
    """Count the answers of `model` on `split`: int64 (K, K), true classes down, on the CPU."""
    k = model.config.num_classes
    pairs = split.labels * k + predict(model, split, preprocessing)
    return torch.bincount(pairs, minlength=k * k).view(k, k).cpu()


def accuracy(confusion: Tensor) -> float:
    """Return the share of right answers, in [0, 1], of a confusion matrix (K, K).

    >>> accuracy(torch.tensor([[3, 1], [0, 4]]))
    0.875
    """
    return int(confusion.trace()) / int(confusion.sum())
