import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from grounding.outlines import join_rings, polygons, rle_string

# pycocotools 2.0.11 has not caught up with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

H, W = 90, 120
Y, X = np.mgrid[:H, :W]
BLOBS = cv2.GaussianBlur(np.random.default_rng(0).random((H, W)), (0, 0), 3)


def _disc(x: int, y: int, radius: int) -> np.ndarray:
    return (X - x) ** 2 + (Y - y) ** 2 < radius**2


SHAPES = {
    "disc": _disc(50, 40, 30),
    "ring": _disc(50, 40, 30) & ~_disc(50, 40, 15),  # a hole
    "two rings": (_disc(30, 40, 25) & ~_disc(30, 40, 9)) | (_disc(90, 40, 20) & ~_disc(90, 40, 9)),
    "island": _disc(50, 40, 35) & ~_disc(50, 40, 25) | _disc(50, 40, 10),  # a part in a hole
    "whole": np.ones((H, W), bool),  # the picture
    "pixel": (X == 0) & (Y == H - 1),  # in the corner
    "line": X == Y,  # held together by corners
    "blobs": BLOBS > 0.5,  # many parts, many holes, at the edges too
    "noise": np.random.default_rng(1).random((H, W)) > 0.7,  # the worst that can be
}
EMPTY = np.zeros((H, W), bool)


def fill(ring: np.ndarray, how: str) -> np.ndarray:
    if how == "pycocotools":
        return coco_mask.decode(coco_mask.frPyObjects([ring.ravel().tolist()], H, W))[..., 0] > 0
    filled = np.zeros((H, W), np.uint8)  # as ultralytics.data.utils.polygon2mask
    return cv2.fillPoly(filled, [ring.astype(np.int32)], 1) > 0


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


@pytest.mark.parametrize("mask", [*SHAPES.values(), EMPTY], ids=[*SHAPES, "empty"])
def test_rle_is_that_of_pycocotools(mask: np.ndarray) -> None:
    theirs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    assert rle_string(mask) == theirs["counts"].decode()


def test_rle_of_long_runs() -> None:  # numbers of up to five digits, some of them negative
    mask = np.zeros((1500, 2000), bool)
    mask[:, 700:1900] = mask[3:5, 10:20] = True
    assert (
        rle_string(mask) == coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    )


@pytest.mark.parametrize("mask", SHAPES.values(), ids=SHAPES)
def test_polygons_give_the_mask_back(mask: np.ndarray) -> None:
    parts = polygons(mask)
    assert len(parts) == cv2.connectedComponents(mask.astype(np.uint8))[0] - 1
    filled = [fill(part, "pycocotools") for part in parts]
    assert (np.any(filled, axis=0) == mask).all()


@pytest.mark.parametrize("how", ["pycocotools", "ultralytics"])
@pytest.mark.parametrize("shape", ["disc", "ring", "two rings", "island", "whole", "pixel", "line"])
def test_one_polygon_for_all_parts_gives_the_mask_back(shape: str, how: str) -> None:
    ring = join_rings(polygons(SHAPES[shape]))
    assert iou(fill(ring, how), SHAPES[shape]) > 0.97


def test_bridges_never_change_the_area() -> None:
    for mask in SHAPES.values():
        assert (fill(join_rings(polygons(mask)), "pycocotools") == mask).all()
