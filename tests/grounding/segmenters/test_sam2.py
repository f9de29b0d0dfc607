"""The segmenter on the bundled weights, and the official checkpoint's layout at real size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from grounding.core import Clicks, Masks, Regions
from grounding.segmenters.sam2 import BATCH, Sam2, load
from grounding.weights import DEMO_ROOT

BOX = (30.0, 30.0, 90.0, 90.0)


@pytest.fixture(scope="module")
def sam2() -> Sam2:
    return load(DEMO_ROOT / "sam2", "cpu")


def _picture() -> Image.Image:
    pixels = np.full((120, 160, 3), 235, np.uint8)
    pixels[30:90, 30:90] = (200, 30, 30)
    return Image.fromarray(pixels)


def _regions(n: int, masks: np.ndarray | None = None) -> Regions:
    boxes = np.tile(np.array(BOX, np.float32), (n, 1))
    return Regions(boxes, np.ones(n, np.float32), ("a box",) * n, masks)


def _iou(masks: Masks, number: int) -> float:
    truth = np.zeros((120, 160), bool)
    truth[30:90, 30:90] = True
    mask = masks.masks[number]
    return np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth)


@pytest.mark.parametrize("n", [1, 2, BATCH + 1])  # one box, two, more than one batch
def test_boxes(sam2: Sam2, n: int) -> None:
    masks = sam2.segment(_picture(), _regions(n))
    assert masks.masks.shape == (n, 120, 160)
    assert _iou(masks, n - 1) > 0.7
    assert (masks.scores >= 0).all() and (masks.scores <= 1).all()


@pytest.mark.parametrize("n", [1, 3])  # one coarse mask, several
def test_coarse_mask_changes_the_answer(sam2: Sam2, n: int) -> None:
    coarse = np.zeros((n, 120, 160), np.float32)
    coarse[:, 30:90, 30:90] = 0.4
    masks = sam2.segment(_picture(), _regions(n, coarse))
    assert masks.masks.shape == (n, 120, 160) and _iou(masks, n - 1) > 0.7
    elsewhere = np.zeros((n, 120, 160), np.float32)
    elsewhere[:, 30:60, 30:60] = 0.4
    assert not np.array_equal(sam2.segment(_picture(), _regions(n, elsewhere)).masks, masks.masks)


@pytest.mark.parametrize(
    ("drawn", "clicks"),
    [
        (slice(30, 90), ((60, 60, True),)),  # a good mask, and a click inside
        (slice(30, 70), ((60, 80, True),)),  # a part is missing
        (slice(30, 90), ((60, 60, True), (5, 5, False))),  # two clicks
        (slice(0, 0), ((60, 60, True),)),  # no mask yet
    ],
)
def test_clicks_refine_a_mask(sam2: Sam2, drawn: slice, clicks: Clicks) -> None:
    mask = np.zeros((120, 160), bool)
    mask[drawn, 30:90] = True
    refined = sam2.refine(_picture(), mask, clicks)
    assert refined.masks.shape == (1, 120, 160) and 0 <= refined.scores[0] <= 1
    assert _iou(refined, 0) > 0.6


@pytest.mark.parametrize(
    ("drawn", "clicks", "box"),
    [
        (30, ((100, 60, True),), [30, 30, 100, 90]),  # as far as what is to be added
        (30, ((100, 60, False), (5, 5, False)), [30, 30, 90, 90]),  # not to what is taken away
        (120, ((60, 60, True),), None),  # no mask yet
    ],
)
def test_what_the_predictor_is_asked(
    sam2: Sam2, monkeypatch: pytest.MonkeyPatch, drawn: int, clicks: Clicks, box: list[int] | None
) -> None:
    asked: list[Any] = []

    class Predictor:
        def predict(self, *prompt: Any, multimask_output: bool) -> tuple[Any, ...]:
            asked.extend(prompt)
            return np.zeros((1, 120, 160)), np.full(1, 1.5), None

    monkeypatch.setattr(sam2, "_predictor", lambda image: Predictor())
    mask = np.zeros((120, 160), bool)
    mask[drawn:90, 30:90] = True
    assert sam2.refine(_picture(), mask, clicks).scores == [1]
    points, belongs, given, coarse = asked
    assert points.tolist() == [[x, y] for x, y, _ in clicks]
    assert belongs.tolist() == [adds for *_, adds in clicks]
    assert given is None if box is None else given.tolist() == box
    assert (coarse is None) == (box is None)


@pytest.mark.parametrize("coarse", [False, True])
def test_every_region_has_its_own_box_and_mask(
    sam2: Sam2, monkeypatch: pytest.MonkeyPatch, coarse: bool
) -> None:
    boxes, masks = [], []

    class Predictor:
        def predict(self, box: np.ndarray, mask_input: Any, multimask_output: bool) -> Any:
            assert len(box) <= BATCH and not multimask_output
            boxes.extend(box.tolist())
            masks.extend([None] * len(box) if mask_input is None else mask_input)
            return np.zeros((len(box), 1, 120, 160)), np.full((len(box), 1), 1.5), None

    monkeypatch.setattr(sam2, "_predictor", lambda image: Predictor())
    n = BATCH + 3
    given = np.zeros((n, 120, 160), np.float32)
    for i in range(n):
        given[i, 8 * i : 8 * i + 8, 40:] = 0.5
    regions = Regions(
        np.arange(4 * n, dtype=np.float32).reshape(n, 4),
        np.ones(n, np.float32),
        ("a box",) * n,
        given if coarse else None,
    )
    found = sam2.segment(_picture(), regions)
    assert found.masks.shape == (n, 120, 160) and found.scores.tolist() == [1.0] * n
    assert boxes == regions.boxes.tolist()
    middles = [None if mask is None else mask[0].max(1).argmax() / mask.shape[1] for mask in masks]
    assert middles == (
        [pytest.approx(i / 15, abs=0.03) for i in range(n)] if coarse else [None] * n
    )


@pytest.mark.parametrize("peak", [0.1, 0.4, 1.0])
def test_coarse_masks_become_logits_of_ten(sam2: Sam2, peak: float) -> None:
    coarse = np.zeros((1, 120, 160), np.float32)
    coarse[:, 30:90, 40:120] = peak
    logits = sam2._mask_inputs(coarse)
    assert logits.shape == (1, 1, *sam2.model.sam_prompt_encoder.mask_input_size)
    middle = logits.shape[-1] // 2
    assert logits[0, 0, middle, middle] == pytest.approx(10, abs=1e-4)
    assert logits[0, 0, 0, 0] == pytest.approx(-10, abs=1e-4)


def test_a_picture_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sam2, pictures = load(DEMO_ROOT / "sam2", "cpu"), []
    encode = sam2._encode
    monkeypatch.setattr(sam2, "_encode", lambda pixels: pictures.append(pixels) or encode(pixels))
    first = sam2.segment(_picture(), _regions(1))
    again = sam2.segment(_picture(), _regions(1))  # another object with the same pixels
    assert len(pictures) == 1 and np.array_equal(first.masks, again.masks)
    sam2.refine(_picture(), first.masks[0], ((60, 60, True),))
    assert len(pictures) == 1
    sam2.segment(Image.new("RGB", (120, 160)), _regions(1))  # other pixels
    assert len(pictures) == 2


def test_official_layout(tmp_path: Path) -> None:
    import sam2 as package
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = Path(package.__file__).parent / "configs" / "sam2.1" / "sam2.1_hiera_t.yaml"
    model = instantiate(OmegaConf.load(config).model, _recursive_=True)
    torch.save({"model": model.state_dict()}, tmp_path / "sam2.1_hiera_tiny.pt")
    loaded = load(tmp_path, "cpu")
    assert loaded.model.image_size == 1024
    name, weight = next(iter(model.named_parameters()))
    assert torch.equal(dict(loaded.model.named_parameters())[name], weight)
    assert loaded.model.sam_mask_decoder.dynamic_multimask_via_stability


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("sam2.1_hiera_tiny.pt", "sam2.1_hiera_t.yaml"),
        ("sam2.1_hiera_small.pt", "sam2.1_hiera_s.yaml"),
        ("sam2.1_hiera_base_plus.pt", "sam2.1_hiera_b+.yaml"),
        ("sam2.1_hiera_large.pt", "sam2.1_hiera_l.yaml"),
    ],
)
def test_each_size_has_its_configuration(tmp_path: Path, file: str, config: str) -> None:
    from grounding.segmenters.sam2 import _read

    torch.save({"model": {}}, tmp_path / file)
    (tmp_path / "model.safetensors").write_bytes(b"transformers' own layout of the same")
    path, weights = _read(tmp_path)
    assert path.name == config and path.exists() and weights == {}
