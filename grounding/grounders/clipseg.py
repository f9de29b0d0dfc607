"""CLIPSeg (Lüddecke and Ecker, CVPR 2022, https://arxiv.org/abs/2112.10003) through transformers.

It gives a coarse heat map a phrase.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from common.precision import fast
from grounding.core import Regions, mask_boxes
from grounding.loading import read_pretrained, read_processor
from grounding.recent import Recent


class ClipSeg:
    """Find coarse masks by text."""

    def __init__(self, model: Any, processor: Any, device: str) -> None:
        """Take transformers' model in eval mode on `device`, and its processor."""
        self.model, self.processor, self.device = model, processor, device
        # The decoder reads nothing above its last layer.
        encoder = model.clip.vision_model.encoder
        encoder.layers = encoder.layers[: max(model.extract_layers) + 1]
        self._seen: Recent[list[torch.Tensor]] = Recent()

    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        """Return a region for each phrase whose map reaches the threshold somewhere.

        Its mask is the whole map; the pipeline cuts it into parts.
        """
        small = self._maps(image, phrases)
        maps = np.stack([cv2.resize(heat, image.size) for heat in small])
        peaks = maps.max((1, 2))
        kept = [i for i in np.argsort(-peaks, kind="stable") if peaks[i] >= threshold]
        masks = maps[kept]
        return Regions(
            mask_boxes(mask >= threshold for mask in masks),
            peaks[kept],
            tuple(phrases[i] for i in kept),
            masks,
            maps.max(0),
        )

    @torch.inference_mode()
    def _maps(self, image: Image.Image, phrases: list[str]) -> np.ndarray:
        """Return each phrase's heat map, float32 (P, S, S) in [0, 1]."""
        model = self.model
        text = self.processor.tokenizer(
            phrases, padding=True, truncation=True, return_tensors="pt"
        ).to(self.device)
        # The model's forward would run the vision tower once a phrase; the picture needs it once.
        layers = self._seen.get(np.array(image), lambda: self._look(image))
        layers = [layer.expand(len(phrases), -1, -1) for layer in layers]
        condition = model.get_conditional_embeddings(batch_size=len(phrases), **text)
        logits = model.decoder(layers, condition).logits
        return logits.reshape(len(phrases), *logits.shape[-2:]).float().sigmoid().cpu().numpy()

    def _look(self, image: Image.Image) -> list[torch.Tensor]:
        """Return the layers of the vision tower that the decoder reads, (1, N, D) each."""
        pixels = self.processor.image_processor(images=image, return_tensors="pt")["pixel_values"]
        with fast(self.device):
            vision = self.model.clip.vision_model(
                pixels.to(self.device), output_hidden_states=True, interpolate_pos_encoding=True
            )
        return [vision.hidden_states[i + 1].float() for i in self.model.extract_layers]


def load(folder: Path, device: str) -> ClipSeg:
    """Load the grounder from a folder in transformers' layout."""
    from transformers import CLIPSegForImageSegmentation

    model = read_pretrained(CLIPSegForImageSegmentation, folder)
    return ClipSeg(model.to(device), read_processor(folder), device)
