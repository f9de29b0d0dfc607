"""A picture of 1280 x 960 and a prompt to masks: ours against the plain path, real sizes.

    python benchmarks/first_answer.py [--rounds 3] [--threads 2]

plain  as lang-segment-anything writes it: transformers' processor, GroundingDINO-tiny and its
       post-processing, then SAM 2.1 tiny's predictor on three boxes, all in float32
ours   the same weights through `grounding/pipeline.py`

Both take turns in one process, each round with a picture that neither has seen. Then the masks and
all boxes of both are compared.
"""

import copy
from typing import Any

import numpy as np
import real_size as real
import torch
from PIL import Image
from second_prompt import ThreeBoxes
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from grounding.demo.evaluate import mask_iou
from grounding.grounders.grounding_dino.grounder import GroundingDino
from grounding.grounders.grounding_dino.lean import make_lean
from grounding.pipeline import propose
from grounding.segmenters.sam2 import Sam2
from grounding.store import Models
from grounding.weights import Origin, Source

THRESHOLD = 0.3


def stock_models() -> tuple[Any, Any, Any]:
    """Return GroundingDINO, its processor and SAM 2.

    A fresh head moves no box at all; this one moves them a little, as a trained one does. The
    queries are alike, since their order, which follows from the proposals' ranks, is chance here:
    random scores are near ties.
    """
    model, processor = real.stock_grounding_dino()
    torch.nn.init.constant_(model.model.query_position_embeddings.weight, 0.5)
    for head in {*model.bbox_embed}:
        torch.nn.init.normal_(head.layers[-1].weight, std=0.01)
    return model, processor, real.stock_sam2()


@torch.inference_mode()
def plain_boxes(model: Any, processor: Any, image: Image.Image) -> Tensor:
    """Return all boxes, cxcywh in [0, 1], as transformers finds them."""
    inputs = processor(images=image, text=". ".join(real.PHRASES) + ".", return_tensors="pt")
    outputs = model(**inputs)
    processor.post_process_grounded_object_detection(
        outputs, inputs["input_ids"], threshold=THRESHOLD, target_sizes=[image.size[::-1]]
    )
    return outputs.pred_boxes[0]


@torch.inference_mode()
def plain_masks(model: Any, image: Image.Image) -> np.ndarray:
    """Return a mask a box, (N, H, W), as the official predictor makes them."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    predictor.set_image(np.array(image))
    return predictor.predict(box=real.BOXES, multimask_output=False)[0][:, 0] > 0


@torch.inference_mode()
def compare(dino: Any, sam2: Any, grounder: GroundingDino, segmenter: Sam2) -> None:
    """Print how far apart the two sides' boxes and masks are."""
    image = real.picture(0)
    expected, found = plain_boxes(dino, grounder.processor, image), []
    grounder.model.register_forward_hook(lambda *call: found.append(call[-1].pred_boxes[0]))
    regions = ThreeBoxes(grounder).ground(image, real.PHRASES, THRESHOLD)
    corners = [box_convert(boxes, "cxcywh", "xyxy") for boxes in (expected, found[0])]
    ious = box_iou(*corners).amax(1)
    print(f"boxes  {len(ious)}: IoU mean {ious.mean():.4f}, {(ious >= 0.99).float().mean():.1%} "
          "at least .99")  # fmt: skip
    pairs = zip(plain_masks(sam2, image), segmenter.segment(image, regions).masks, strict=True)
    print("masks  IoU", " ".join(f"{mask_iou(a, b):.4f}" for a, b in pairs))


def main() -> None:
    rounds = real.read_rounds(__doc__, 3)
    dino, processor, sam2 = stock_models()
    lean = copy.deepcopy(dino)
    make_lean(lean, "cpu")
    grounder, segmenter = GroundingDino(lean, processor, "cpu"), Sam2(sam2)
    source = Source("random", real.ROOT)
    models = Models(ThreeBoxes(grounder), segmenter, Origin(source, source))

    def plain(turn: int) -> None:
        plain_boxes(dino, processor, real.picture(turn))
        plain_masks(sam2, real.picture(turn))

    def ours(turn: int) -> None:
        propose(models, real.picture(turn), ", ".join(real.PHRASES), THRESHOLD)

    seconds = real.medians({"plain": plain, "ours": ours}, rounds)
    for side, median in seconds.items():
        print(f"{side:6} median {median:6.2f} s of {rounds} rounds")
    print(f"ratio  {seconds['plain'] / seconds['ours']:.2f}x")
    compare(dino, sam2, grounder, segmenter)


if __name__ == "__main__":
    main()
