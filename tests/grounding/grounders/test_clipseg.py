import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, CLIPSegConfig, CLIPSegForImageSegmentation

from grounding.grounders.clipseg import ClipSeg
from grounding.weights import DEMO_ROOT


class FixedMaps(ClipSeg):
    """A grounder whose model answers with given maps."""

    def __init__(self, maps: np.ndarray) -> None:
        self.maps = maps

    def _maps(self, image: Image.Image, phrases: list[str]) -> np.ndarray:
        return self.maps


def _heat(*squares: tuple[int, int, float]) -> np.ndarray:
    heat = np.zeros((64, 64), np.float32)
    for x, y, score in squares:
        heat[y : y + 8, x : x + 8] = score
    return heat


def test_regions_are_sorted_and_hold_the_maps() -> None:
    maps = np.stack([_heat((8, 16, 0.6)), _heat((40, 40, 0.9), (0, 0, 0.2))])
    regions = FixedMaps(maps).ground(Image.new("RGB", (128, 64)), ["a dog", "a cat"], 0.4)
    assert regions.labels == ("a cat", "a dog")
    assert regions.scores.tolist() == pytest.approx([0.9, 0.6])
    assert regions.boxes[1] == pytest.approx([16, 16, 32, 24], abs=2)
    assert regions.masks is not None and regions.masks.shape == (2, 64, 128)
    assert regions.masks[1, 20, 24] == pytest.approx(0.6) and regions.masks[1, 44, 88] == 0
    assert regions.masks[0, 4, 4] == pytest.approx(0.2)  # cutting is not the grounder's
    assert regions.heatmap is not None and regions.heatmap[44, 88] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("squares", "threshold", "count"),
    [
        ([], 0.4, 0),  # nothing found still has a heat map
        ([(8, 8, 0.3)], 0.4, 0),  # below the threshold
        ([(8, 8, 0.9)], 0.4, 1),  # one
        ([], 0.0, 1),  # zero is reached everywhere
    ],
)
def test_few(squares: list[tuple[int, int, float]], threshold: float, count: int) -> None:
    maps = _heat(*squares)[None]
    regions = FixedMaps(maps).ground(Image.new("RGB", (30, 20)), ["a dog"], threshold)
    assert len(regions) == count
    assert regions.masks is not None and regions.masks.shape == (count, 20, 30)
    assert regions.heatmap is not None and regions.heatmap.shape == (20, 30)


def test_maps_are_those_of_the_whole_model() -> None:
    """Transformers runs every layer of both towers, and the picture once a phrase."""
    torch.manual_seed(0)
    processor = AutoProcessor.from_pretrained(DEMO_ROOT / "clipseg")
    processor.image_processor.size = {"height": 32, "width": 32}
    small = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
    config = CLIPSegConfig(
        vision_config=small | {"num_hidden_layers": 5, "patch_size": 4, "image_size": 32},
        text_config=small | {"num_hidden_layers": 2, "vocab_size": len(processor.tokenizer)},
        projection_dim=16,
        extract_layers=[0, 2],  # of five, so two are not needed
        reduce_dim=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    model = CLIPSegForImageSegmentation(config).eval()
    torch.nn.init.normal_(model.decoder.transposed_convolution.weight)
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    image, phrases = Image.fromarray(noise), ["a dog", "the blue car"]
    inputs = processor(text=phrases, images=[image] * 2, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).logits.sigmoid().numpy()
    found = ClipSeg(model, processor, "cpu")._maps(image, phrases)
    assert len(model.clip.vision_model.encoder.layers) == 3
    assert expected.std() > 0.1, "the maps are flat"
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert len(ClipSeg(model, processor, "cpu")._maps(image, ["a very long phrase " * 50])) == 1


def test_a_score_as_high_as_the_threshold_has_a_box() -> None:
    maps = _heat((8, 16, 0.5))[None]
    regions = FixedMaps(maps).ground(Image.new("RGB", (64, 64)), ["a dog"], 0.5)
    assert regions.boxes.tolist() == [[8, 16, 16, 24]]
