"""GroundingDINO (Liu et al., ECCV 2024, https://arxiv.org/abs/2303.05499) through transformers.

transformers' own post-processing joins phrases that score alike into one label. Here the caption's
token ids are laid out by us, so every phrase knows its tokens and every box its phrase.
"""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from grounding.captions import pack
from grounding.core import Regions

NMS_IOU = 0.5
LONGEST = 32  # times its short side: of a longer picture the pyramid has fewer places than queries
GREY = (124, 116, 104)  # nothing to see, after normalisation


class GroundingDino:
    """Find boxes by text."""

    def __init__(self, model: Any, processor: Any, device: str) -> None:
        """Take transformers' model in eval mode on `device`, and its processor."""
        self.model, self.processor, self.device = model, processor, device
        tokenizer = processor.tokenizer
        self.first, self.last = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.stop = tokenizer.convert_tokens_to_ids(".")

    @torch.inference_mode()
    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        """Return boxes of an RGB picture, each labelled with the phrase that scored best in it."""
        whole = _widen(image)
        inputs = self.processor.image_processor(images=whole, return_tensors="pt").to(self.device)
        room = self.model.config.max_text_len - 2
        tokens = [self._tokens(phrase)[: room - 1] for phrase in phrases]
        lengths = [len(ids) for ids in tokens]
        found = [self._detect(inputs, tokens, numbers) for numbers in pack(lengths, room)]
        boxes, scores, numbers = (torch.cat(parts) for parts in zip(*found, strict=True))
        size, whole_size = boxes.new_tensor(image.size * 2), boxes.new_tensor(whole.size * 2)
        boxes = (box_convert(boxes, "cxcywh", "xyxy") * whole_size).minimum(size).clamp(min=0)
        visible = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= 1
        kept = torch.nonzero((scores >= threshold) & visible).flatten()
        kept = kept[batched_nms(boxes[kept], scores[kept], numbers[kept], NMS_IOU)]
        return Regions(
            boxes[kept].cpu().numpy(),
            scores[kept].cpu().numpy(),
            tuple(phrases[number] for number in numbers[kept].tolist()),
        )

    def _tokens(self, phrase: str) -> list[int]:
        return self.processor.tokenizer(phrase, add_special_tokens=False)["input_ids"]

    def _detect(
        self, inputs: Any, tokens: list[list[int]], numbers: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one caption; return boxes cxcywh in [0, 1], scores, and the best phrase's number."""
        ids, spans = [self.first], []
        for number in numbers:
            spans.append((len(ids), len(ids) + len(tokens[number])))
            ids += [*tokens[number], self.stop]
        text = torch.tensor([[*ids, self.last]], device=self.device)
        output = self.model(
            **inputs,
            input_ids=text,
            attention_mask=torch.ones_like(text),
            token_type_ids=torch.zeros_like(text),
        )
        probabilities = output.logits[0].float().sigmoid()  # (queries, max_text_len)
        # A phrase of tokens the vocabulary lacks entirely has an empty span and is never found.
        by_phrase = torch.stack(
            [probabilities[:, a:b].amax(1) if b > a else probabilities[:, 0] * 0 for a, b in spans],
            dim=1,
        )
        scores, best = by_phrase.max(1)
        return output.pred_boxes[0].float(), scores, best.new_tensor(numbers)[best]


def _widen(image: Image.Image) -> Image.Image:
    """Return the picture, or if it is too long the same at the top left of a grey one."""
    least = -(-max(image.size) // LONGEST)
    if min(image.size) >= least:
        return image
    wide = Image.new("RGB", (max(image.width, least), max(image.height, least)), GREY)
    wide.paste(image)
    return wide
