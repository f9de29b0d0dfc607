import re

import numpy as np
import pytest
from PIL import Image

from vit.heatmap import FRAME, enlarge, inset, overlay

GREY = Image.new("RGB", (32, 32), (90, 90, 90))


def one_hot(row: int, column: int) -> np.ndarray:
    heat = np.zeros((8, 8), np.float32)
    heat[row, column] = 1
    return heat


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 6), (7, 2)])
def test_the_hot_patch_is_bright_and_yellow(row: int, column: int) -> None:
    picture = np.asarray(overlay(GREY, one_hot(row, column), 160)).astype(int)
    y, x = np.unravel_index(picture.sum(-1).argmax(), (160, 160))
    assert (y // 20, x // 20) == (row, column)
    red, green, blue = picture[20 * row + 10, 20 * column + 10]
    assert min(red, green) > blue + 20


def test_cold_is_darker_than_the_picture_and_hot_still_shows_it() -> None:
    stripes = Image.new("RGB", (32, 32))
    stripes.paste((200, 200, 200), (0, 0, 16, 32))
    picture = np.asarray(overlay(stripes, np.zeros((8, 8), np.float32), 64)).astype(int)
    assert 140 < picture[:, :24].mean() < 160
    assert picture[:, 40:].mean() < 20
    picture = np.asarray(overlay(stripes, np.ones((8, 8), np.float32), 64)).astype(int)
    assert picture[:, :24].mean() - picture[:, 40:].mean() > 50


@pytest.mark.parametrize(
    ("mode", "size", "side"),
    [("RGB", (32, 32), 448), ("RGBA", (900, 900), 100), ("L", (1, 1), 8), ("P", (5, 5), 1)],
)
def test_any_mode_and_size(mode: str, size: tuple[int, int], side: int) -> None:
    got = overlay(Image.new(mode, size), one_hot(3, 3), side)
    assert (got.mode, got.size) == ("RGB", (side, side))


@pytest.mark.parametrize(
    ("heat", "message"),
    [
        (np.zeros((2, 3), np.float32), "the map has shape (2, 3); expected (g, g)"),
        (np.zeros((1, 2, 2), np.float32), "the map has shape (1, 2, 2)"),
        (np.zeros((0, 0), np.float32), "the map has shape (0, 0)"),
        (np.full((2, 2), 1.5, np.float32), "the map goes from 1.5 to 1.5"),
        (np.full((2, 2), np.nan, np.float32), "it must stay in [0, 1]"),
    ],
)
def test_bad_arguments(heat: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        overlay(GREY, heat, 8)


def test_enlarge_repeats_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    expected = pixels.repeat(5, axis=0).repeat(5, axis=1)
    assert np.array_equal(np.asarray(enlarge(Image.fromarray(pixels), 20)), expected)


@pytest.mark.parametrize(
    ("size", "box", "shown", "where"),
    [
        ((64, 32), (32, 0, 64, 32), (640, 320), (320, 0, 639, 319)),  # lying, the right half
        ((32, 64), (8, 40, 24, 56), (320, 640), (80, 400, 239, 559)),  # standing, inside
        ((1280, 640), (0, 320, 320, 640), (640, 320), (0, 160, 159, 319)),  # a large one
        ((900, 1), (450, 0, 451, 1), (640, 1), (320, 0, 320, 0)),  # a line
    ],
)
def test_inset_lies_in_its_frame(
    size: tuple[int, int], box: tuple, shown: tuple[int, int], where: tuple
) -> None:
    picture = inset(Image.new("RGB", size, (90, 200, 90)), box, one_hot(2, 5), 640)
    assert picture.size == shown
    pixels = np.asarray(picture).astype(int)
    rows, columns = np.nonzero((pixels == FRAME).all(-1))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == where
    outside = np.ones(pixels.shape[:2], bool)
    outside[where[1] : where[3] + 1, where[0] : where[2] + 1] = False
    assert (np.ptp(pixels[outside], axis=-1) == 0).all(), "around it there is no colour"
    if (side := where[2] - where[0] + 1) > 8:
        inside = pixels[where[1] : where[3] + 1, where[0] : where[2] + 1]
        inside = inside[3:-3, 3:-3, 0]  # red, of which the green picture has little
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        assert ((y + 3) * 8 // side, (x + 3) * 8 // side) == (2, 5)


def test_map_and_picture_are_smooth() -> None:
    heat = np.zeros((8, 8), np.float32)
    heat[3, 3] = 1
    shown = np.asarray(overlay(Image.new("RGB", (8, 8), (90,) * 3), heat, 160)).astype(int)
    assert len(np.unique(shown[70, 60:80].sum(-1))) > 5
    edge = Image.new("RGB", (2, 2))
    edge.paste((255,) * 3, (0, 0, 1, 2))
    shown = np.asarray(overlay(edge, np.zeros((2, 2), np.float32), 160))
    assert len(np.unique(shown[80, :, 0])) > 5
