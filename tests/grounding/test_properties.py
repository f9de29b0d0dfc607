"""What must hold for any prompt, mask, name and file, not only for the ones somebody thought of."""

import io
import unicodedata

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools import mask as coco_mask

from common.images import MAX_SIDE, decode_image
from grounding.core import Masks, Regions, mask_box
from grounding.export import cutout, label_map
from grounding.filenames import MAX_NAME, RESERVED, safe_name
from grounding.outlines import join_rings, polygons, rle_string
from grounding.overlay import shrink
from grounding.pipeline import cut
from grounding.prompt import MAX_PHRASE_CHARACTERS, MAX_PHRASES, Query, parse_prompt
from grounding.select import Choice, Proposals, Result, pack_masks, select

# pycocotools 2.0.11 has not caught up with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
settings.register_profile("app", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("app")

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)
MASKS = arrays(bool, SHAPES)
# Text in which the characters that mean something are frequent.
PROMPTS = st.text(
    st.one_of(st.sampled_from(" ,.;:-\n\0"), st.characters(), st.sampled_from("ab01"))
)


@given(PROMPTS)
def test_a_prompt_is_a_query_or_a_sentence(prompt: str) -> None:
    try:
        query = parse_prompt(prompt)
    except ValueError as error:
        assert str(error).endswith(".")
        return
    found = [*query.phrases, *query.negatives]
    assert query.phrases and len(found) <= MAX_PHRASES
    assert len(set(found)) == len(found), "once each, on one side"
    for phrase in found:
        assert phrase == " ".join(phrase.split()) and len(phrase) <= MAX_PHRASE_CHARACTERS
        assert any(map(str.isalnum, phrase)) and "\0" not in phrase
    assert set(query.thresholds) <= set(found)
    assert all(0 <= value <= 1 for value in query.thresholds.values())


@given(st.lists(st.text("abz ", min_size=1).filter(str.strip), min_size=1, max_size=MAX_PHRASES))
def test_phrases_come_back_in_order(phrases: list[str]) -> None:
    wanted = list(dict.fromkeys(" ".join(phrase.split()) for phrase in phrases))
    if all(len(phrase) <= MAX_PHRASE_CHARACTERS for phrase in wanted):
        assert parse_prompt(", ".join(phrases)).phrases == wanted


@given(MASKS)
def test_a_box_holds_its_mask_and_no_more(mask: np.ndarray) -> None:
    x1, y1, x2, y2 = mask_box(mask)
    assert mask[y1:y2, x1:x2].sum() == mask.sum()
    if mask.any():
        inside = mask[y1:y2, x1:x2]
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
        assert cutout(Image.new("RGB", mask.shape[::-1]), mask).size == (x2 - x1, y2 - y1)
    else:
        assert (x1, y1, x2, y2) == (0, 0, 0, 0)


@given(MASKS)
def test_run_lengths_give_the_mask_back(mask: np.ndarray) -> None:
    rle = {"size": list(mask.shape), "counts": rle_string(mask)}
    assert np.array_equal(coco_mask.decode(rle), mask)


def _filled(ring: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    rles = coco_mask.frPyObjects([ring.ravel().tolist()], *shape)
    return coco_mask.decode(rles)[..., 0] > 0


@given(MASKS.filter(np.any))
def test_polygons_give_the_mask_back(mask: np.ndarray) -> None:
    parts = polygons(mask)
    assert len(parts) == cv2.connectedComponents(mask.astype(np.uint8))[0] - 1
    assert np.array_equal(np.any([_filled(part, mask.shape) for part in parts], axis=0), mask)
    assert np.array_equal(_filled(join_rings(parts), mask.shape), mask)
    points = np.concatenate(parts)
    assert (points >= 0).all() and (points <= mask.shape[::-1]).all()


def proposals_of(masks: np.ndarray, scores: np.ndarray) -> Proposals:
    """Propose masks for one phrase, best first."""
    boxes = np.array([mask_box(mask) for mask in masks], np.float32)
    regions = Regions(boxes, scores.astype(np.float32), ("a",) * len(masks))
    bits, sure = pack_masks(masks), np.ones(len(masks), np.float32)
    return Proposals(Query(["a"]), regions, bits, sure, masks.shape[1:], 0.05, {}, {})


@given(arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9)), st.data())
def test_packed_masks_come_back(masks: np.ndarray, data: st.DataObject) -> None:
    proposals = proposals_of(masks, np.linspace(1, 0.5, len(masks)))
    numbers = data.draw(st.lists(st.integers(0, len(masks) - 1)))
    assert np.array_equal(proposals.masks(numbers).masks, masks[numbers])
    assert pack_masks(masks).shape == (len(masks), -(-masks[0].size // 8))


@given(
    arrays(bool, st.tuples(st.integers(1, 6), st.just(5), st.just(7))),
    st.floats(0, 1),
    st.integers(1, 8),
    st.floats(0, 100),
    st.booleans(),
)
def test_a_choice_keeps_to_what_was_asked(
    masks: np.ndarray, threshold: float, count: int, min_area: float, best_only: bool
) -> None:
    proposals = proposals_of(masks, np.linspace(1, 0, len(masks)))
    choice = Choice(threshold, count, min_area, best_only, whole=True)
    selection = select(proposals, choice)
    numbers = selection.numbers
    assert numbers == sorted(set(numbers)), "best first, once each"
    assert len(numbers) <= (1 if best_only else count)
    for number in numbers:
        assert proposals.regions.scores[number] >= threshold
        assert masks[number].mean() * 100 >= min_area - 1e-9
    assert np.array_equal(selection.masks.masks, masks[numbers])


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.just(9), st.just(8)),
        elements=st.floats(0, 1, width=32),
    ),
    st.floats(0, 1),
)
def test_parts_of_a_map_lie_in_their_boxes(maps: np.ndarray, threshold: float) -> None:
    labels = tuple(map(str, range(len(maps))))
    coarse = Regions(np.zeros((len(maps), 4), np.float32), maps.max((1, 2)), labels, maps)
    parts, _ = cut(coarse, dict.fromkeys(labels, threshold))
    assert (np.diff(parts.scores) <= 0).all(), "best first"
    for i in range(len(parts)):
        x1, y1, x2, y2 = parts.boxes[i].astype(int)
        assert 0 <= x1 < x2 <= 8 and 0 <= y1 < y2 <= 9
        assert parts.masks[i][y1:y2, x1:x2].sum() == pytest.approx(parts.masks[i].sum())
        assert (parts.masks[i][parts.masks[i] > 0] >= threshold).all()


@given(arrays(bool, st.tuples(st.integers(0, 4), st.just(5), st.just(6))))
def test_the_label_map_covers_the_masks(masks: np.ndarray) -> None:
    scores = np.linspace(1, 0.5, len(masks)).astype(np.float32)
    regions = Regions(np.zeros((len(masks), 4), np.float32), scores, ("a",) * len(masks))
    labels = label_map(Result(["a"], regions, Masks(masks, scores), [*range(1, len(masks) + 1)]))
    assert np.array_equal(labels > 0, masks.any(0))
    for y, x in np.argwhere(labels):
        assert masks[labels[y, x] - 1, y, x]


@given(st.text())
def test_a_safe_name_is_one_on_every_system(text: str) -> None:
    name = safe_name(text)
    assert 1 <= len(name) <= MAX_NAME + 1 and len(name.encode()) < 255
    assert not RESERVED.fullmatch(name) and name[0] not in ".- " and name[-1] not in ". "
    assert not set(name) & set('/\\:*?"<>|\0') and name.isprintable()
    assert all(unicodedata.category(c)[0] in "LMN" or c in "-_" for c in name)


@given(st.integers(1, 5000), st.integers(1, 5000))
@settings(max_examples=20)
def test_what_is_shown_keeps_its_shape(width: int, height: int) -> None:
    shown = shrink(Image.new("L", (width, height)))
    assert shown.width <= max(width, 1) and shown.height <= max(height, 1)
    assert abs(shown.width * height - shown.height * width) <= max(width, height)


STARTS = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\0\1\0\0WEBP", b"GIF89a", b"II*\0"]
STARTS += [b"MM\0*", b"BM", b"\0\0\0\x1cftypavif", b"<svg", b"%PDF"]


@pytest.mark.filterwarnings("ignore")  # what Pillow says about them
@given(st.sampled_from(STARTS), st.binary(max_size=300))
def test_any_bytes_are_a_picture_or_a_sentence(start: bytes, rest: bytes) -> None:
    check_door(start + rest)


def seed(file_format: str) -> bytes:
    pixels = np.arange(16 * 12 * 3, dtype=np.uint8).reshape(12, 16, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


SEEDS = [seed(name) for name in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")]
EDITS = st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=8)), max_size=6)


@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from(SEEDS), EDITS, st.integers(0, 2000))
def test_damaged_bytes_are_a_picture_or_a_sentence(
    data: bytes, edits: list[tuple[int, bytes]], length: int
) -> None:
    check_door(edited(data, edits)[: max(length, 20)])


def edited(data: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    """Overwrite some bytes, at places counted round and round."""
    changed = bytearray(data)
    for place, new in edits:
        changed[place % len(data) : place % len(data) + len(new)] = new
    return bytes(changed)


def check_door(data: bytes) -> None:
    try:
        image = decode_image(data)
    except ValueError as error:
        assert str(error).startswith("This ") and str(error).endswith(".")
        return
    assert type(image) is Image.Image and image.mode == "RGB" and image.info == {}
    assert min(image.size) >= 1 and max(image.size) <= MAX_SIDE
