import json
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import BertTokenizer

from grounding.core import Regions
from grounding.grounders import GROUNDERS
from grounding.grounders.glip import load
from grounding.grounders.glip.boxes import Detections, detect
from grounding.grounders.glip.caption import encode, join
from grounding.grounders.glip.checkpoint import official_weights
from grounding.grounders.glip.config import GlipConfig
from grounding.grounders.glip.grounder import GlipGrounder
from grounding.grounders.glip.model import Glip
from grounding.grounders.glip.pictures import prepare, scaled_size
from grounding.select import MAX_SHOWN
from grounding.weights import Weights

PHRASES = ["person", "hot dog", "toothbrush"]


@pytest.fixture(autouse=True)
def single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)


@pytest.fixture
def grounder(parity_model: Glip, parity_tokenizer: BertTokenizer) -> GlipGrounder:
    return GlipGrounder(parity_model, parity_tokenizer, "cpu")


@pytest.fixture
def image(parity_folder: Path) -> Image.Image:
    return Image.open(parity_folder / "image_0.png").convert("RGB")


def test_boxes_are_those_of_the_network(grounder: GlipGrounder, image: Image.Image) -> None:
    model = grounder.model
    pixels, (size,) = prepare([image], model.config.short_side, model.config.long_side)
    ids, positive = encode(grounder.tokenizer, *join(PHRASES), 256)
    with torch.inference_mode():
        found = detect(model(pixels, ids), 0, positive, size)
    regions = grounder.ground(image, PHRASES, 0.0)
    count = len(regions)
    assert count == len(found.boxes) > MAX_SHOWN, "the pipeline keeps the best"
    ratio = np.array([image.width / size[0], image.height / size[1]] * 2)
    outer = found.boxes[:count].numpy() + np.array([0, 0, 1, 1])
    np.testing.assert_allclose(regions.boxes, outer * ratio, atol=1e-2)
    np.testing.assert_allclose(regions.scores, found.scores[:count], atol=1e-5)
    assert regions.labels == tuple(PHRASES[label] for label in found.labels[:count])


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ([0, 0, -1, -1], [0, 0, 300, 200]),  # to the last pixel of the network's picture
        ([5, 5, 5, 5], [5, 5, 6, 6]),  # one of its pixels
    ],
)
def test_the_last_pixel_is_part_of_a_box(
    grounder: GlipGrounder, monkeypatch: pytest.MonkeyPatch, inside: list[int], outside: list[int]
) -> None:
    def detect_one(_raw: object, _sample: int, _positive: object, size: tuple[int, int]) -> object:
        sides = torch.tensor([*size, *size], dtype=torch.float32)
        box = torch.tensor([inside], dtype=torch.float32) % sides
        return Detections(box, torch.ones(1), torch.zeros(1, dtype=torch.long))

    monkeypatch.setattr("grounding.grounders.glip.grounder.detect", detect_one)
    image, config = Image.new("RGB", (300, 200)), grounder.model.config
    _, ((width, height),) = prepare([image], config.short_side, config.long_side)
    ratio = np.array([300 / width, 200 / height] * 2) if inside[2] > 0 else 1
    boxes = grounder.ground(image, ["a dog"], 0.1).boxes
    np.testing.assert_allclose(boxes, [np.array(outside) * ratio], rtol=1e-5)


def test_threshold(grounder: GlipGrounder, image: Image.Image) -> None:
    every = grounder.ground(image, PHRASES, 0.0)
    middle = float(every.scores[10])
    assert len(grounder.ground(image, PHRASES, middle + 1e-6)) == 10
    assert len(grounder.ground(image, PHRASES, middle)) == 11
    assert len(grounder.ground(image, PHRASES, 1.0)) == 0


def test_more_phrases_than_a_caption_holds(grounder: GlipGrounder, image: Image.Image) -> None:
    """Each caption is read by itself; together they give what the captions give alone."""
    model = grounder.model
    short = GlipGrounder(model, grounder.tokenizer, "cpu")
    short.model = _with_room(model, 6)  # [CLS] hot dog . person . [SEP] does not fit
    apart = [grounder.ground(image, [phrase], 0.0) for phrase in PHRASES]
    together = short.ground(image, PHRASES, 0.0)
    assert Counter(together.labels) == Counter(label for part in apart for label in part.labels)
    best = max(zip(apart, PHRASES, strict=True), key=lambda pair: pair[0].scores[0])
    assert together.labels[0] == best[1]
    assert together.scores[0] == pytest.approx(best[0].scores[0], abs=1e-5)
    assert together.boxes[0] == pytest.approx(best[0].boxes[0], abs=1e-2)
    for phrase, part in zip(PHRASES, apart, strict=True):
        mine = together.scores[[label == phrase for label in together.labels]]
        assert mine == pytest.approx(part.scores, abs=1e-5)


def test_boxes_of_less_than_a_pixel_are_left_out(
    grounder: GlipGrounder, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = torch.tensor([[3.0, 0, 2.1, 20], [5, 5, 25, 25], [0, 9, 20, 8.1]])
    found = Detections(boxes, torch.ones(3), torch.zeros(3, dtype=torch.int64))
    monkeypatch.setattr(grounder, "_read", lambda *_: found)
    assert len(grounder.ground(image, ["person"], 0.0)) == 1


def _with_room(model: Glip, max_tokens: int) -> Any:
    class Short:
        config = replace(model.config, max_tokens=max_tokens)
        look, read = model.look, model.read

    return Short()


@pytest.mark.parametrize(
    ("phrases", "size"),
    [
        (["person"], (1, 1)),  # a single pixel
        (["person"], (300, 7)),  # very wide
        (["person"], (7, 300)),  # very tall
        (["(only a remark)"], (40, 40)),  # brackets
        (["☃"], (40, 40)),  # an unknown sign
        (["word " * 400], (40, 40)),  # longer than a caption
        (["person"] * 3, (40, 40)),  # the same three times
    ],
)
def test_odd_input(grounder: GlipGrounder, phrases: list[str], size: tuple[int, int]) -> None:
    regions = grounder.ground(Image.new("RGB", size, (90, 60, 30)), phrases, 0.0)
    assert isinstance(regions, Regions)
    assert set(regions.labels) <= set(phrases)
    assert (regions.boxes >= 0).all()
    assert (regions.boxes[:, 2] <= size[0]).all()
    assert (regions.boxes[:, 3] <= size[1]).all()


@pytest.mark.parametrize(
    ("size", "short", "long", "scaled"),
    [
        ((640, 480), 800, 1333, (1066, 800)),
        ((480, 640), 800, 1333, (800, 1066)),
        ((2000, 500), 800, 1333, (1332, 333)),  # the long side decides
        ((800, 900), 800, 1333, (800, 900)),  # nothing to do
        ((2000, 500), 800, None, (3200, 800)),  # no limit
        ((10, 10), 800, 1333, (800, 800)),  # enlarged, too
        ((1, 5000), 800, 1333, (1, 5000)),  # a side is never 0
    ],
)
def test_scaled_size(
    size: tuple[int, int], short: int, long: int | None, scaled: tuple[int, int]
) -> None:
    assert scaled_size(size, short, long) == scaled


def test_load_from_a_folder(
    tmp_path: Path, parity_model: Glip, parity_folder: Path, image: Image.Image
) -> None:
    """A folder with its own sizes and words, as the demo weights are."""
    save_file(official_weights(parity_model), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(asdict(parity_model.config)))
    (tmp_path / "vocab.txt").write_text((parity_folder / "vocab.txt").read_text())
    grounder = load(tmp_path, "cpu")
    twin = GlipGrounder(parity_model, grounder.tokenizer, "cpu")
    ours, theirs = (each.ground(image, PHRASES, 0.0) for each in (grounder, twin))
    assert ours.labels == theirs.labels
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-3)


def test_the_release_has_no_words_of_its_own(tmp_path: Path, parity_model: Glip) -> None:
    save_file(official_weights(parity_model), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(asdict(parity_model.config)))
    assert len(load(tmp_path, "cpu").tokenizer) == 30522, "BERT's"


def test_sizes_without_a_config_are_those_of_the_release() -> None:
    sizes = GlipConfig()
    assert (sizes.fusion_heads, sizes.text_heads, sizes.max_tokens) == (8, 12, 256)
    assert (sizes.short_side, sizes.long_side) == (800, 1333)


def test_load_the_release_as_the_app_does(
    tmp_path: Path,
    parity_model: Glip,
    parity_folder: Path,
    image: Image.Image,
) -> None:
    """A pickle named and laid out as on the hub, only smaller, through the menu's entry."""
    entry = GROUNDERS["GLIP-T"]
    place = tmp_path / entry.repo
    place.mkdir(parents=True)
    shutil.copy(parity_folder / "checkpoint.pth", place / entry.files[-1])
    shutil.copy(parity_folder / "vocab.txt", place)
    (place / "config.json").write_text(json.dumps(asdict(parity_model.config)))
    weights = Weights("full", offline=True, folder=tmp_path)
    source = weights.locate(entry.repo, entry.files, entry.module, lambda *_: None)
    grounder = entry.load(source.folder, "cpu")
    twin = GlipGrounder(parity_model, grounder.tokenizer, "cpu")
    ours, theirs = (each.ground(image, PHRASES, 0.0) for each in (grounder, twin))
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-3)
