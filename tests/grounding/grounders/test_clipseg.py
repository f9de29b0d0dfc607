import numpy as np
import pytest
from PIL import Image

from grounding.grounders.clipseg import MAX_REGIONS, ClipSeg, split_parts


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


@pytest.mark.parametrize(
    ("heat", "scores"),
    [
        (_heat(), []),  # nothing
        (_heat((0, 0, 0.3)), []),  # below the threshold
        (_heat((0, 0, 0.9)), [0.9]),  # one
        (_heat((0, 0, 0.9), (40, 40, 0.6)), [0.9, 0.6]),  # two apart
        (_heat((0, 0, 0.9), (8, 0, 0.6)), [0.9]),  # two that touch are one
        (np.ones((64, 64), np.float32), [1.0]),  # everything
        (np.pad(np.ones((2, 2), np.float32), 31), []),  # a speck
    ],
)
def test_split_parts(heat: np.ndarray, scores: list[float]) -> None:
    assert [score for score, _ in split_parts(heat, 0.4)] == pytest.approx(scores)


def test_threshold_zero_is_one_part() -> None:
    assert len(split_parts(np.full((64, 64), 0.1, np.float32), 0.0)) == 1


def test_regions_are_sorted_and_lie_where_the_heat_is() -> None:
    maps = np.stack([_heat((8, 16, 0.6)), _heat((40, 40, 0.9))])
    regions = FixedMaps(maps).ground(Image.new("RGB", (128, 64)), ["a dog", "a cat"], 0.4)
    assert regions.labels == ("a cat", "a dog")
    assert regions.boxes[1] == pytest.approx([16, 16, 32, 24], abs=2)
    assert regions.masks is not None and regions.masks.shape == (2, 64, 128)
    assert regions.masks[1, 20, 24] == pytest.approx(0.6) and regions.masks[1, 44, 88] == 0
    assert regions.heatmap is not None and regions.heatmap[44, 88] == pytest.approx(0.9)


@pytest.mark.parametrize("count", [0, 1])  # nothing found still has a heat map
def test_few(count: int) -> None:
    maps = _heat(*[(8, 8, 0.9)] * count)[None]
    regions = FixedMaps(maps).ground(Image.new("RGB", (30, 20)), ["a dog"], 0.4)
    assert len(regions) == count
    assert regions.masks is not None and regions.masks.shape == (count, 20, 30)
    assert regions.heatmap is not None and regions.heatmap.shape == (20, 30)


def test_many_are_capped() -> None:
    squares = [(12 * (i % 5), 10 * (i // 5), 0.9) for i in range(30)]
    maps = np.stack([_heat(*squares), _heat(*squares)])
    regions = FixedMaps(maps).ground(Image.new("RGB", (64, 64)), ["a dog", "a cat"], 0.4)
    assert len(regions) == MAX_REGIONS
