"""GLIP as a grounder: phrases in, boxes with phrases out."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.precision import fast
from grounding.captions import pack
from grounding.core import Regions
from grounding.grounders.glip.boxes import Detections, detect
from grounding.grounders.glip.caption import encode, join
from grounding.grounders.glip.model import Glip
from grounding.grounders.glip.pictures import prepare
from grounding.recent import Recent


class GlipGrounder:
    """Find boxes by text."""

    def __init__(self, model: Glip, tokenizer: Any, device: str) -> None:
        """Take the network in eval mode on `device`, and transformers' fast BERT tokenizer."""
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self._seen: Recent[list[Tensor]] = Recent()

    @torch.inference_mode()
    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        """Return boxes of an RGB picture, each with the phrase it was found by."""
        config = self.model.config
        pixels, (size,) = prepare([image], config.short_side, config.long_side)
        lengths = [len(self.tokenizer.tokenize(phrase)) for phrase in phrases]
        maps = self._seen.get(np.array(image), lambda: look(self.model, pixels.to(self.device)))
        found = [
            self._read(maps, [phrases[n] for n in numbers], size, numbers)
            for numbers in pack(lengths, config.max_tokens - 2)
        ]
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        ratio = boxes.new_tensor([image.width / size[0], image.height / size[1]] * 2)
        # The last pixel of the network's boxes is inside; ours end behind it.
        boxes = (boxes + boxes.new_tensor([0, 0, 1, 1])) * ratio
        visible = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= 1
        kept = torch.nonzero((scores >= threshold) & visible).flatten()
        kept = kept[scores[kept].argsort(descending=True, stable=True)]
        return Regions(
            boxes[kept].cpu().numpy(),
            scores[kept].cpu().numpy(),
            tuple(phrases[label] for label in labels[kept].tolist()),
        )

    def _read(
        self, maps: list[Tensor], captions: list[str], size: tuple[int, int], numbers: list[int]
    ) -> Detections:
        """Look for one caption's phrases; `numbers` says which they are of all."""
        ids, positive = encode(self.tokenizer, *join(captions), self.model.config.max_tokens)
        raw = self.model.read(maps, ids.to(self.device))
        found = detect(raw, 0, positive.to(self.device), size)
        return found._replace(labels=found.labels.new_tensor(numbers)[found.labels])


def look(model: Glip, pixels: Tensor) -> list[Tensor]:
    """Run the half of the network that sees no text, in bfloat16 where that is fast.

    The boxes stay the same. With the other half in bfloat16 as well some scores cross the
    threshold (benchmarks/glip.py measures the boxes).
    """
    with fast(pixels.device.type):
        maps = model.look(pixels)
    return [x.float() for x in maps]
