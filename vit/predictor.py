"""From a picture of any size to what the model says about it and what it looked at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.images import to_rgb
from vit.attribution import attention_gradients
from vit.checkpoint import Checkpoint, load_checkpoint
from vit.crop import Box, Crop, cut
from vit.data import normalize, statistics
from vit.model import ViTConfig


@dataclass(frozen=True)
class Prediction:
    """Hold the answer for one picture.

    Attributes:
        probabilities: Class name to probability, in label order; the values sum to 1.
        attentions: Softmax weights (L, 1, h, N, N), float.
        config: The model's sizes, which say what the N tokens are.
        seen: The RGB picture the model saw, image_size x image_size.
        box: The part of the given picture that `seen` shows: left, top, right, bottom in pixels.
        gradients: Of the classes asked for so far, by index: how the class's logit changes with
            `attentions`, the same shape; filled by `Predictor.gradients`.
    """

    probabilities: dict[str, float]
    attentions: Tensor
    config: ViTConfig
    seen: Image.Image
    box: Box
    gradients: dict[int, Tensor] = field(default_factory=dict)


class Predictor:
    """Classify pictures with a checkpoint, on the CPU. Threads may share it."""

    def __init__(self, checkpoint: Path) -> None:
        """Load the checkpoint.

        Raises:
            ValueError: If it is missing or cannot be read.
        """
        # Leaves the caller's mode out, in which there may be no gradients, and the caller's
        # random numbers alone: a new network takes some.
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            self.checkpoint: Checkpoint = load_checkpoint(checkpoint)

    def predict(self, image: Image.Image, crop: Crop = Crop()) -> Prediction:  # noqa: B008 (frozen)
        """Classify a square of a picture of any size and mode, by default the one in the middle."""
        checkpoint = self.checkpoint
        config, box = checkpoint.model.config, crop.box(image.size)
        seen = self._look(image, box)
        with torch.no_grad():
            logits, attentions = checkpoint.model.forward_with_attention(self.to_input([seen]))
        values = logits[0].softmax(dim=0).tolist()
        probabilities = dict(zip(checkpoint.classes, values, strict=True))
        return Prediction(probabilities, attentions, config, seen, box)

    def answers(self, images: Sequence[Image.Image]) -> list[str]:
        """Return the most probable class of the middle square of every picture, in one batch."""
        classes = self.checkpoint.classes
        seen = [self._look(image, Crop().box(image.size)) for image in images]
        best = self.probabilities(self.to_input(seen)).argmax(dim=1)
        return [classes[index] for index in best.tolist()]

    def _look(self, image: Image.Image, box: Box) -> Image.Image:
        return cut(to_rgb(image), box, self.checkpoint.model.config.image_size)

    def gradients(self, prediction: Prediction, label: int) -> Tensor:
        """Return how the logit of a class changes with every attention of a prediction.

        Args:
            prediction: Of this predictor; it keeps the result for the next time.
            label: Index of the class.

        Returns:
            float (L, 1, h, N, N).
        """
        if label not in prediction.gradients:
            with torch.inference_mode(False):
                x = self.to_input([prediction.seen])
                prediction.gradients[label] = attention_gradients(self.checkpoint.model, x, label)
        return prediction.gradients[label]

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Classify a batch (B, 3, S, S) of `to_input`: float (B, K), rows sum to 1."""
        return self.checkpoint.model(x).softmax(dim=1)

    def to_input(self, seen: Sequence[Image.Image]) -> Tensor:
        """Turn RGB pictures of the model's size S into its input, float (B, 3, S, S)."""
        pixels = torch.from_numpy(np.stack([np.array(image) for image in seen]))
        known = statistics(self.checkpoint.preprocessing, pixels.device)
        return normalize(pixels.permute(0, 3, 1, 2), *known)
