import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from grounding.core import Masks, Regions
from grounding.export import (
    PARTS,
    Export,
    coco,
    cutout,
    export_files,
    label_map,
    make_manifest,
    overlay_picture,
    write_all,
    write_zip,
    yolo,
)
from grounding.overlay import DISPLAY_SIDE, Style
from grounding.select import Result
from grounding.weights import Origin, Source
from tests.grounding.test_outlines import EMPTY, SHAPES, H, W, X, Y, fill, iou

# pycocotools 2.0.11 has not caught up with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _result(
    *masks: np.ndarray, labels: tuple[str, ...] = (), scores: tuple[float, ...] = ()
) -> Result:
    n = len(masks)
    scores = np.array(scores or [0.9] * n, np.float32)
    regions = Regions(np.tile(np.float32([5, 5, 60, 60]), (n, 1)), scores, labels or ("a dog",) * n)
    stack = np.array(masks, bool).reshape(n, H, W)
    numbers = [*range(1, n + 1)]
    return Result(
        ["a cat", "a dog"], regions, Masks(stack, scores), numbers, {"grounder": 0.123456}
    )


def _picture() -> Image.Image:
    return Image.fromarray(np.dstack([X, Y, X + 1]).astype(np.uint8))


def test_yolo() -> None:
    lines = yolo(
        _result(SHAPES["ring"], EMPTY, SHAPES["whole"], labels=("a dog",) * 2 + ("a cat",))
    )
    classes, rings = [], []
    for line in lines.splitlines():
        number, *shares = line.split()
        classes.append(int(number))
        rings.append(np.array(shares, float).reshape(-1, 2) * (W, H))
    assert classes == [1, 0]  # in the order of the prompt; nothing for an empty mask
    assert iou(fill(rings[0], "pycocotools"), SHAPES["ring"]) > 0.97
    assert np.ptp(rings[1], axis=0) == pytest.approx((W, H), abs=1)


def test_label_map_prefers_the_better_score() -> None:
    left, right, middle = X < 60, X >= 60, (X >= 30) & (X < 90)
    labels = label_map(_result(left, right, middle, scores=(0.9, 0.2, 0.5)))
    assert labels.dtype == np.uint16
    assert labels[0, [0, 45, 75, 100]].tolist() == [1, 1, 3, 2]
    assert (label_map(_result(left, left)) == left).all()  # as good as each other: the upper row


def test_label_map_counts_beyond_a_byte() -> None:
    masks = np.eye(300, H * W, dtype=bool).reshape(300, H, W)  # a pixel each
    assert label_map(_result(*masks)).max() == 300


def test_cutout() -> None:
    mask = SHAPES["ring"]
    piece = np.asarray(cutout(_picture(), mask))
    assert piece.shape == (59, 59, 4)
    assert (piece[..., 3] == 255 * mask[11:70, 21:80]).all()
    assert piece[0, 29].tolist() == [50, 11, 51, 255]
    assert not piece[29, 29].any()  # nothing of the picture is left in the hole


@pytest.mark.parametrize("size", [(W, H), (4000, 1000), (1, 1)])  # small, huge, a single pixel
def test_overlay_shows_the_masks(size: tuple[int, int]) -> None:
    masks = np.ones((1, size[1], size[0]), bool)
    regions = Regions(np.float32([[0, 0, *size]]), np.float32([0.5]), ("a dog",))
    result = Result(["a dog"], regions, Masks(masks, np.float32([0.5])), [1])
    seen = overlay_picture(Export(Image.new("RGB", size), result, {}))
    assert max(seen.size) == min(max(size), DISPLAY_SIDE)
    assert np.asarray(seen).reshape(-1, 3).any(axis=1).mean() > 0.9


def test_overlay_is_painted_as_the_page_is() -> None:
    result = _result(SHAPES["disc"])
    faint, strong = (
        np.asarray(overlay_picture(Export(_picture(), result, {}, Style(opacity, outline=0))))
        for opacity in (0.1, 1.0)
    )
    changed = np.ptp([faint, strong], axis=0).any(axis=2)
    # Not under the box's edge and its words.
    assert changed[30:55, 30:55].all() and not changed[~SHAPES["disc"]].any()


@pytest.mark.parametrize("turned", [False, True])
def test_boxes_lie_around_the_masks_of_thin_pictures(turned: bool) -> None:
    """Three pixels of 2048 are one of 1280, and not 3 / 2048 as many."""
    masks, box = np.zeros((1, 2048, 3), bool), [0, 200, 3, 1900]
    masks[:, 200:1900] = True
    plain = Image.new("RGB", (3, 2048))
    if turned:
        masks, box, plain = masks.mT, [200, 0, 1900, 3], Image.new("RGB", (2048, 3))
    regions = Regions(np.float32([box]), np.float32([0.5]), ("a dog",))
    result = Result(["a dog"], regions, Masks(masks, np.float32([0.5])), [1])
    seen = np.asarray(overlay_picture(Export(plain, result, {}))).any(2)
    painted = np.flatnonzero(seen.any(0 if turned else 1))
    assert abs(painted[-1] - 1900 * max(seen.shape) / 2048) <= 2


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def _asked() -> dict[str, Any]:
    settings = {"grounder": "GLIP-T", "segmenter": "SAM", "threshold": 0.3}
    return {"prompt": "a cat, a dog", "settings": settings}


def _origin() -> Origin:
    return Origin(
        Source("a/b", Path("hub/models--a--b/snapshots/0123abc")),
        Source("bundled demo weights", Path("assets/demo/sam2")),
    )


def _files(result: Result) -> Iterator[tuple[str, bytes]]:
    return export_files(Export(_picture(), result, make_manifest(result, _asked(), _origin())))


def test_manifest() -> None:
    manifest = make_manifest(_result(SHAPES["whole"]), _asked(), _origin())
    assert {key: manifest[key] for key in _asked()} == _asked()
    assert manifest["models"]["grounder"] == {
        "name": "GLIP-T",
        "weights": "a/b",
        "revision": "0123abc",
    }
    assert manifest["models"]["segmenter"]["revision"] is None
    assert set(manifest["versions"]) == {"app", "torch", "transformers", "sam2"}
    assert manifest["versions"]["app"][0].isdigit()
    assert manifest["picture"] == {"width": W, "height": H}
    [row] = manifest["rows"]
    assert row["phrase"] == "a dog" and row["grounder_score"] == 0.9
    assert row["box"] == [5, 5, 60, 60] and row["area"] == W * H
    assert manifest["seconds"] == {"grounder": 0.1235}
    assert manifest["phrases"] == ["a cat", "a dog"] and manifest["device"] == _origin().device


def test_both_scores_are_where_they_belong() -> None:
    result = _result(SHAPES["disc"], scores=(0.9,))
    result = replace(result, masks=Masks(result.masks.masks, np.float32([0.25])))
    [row] = make_manifest(result, _asked(), _origin())["rows"]
    assert (row["grounder_score"], row["mask_score"]) == (0.9, 0.25)
    assert coco(result)["annotations"][0]["score"] == 0.9


def test_the_overlay_of_a_map_is_without_its_heat() -> None:
    result = _result(SHAPES["disc"])
    hot = replace(result, regions=replace(result.regions, heatmap=np.ones((H, W), np.float32)))
    with_map, without = (overlay_picture(Export(_picture(), one, {})) for one in (hot, result))
    assert with_map.tobytes() == without.tobytes()


def test_the_overlay_has_the_numbers_of_the_rows() -> None:
    result = _result(SHAPES["disc"])
    first, second = (Export(_picture(), replace(result, numbers=[n]), {}) for n in (1, 2))
    assert overlay_picture(first).tobytes() != overlay_picture(second).tobytes()


COUNTS = {
    "nothing": (),
    "one": (SHAPES["ring"],),
    "many": (SHAPES["ring"], EMPTY, SHAPES["blobs"]),  # one without a pixel
}


@pytest.mark.parametrize("masks", COUNTS.values(), ids=COUNTS)
def test_every_file_can_be_read_again(masks: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    write_all(tmp_path, _files(_result(*masks)))
    data = COCO(tmp_path / "coco.json")
    assert [row["name"] for row in data.loadCats([1, 2])] == ["a cat", "a dog"]
    assert data.getAnnIds() == [*range(1, len(masks) + 1)]
    for number, mask in enumerate(masks, start=1):
        row = data.anns[number]
        assert (data.annToMask(row) == mask).all()
        assert row["area"] == mask.sum() and row["category_id"] == 2
        assert row["iscrowd"] == 0  # or evaluations would judge it by other rules
        rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        assert row["bbox"] == coco_mask.toBbox(rle).tolist()
        written = _read(tmp_path / "masks" / f"{number:02d}-a-dog.png")
        assert (written == 255 * mask).all()
        assert (tmp_path / "cutouts" / f"{number:02d}-a-dog.png").exists() == mask.any()
    labels = _read(tmp_path / "labels.png")
    assert labels.shape == (H, W) and (labels > 0).sum() == np.sum(np.any([EMPTY, *masks], axis=0))
    assert len((tmp_path / "yolo.txt").read_text().splitlines()) == sum(m.any() for m in masks)
    assert len(json.loads((tmp_path / "manifest.json").read_bytes())["rows"]) == len(masks)
    assert (_read(tmp_path / "picture.png") == np.asarray(_picture())).all()
    assert _read(tmp_path / "overlay.png").shape == (H, W, 3)


def test_coco_polygons_fill_the_mask() -> None:
    [row] = coco(_result(SHAPES["two rings"]))["annotations"]
    rles = coco_mask.frPyObjects(row["polygons"], H, W)
    assert (coco_mask.decode(coco_mask.merge(rles)) == SHAPES["two rings"]).all()


@pytest.mark.parametrize("parts", [(), ("coco",), ("manifest", "yolo"), tuple(PARTS)])
def test_parts_alone(parts: tuple[str, ...]) -> None:
    files = [
        name for name, _ in export_files(Export(_picture(), _result(SHAPES["disc"]), {}), parts)
    ]
    assert len(files) == len(parts)
    assert "manifest" not in parts or files[-1] == "manifest.json"


def test_unknown_part_names_the_menu() -> None:
    with pytest.raises(ValueError, match="no part gif; choose from picture, overlay"):
        export_files(Export(_picture(), _result(), {}), ["gif"])


def test_zip_holds_the_same_files(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", _files(_result(SHAPES["disc"])))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert {n: archive.read(n) for n in archive.namelist()} == dict(
            _files(_result(SHAPES["disc"]))
        )


def test_zip_is_whole_or_not_there(tmp_path: Path) -> None:
    def cut_off() -> Iterator[tuple[str, bytes]]:
        yield "a.txt", b"new"
        raise KeyboardInterrupt

    (tmp_path / "a.zip").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_zip(tmp_path / "a.zip", cut_off())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_name_that_is_no_utf8_survives_json(tmp_path: Path) -> None:
    write_all(
        tmp_path, export_files(Export(_picture(), _result(), {"path": "a\udcff字"}), ["manifest"])
    )
    text = (tmp_path / "manifest.json").read_text(encoding="utf-8")
    assert "字" in text and json.loads(text) == {"path": "a\udcff字"}
