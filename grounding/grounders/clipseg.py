"""CLIPSeg (Lüddecke and Ecker, CVPR 2022, https://arxiv.org/abs/2112.10003) through transformers.

It gives a coarse heat map a phrase. A region is a connected part of that map above the threshold.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from grounding.core import Regions

MAX_REGIONS = 30
MIN_AREA = 0.002


class ClipSeg:
    """Find coarse masks by text."""

    def __init__(self, model: Any, processor: Any, device: str) -> None:
        """Take transformers' model in eval mode on `device`, and its processor."""
        self.model, self.processor, self.device = model, processor, device

    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        """Return the connected parts of an RGB picture where a phrase's map is above threshold."""
        maps = self._maps(image, phrases)
        found = [
            (score, phrase, part)
            for phrase, heat in zip(phrases, maps, strict=True)
            for score, part in split_parts(heat, threshold)
        ]
        found = sorted(found, key=lambda row: -row[0])[:MAX_REGIONS]
        heatmap = cv2.resize(maps.max(0), image.size, interpolation=cv2.INTER_LINEAR)
        masks = [cv2.resize(p, image.size, interpolation=cv2.INTER_LINEAR) for _, _, p in found]
        return Regions(
            np.array([_box(mask) for mask in masks], np.float32).reshape(-1, 4),
            np.array([score for score, _, _ in found], np.float32),
            tuple(phrase for _, phrase, _ in found),
            np.array(masks, np.float32).reshape(-1, image.height, image.width),
            heatmap,
        )

    @torch.inference_mode()
    def _maps(self, image: Image.Image, phrases: list[str]) -> np.ndarray:
        """Return each phrase's heat map, float32 (P, S, S) in [0, 1]."""
        model = self.model
        pixels = self.processor.image_processor(images=image, return_tensors="pt")["pixel_values"]
        text = self.processor.tokenizer(
            phrases, padding=True, truncation=True, return_tensors="pt"
        ).to(self.device)
        # The model's forward would run the vision tower once a phrase; the picture needs it once.
        vision = model.clip.vision_model(
            pixels.to(self.device), output_hidden_states=True, interpolate_pos_encoding=True
        )
        layers = [vision.hidden_states[i + 1] for i in model.extract_layers]
        layers = [layer.expand(len(phrases), -1, -1) for layer in layers]
        condition = model.get_conditional_embeddings(batch_size=len(phrases), **text)
        logits = model.decoder(layers, condition).logits
        return logits.reshape(len(phrases), *logits.shape[-2:]).float().sigmoid().cpu().numpy()


def split_parts(heat: np.ndarray, threshold: float) -> list[tuple[float, np.ndarray]]:
    """Split a heat map (S, S) into its connected parts above `threshold`.

    Returns:
        For each part that covers at least 0.2 % of the map its highest value and a map that is 0
        elsewhere.
    """
    # A map of ones at threshold 0 must still be one part, hence the strict lower bound.
    count, labels = cv2.connectedComponents((heat >= max(threshold, 1e-6)).astype(np.uint8))
    parts = [(heat * (labels == i)).astype(np.float32) for i in range(1, count)]
    large = [part for part in parts if np.count_nonzero(part) >= MIN_AREA * heat.size]
    return [(float(part.max()), part) for part in large]


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def load(folder: Path, device: str) -> ClipSeg:
    """Load the grounder from a folder in transformers' layout."""
    from transformers import AutoProcessor, CLIPSegForImageSegmentation

    model = CLIPSegForImageSegmentation.from_pretrained(folder, dtype=torch.float32)
    return ClipSeg(model.eval().to(device), AutoProcessor.from_pretrained(folder), device)
