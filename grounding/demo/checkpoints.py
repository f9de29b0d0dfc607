"""Thin calls on the saved demo checkpoints, enough to measure them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from sam2.sam2_image_predictor import SAM2ImagePredictor
from torch.nn import functional as F
from torchvision.ops import box_convert, nms
from transformers import (
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    CLIPSegForImageSegmentation,
)

from ..core import Masks, Regions
from .train_sam2 import load

_STOP = 1012
_MIN_AREA = 0.0008


def _regions(
    boxes: list[np.ndarray], scores: list[float], labels: list[str], masks: list[np.ndarray] | None
) -> Regions:
    """Collect regions found phrase by phrase."""
    return Regions(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        labels=tuple(labels),
        masks=np.stack(masks).astype(np.float32) if masks else None,
    )


class GroundingDino:
    """Finds boxes by phrases; a box scores what the best token of the phrase scores."""

    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()

    @torch.inference_mode()
    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        """Return the boxes above the threshold, per phrase, without duplicates."""
        inputs = self.processor(images=image, text=[phrases], return_tensors="pt")
        out = self.model(**inputs)
        size = torch.tensor([image.width, image.height] * 2)
        corners = (box_convert(out.pred_boxes[0], "cxcywh", "xyxy") * size).clamp(min=0)
        corners = corners.minimum(size)
        stops = (inputs["input_ids"][0] == _STOP).nonzero().flatten().tolist()
        boxes, scores, labels = [], [], []
        for phrase, start, stop in zip(phrases, [0, *stops], stops, strict=False):
            score = out.logits[0, :, start + 1 : stop].sigmoid().amax(dim=-1)
            sure = score >= threshold
            for i in nms(corners[sure], score[sure], 0.6).tolist():
                boxes.append(corners[sure][i].numpy())
                scores.append(score[sure][i].item())
                labels.append(phrase)
        return _regions(boxes, scores, labels, None)


class ClipSeg:
    """Finds coarse masks by phrases: the connected parts of the picture above the threshold."""

    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = CLIPSegForImageSegmentation.from_pretrained(folder).eval()

    @torch.inference_mode()
    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        """Return the parts with their boxes and peak scores, per phrase."""
        pictures = [image] * len(phrases)
        inputs = self.processor(
            images=pictures, text=phrases, padding=True, truncation=True, return_tensors="pt"
        )
        logits = self.model(**inputs).logits.view(
            len(phrases), 1, *inputs["pixel_values"].shape[-2:]
        )
        size = (image.height, image.width)
        maps = F.interpolate(logits, size, mode="bilinear")[:, 0].sigmoid().numpy()
        boxes, scores, labels, masks = [], [], [], []
        for phrase, heat in zip(phrases, maps, strict=True):
            hot = (heat >= threshold).astype(np.uint8)
            count, parts, stats, _ = cv2.connectedComponentsWithStats(hot)
            for part in range(1, count):
                left, top, width, height, area = stats[part]
                if area < _MIN_AREA * heat.size:
                    continue
                inside = np.where(parts == part, heat, 0)
                boxes.append(np.array([left, top, left + width, top + height]))
                scores.append(float(inside.max()))
                labels.append(phrase)
                masks.append(inside)
        return _regions(boxes, scores, labels, masks)


class Sam2:
    """Refines boxes, with coarse masks where there are any."""

    def __init__(self, folder: Path) -> None:
        model = load(folder)
        self.predictor = SAM2ImagePredictor(model)
        side = model.image_size
        # The predictor assumes a side of 1024.
        self.predictor._bb_feat_sizes = [(side // k, side // k) for k in (4, 8, 16)]
        self.coarse_side = side // 4

    @torch.inference_mode()
    def segment(self, image: Image.Image, regions: Regions) -> Masks:
        """Return one mask per region."""
        self.predictor.set_image(np.asarray(image))
        masks, scores = [], []
        for i, box in enumerate(regions.boxes):
            coarse = None
            if regions.masks is not None:
                small = cv2.resize(regions.masks[i], (self.coarse_side,) * 2, None, 0, 0, 3)
                coarse = (small[None] - 0.5) * 16
            found, score, _ = self.predictor.predict(
                box=box, mask_input=coarse, multimask_output=False
            )
            masks.append(found[0] > 0)
            scores.append(score[0])
        return Masks(np.stack(masks), np.array(scores, np.float32))
