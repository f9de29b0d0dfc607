"""The values that pass between the stages, and the two roles. No model library is needed here."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from PIL import Image

# x and y in pixels of the picture, and whether the point belongs to the mask.
Clicks = tuple[tuple[float, float, bool], ...]


def _check(name: str, array: np.ndarray, shape: tuple[int | None, ...], kind: str) -> None:
    fits = len(array.shape) == len(shape) and all(
        want in (None, have) for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype.kind != kind:
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; "
            f"expected shape {shape} and dtype kind {kind!r}"
        )


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the xyxy box, in pixels, of a bool mask (H, W); all 0 if the mask is empty.

    >>> mask_box(np.array([[False, True], [False, True]]))
    (1, 0, 2, 2)
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def mask_boxes(masks: Iterable[np.ndarray]) -> np.ndarray:
    """Return the xyxy boxes, in pixels, of N bool masks (H, W): float32 (N, 4)."""
    return np.array([mask_box(mask) for mask in masks], np.float32).reshape(-1, 4)


@dataclass(frozen=True)
class Regions:
    """Hold what a grounder proposes, best first.

    Attributes:
        boxes: float (N, 4), xyxy in pixels of the picture, inside it.
        scores: float (N,) in [0, 1].
        labels: N phrases: the one each region was found by.
        masks: Coarse masks float (N, H, W) in [0, 1] at the picture's size, or None.
        heatmap: Largest coarse score over all phrases, float (H, W) in [0, 1], or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]
    masks: np.ndarray | None = None
    heatmap: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.labels)
        _check("boxes", self.boxes, (n, 4), "f")
        _check("scores", self.scores, (n,), "f")
        if self.masks is not None:
            _check("masks", self.masks, (n, None, None), "f")
        if self.heatmap is not None:
            _check("heatmap", self.heatmap, (None, None), "f")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, numbers: list[int]) -> "Regions":
        return replace(
            self,
            boxes=self.boxes[numbers],
            scores=self.scores[numbers],
            labels=tuple(self.labels[number] for number in numbers),
            masks=None if self.masks is None else self.masks[numbers],
        )


@dataclass(frozen=True)
class Masks:
    """Hold what a segmenter makes of N regions.

    Attributes:
        masks: bool (N, H, W) at the picture's size.
        scores: Predicted IoU, float (N,) in [0, 1].
    """

    masks: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        _check("masks", self.masks, (None, None, None), "b")
        _check("scores", self.scores, (len(self.masks),), "f")

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, numbers: list[int]) -> "Masks":
        return Masks(self.masks[numbers], self.scores[numbers])


class Grounder(Protocol):
    """Find regions by text."""

    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        """Return the regions of an RGB picture that match a phrase with at least `threshold`."""
        ...


class Segmenter(Protocol):
    """Refine regions to masks."""

    def segment(self, image: Image.Image, regions: Regions) -> Masks:
        """Return one mask for each of at least one region of an RGB picture."""
        ...

    def refine(self, image: Image.Image, mask: np.ndarray, clicks: Clicks) -> Masks:
        """Return a mask that follows clicks on a bool mask (H, W) of an RGB picture."""
        ...
