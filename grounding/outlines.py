"""From a mask to its outline: run lengths and polygons."""

import cv2
import numpy as np

from grounding.core import mask_box


def rle_string(mask: np.ndarray) -> str:
    """Encode a bool mask (H, W) as COCO's compressed run lengths.

    The pixels are read column by column; the runs begin with one of zeros, which may be empty.
    From the fourth on, a run is written as its difference to the one two before. Each number
    becomes digits of 5 bits, lowest first: bit 6 says that another digit follows, bit 5 of the
    last one is the sign. 48 is added to make a printable character (`rleToString` in
    https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c).

    >>> rle_string(np.array([[False, True], [False, True]]))
    '22'
    """
    starts = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False))
    runs = np.diff(starts, prepend=0, append=mask.size)
    rest = runs.copy()
    rest[3:] -= runs[1:-2]
    digits = []
    alive = np.ones(len(rest), bool)
    while alive.any():
        low = rest & 31
        rest >>= 5
        more = alive & np.where(low & 16, rest != -1, rest != 0)
        digits.append(np.where(alive, low + 32 * more + 48, 0))
        alive = more
    characters = np.stack(digits, axis=1).ravel()
    return characters[characters > 0].astype(np.uint8).tobytes().decode("ascii")


def polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Return a polygon for each connected part of a bool mask (H, W).

    Polygons run a quarter of a pixel inside the edge, so that rounding a coordinate down still
    hits the mask; filled where centres of pixels lie inside (even-odd), they give the mask back
    exactly. A hole is bridged: see `join_rings`. Pixels that touch at a corner are one part.

    Returns:
        Float arrays (K, 2) of x and y in pixels, 0 being the picture's left or upper edge.
    """
    if not mask.any():
        return []
    x1, y1, x2, y2 = mask_box(mask)
    # OpenCV's contours run through the centres of pixels: too far inside, unless pixels are finer.
    fine = mask[y1:y2, x1:x2].astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, tree = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [(contour[:, 0] + 0.5) / 2 + (x1, y1) for contour in contours]
    parents = tree[0, :, 3].tolist()
    parts = {i: [ring] for i, ring in enumerate(rings) if parents[i] < 0}
    for ring, parent in zip(rings, parents, strict=True):
        if parent >= 0:
            parts[parent].append(ring)
    return [join_rings(part) for part in parts.values()]


def join_rings(rings: list[np.ndarray]) -> np.ndarray:
    """Join closed rings (K, 2) into one that encloses the same area under the even-odd rule.

    It goes from ring to ring and back along straight bridges without width, between vertices that
    are near each other. Formats with one ring an instance hold holes and several parts this way,
    as https://github.com/ultralytics/JSON2YOLO does.

    >>> rings = np.array([[[0, 0], [4, 0], [4, 4]], [[9, 3], [6, 0], [9, 0]]])
    >>> join_rings([*rings]).tolist()
    [[0, 0], [4, 0], [6, 0], [9, 0], [9, 3], [6, 0], [4, 0], [4, 4]]
    """
    there, back = [], []
    ring = rings[0]
    for following in rings[1:]:
        leave = _nearest(ring, following.mean(axis=0))
        there.append(ring[: leave + 1])
        back.append(np.concatenate([ring[leave:], ring[:1]]))
        ring = np.roll(following, -_nearest(following, ring[leave]), axis=0)
    return np.concatenate([*there, ring, ring[:1], *reversed(back)])[:-1]


def _nearest(points: np.ndarray, target: np.ndarray) -> int:
    return int(((points - target) ** 2).sum(axis=1).argmin())
