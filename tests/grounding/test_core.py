import numpy as np
import pytest

from grounding.core import Masks, Regions

F = np.float32


@pytest.mark.parametrize("n", [0, 1, 5])  # none, one, many
def test_regions_and_masks_count_and_select(n: int) -> None:
    regions = Regions(
        np.zeros((n, 4), F),
        np.arange(n, dtype=F),
        tuple(map(str, range(n))),
        np.zeros((n, 2, 3), F),
    )
    masks = Masks(np.zeros((n, 2, 3), bool), np.arange(n, dtype=F))
    assert len(regions) == len(masks) == n
    last = [n - 1] if n else []
    assert regions[last].labels == tuple(map(str, last))
    assert regions[last].masks is not None and len(regions[last].masks) == len(last)
    assert masks[last].scores.tolist() == last


@pytest.mark.parametrize(
    ("boxes", "scores", "labels"),
    [
        (np.zeros((1, 4), F), np.zeros(2, F), ("a",)),  # a score too many
        (np.zeros(4, F), np.zeros(1, F), ("a",)),  # one box without its axis
        (np.zeros((1, 4), int), np.zeros(1, F), ("a",)),  # whole numbers
        (np.zeros((1, 4), F), np.zeros(1, F), ()),  # no label
    ],
)
def test_regions_refuse(boxes: np.ndarray, scores: np.ndarray, labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expected shape"):
        Regions(boxes, scores, labels)


@pytest.mark.parametrize(
    "masks",
    [
        np.zeros((1, 2, 2), F),  # logits instead of bool
        np.zeros((2, 2), bool),  # one mask without its axis
    ],
)
def test_masks_refuse(masks: np.ndarray) -> None:
    with pytest.raises(ValueError, match="masks has shape"):
        Masks(masks, np.zeros(1, F))
