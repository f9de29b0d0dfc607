"""Our parts of GroundingDINO against transformers' own."""

import copy
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert, box_iou
from transformers import AutoModelForZeroShotObjectDetection, BertConfig, GroundingDinoConfig
from transformers import GroundingDinoForObjectDetection as Stock
from transformers.models.grounding_dino.modeling_grounding_dino import (
    MultiScaleDeformableAttention,
)

from grounding.core import Regions
from grounding.demo.samples import SAMPLES, make_sample
from grounding.grounders.grounding_dino import load
from grounding.grounders.grounding_dino.deformable import CHUNK, DeformableAttention
from grounding.grounders.grounding_dino.lean import make_lean
from grounding.segmenters.sam2 import load as load_sam2
from grounding.weights import DEMO_ROOT

PHRASES = ["a dog", "a red car", "a tree"]
PROPOSALS = 25 * 33 + 13 * 17 + 7 * 9 + 4 * 5  # of a picture of 200 x 260 pixels, on four levels


@pytest.mark.parametrize(
    ("shapes", "queries", "reach"),
    [
        ([(5, 7)], 3, 0.0),  # one level, inside
        ([(5, 7), (3, 4)], 6, 0.5),  # some places outside
        ([(5, 7), (3, 4)], 6, 5.0),  # most far outside
        ([(6, 1), (1, 4), (1, 1)], 9, 0.5),  # levels a single pixel wide or high
        ([(2, 5), (4, 2)], 6, 0.5),  # or two
        ([(9, 9)], CHUNK + 1, 0.2),  # more queries than are taken at a time
    ],
)
def test_deformable_attention(shapes: list[tuple[int, int]], queries: int, reach: float) -> None:
    torch.manual_seed(0)
    sizes = torch.tensor(shapes)
    starts = torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]])
    value = torch.randn(2, int(sizes.prod(1).sum()), 4, 8)
    places = torch.rand(2, queries, 4, len(shapes), 3, 2) * (1 + 2 * reach) - reach
    weights = torch.rand(2, queries, 4, len(shapes), 3)
    inputs = (value, sizes, shapes, starts, places, weights, 64)
    expected = MultiScaleDeformableAttention()(*inputs)
    torch.testing.assert_close(DeformableAttention()(*inputs), expected, atol=1e-5, rtol=1e-4)


def _answer(model: Any, height: int = 200, width: int = 260) -> tuple[Tensor, Tensor]:
    """Return all boxes xyxy (Q, 4) and the logits of the caption's tokens (Q, T)."""
    noise = torch.randn(1, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    pixels = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")
    ids = torch.tensor([[101, 1037, 3899, 1012, 1037, 2482, 1012, 102]])  # a dog . a car .
    with torch.inference_mode():
        output = model(
            pixel_values=pixels,
            pixel_mask=torch.ones(1, height, width, dtype=torch.long),
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            token_type_ids=torch.zeros_like(ids),
        )
    return box_convert(output.pred_boxes[0], "cxcywh", "xyxy"), output.logits[0, :, : ids.shape[1]]


@pytest.mark.parametrize(
    ("half", "tolerance"),
    [
        (False, 2e-3),
        (True, 1.0),  # bfloat16 as where a processor has units for it; logits spread by 10 and more
    ],
)
def test_random_model_of_real_size(half: bool, tolerance: float) -> None:
    """The network is GroundingDINO-tiny; the picture and BERT are small, so the test is short.

    A proposal's rank says which learned query it gets. The ranks of random weights are near ties,
    which bfloat16 breaks in another way: so all proposals are taken, and all queries are alike.
    """
    torch.manual_seed(0)
    text = BertConfig(num_hidden_layers=2)
    stock = Stock(GroundingDinoConfig(text_config=text, num_queries=PROPOSALS)).eval()
    queries = stock.model.query_position_embeddings.weight
    torch.nn.init.constant_(queries, 0.5)
    for head in {*stock.bbox_embed}:  # a fresh head would move no box
        torch.nn.init.normal_(head.layers[-1].weight, std=0.01)
    lean = copy.deepcopy(stock)
    make_lean(lean, "cpu")
    boxes, logits = _answer(stock)
    with mock.patch("common.precision.has_units", return_value=half):
        ours, our_logits = _answer(lean)
    ious, partners = box_iou(boxes, ours).max(1)
    assert ious.min() > 0.99
    torch.testing.assert_close(our_logits[partners], logits, atol=tolerance, rtol=1e-3)


@pytest.mark.parametrize(("device", "ours"), [("cpu", True), ("cuda", False)])
def test_what_is_for_processors_only(device: str, ours: bool) -> None:
    small = {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 5}
    model = Stock(GroundingDinoConfig(text_config=BertConfig(num_hidden_layers=1), **small)).eval()
    make_lean(model, device)
    parts = [
        *(layer.deformable_layer.self_attn.attn for layer in model.model.encoder.layers),
        *(layer.encoder_attn.attn for layer in model.model.decoder.layers),
    ]
    assert [isinstance(part, DeformableAttention) for part in parts] == [ours] * 3


def _pictures() -> list[Image.Image]:
    """Return scenes that show what `PHRASES` name."""
    street = next(sample for sample in SAMPLES if sample.file == "street")
    scenes = [make_sample(replace(street, seed=seed)) for seed in (3, 18, 37)]
    return [Image.fromarray(scene.image) for scene in scenes]


def _same(found: Regions, expected: Regions) -> bool:
    assert found.labels == expected.labels and len(expected)
    ious = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(expected.boxes)).diagonal()
    return bool((ious >= 0.99).all()) and np.allclose(found.scores, expected.scores, atol=0.02)


@pytest.mark.parametrize("half", [False, True])  # bfloat16 as where a processor has units for it
def test_kept_boxes_and_masks_of_the_demo_weights(half: bool) -> None:
    folder = DEMO_ROOT / "grounding_dino"
    grounder, plain = load(folder, "cpu"), load(folder, "cpu")
    plain.model = AutoModelForZeroShotObjectDetection.from_pretrained(folder, dtype=torch.float32)
    plain.model.eval()
    segmenter, other = (load_sam2(DEMO_ROOT / "sam2", "cpu") for _ in range(2))
    for picture in _pictures():
        expected = plain.ground(picture, PHRASES, 0.3)
        masks = other.segment(picture, expected).masks
        with mock.patch("common.precision.has_units", return_value=half):
            assert _same(grounder.ground(picture, PHRASES, 0.3), expected)
            ours = segmenter.segment(picture, expected).masks
        shared, either = (ours & masks).sum((1, 2)), (ours | masks).sum((1, 2))
        assert (shared >= 0.99 * either).all()
