import numpy as np
import pytest
from PIL import Image

from vit.strips import GAP, heat_tiles, sheet, text_width

COLOURS = [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(9, 9, 9), (90, 90, 90), (200, 200, 200)]]
LEFT = text_width("ab") + 2 * GAP
TILES = [[Image.new("RGB", (60, 40), colour) for colour in row] for row in COLOURS]


@pytest.mark.parametrize(
    ("options", "corner", "step"),
    [
        ({}, (0, 0), 46),
        ({"columns": "abc"}, (0, 18), 46),
        ({"rows": "ab", "columns": "abc"}, (LEFT, 18), 46),
        ({"captions": ["abc", "def"]}, (0, 0), 64),  # room for a line under every tile
    ],
    ids=str,
)
def test_every_tile_is_in_its_place(options: dict, corner: tuple[int, int], step: int) -> None:
    picture = sheet(TILES, **options)
    for y, row in enumerate(COLOURS):
        for x, colour in enumerate(row):
            place = (corner[0] + 66 * x + 30, corner[1] + step * y + 20)
            assert picture.getpixel(place) == (*colour, 255)


def test_captions_wider_than_tiles_do_not_meet() -> None:
    text = "126 px, 6.6 b"
    alone, beside = (sheet([[TILES[0][0]] * n], captions=[[text] * n]) for n in (1, 3))
    assert alone.width >= text_width([text]) > 60
    words = np.asarray(alone)[40:]
    for column in range(3):
        left = column * (alone.width + GAP)
        assert (np.asarray(beside)[40:, left : left + alone.width] == words).all()


def test_names_are_written_on_nothing() -> None:
    picture = np.asarray(sheet(TILES, "ab", "abc"))
    assert text_width(["W", "a long name"]) > 3 * text_width(["W"]) > 0
    for name in (picture[:18, LEFT : LEFT + 60], picture[18:58, :LEFT]):
        assert 0 < (name[..., 3] > 0).sum() < name[..., 3].size / 2


@pytest.mark.parametrize(("grid", "side"), [(8, 72), (7, 70), (100, 100)])
def test_heat_tiles_show_every_patch_alike(grid: int, side: int) -> None:
    maps = np.zeros((2, 3, grid, grid), np.float32)
    maps[1, 2, 0, 1] = 1
    tiles = heat_tiles(maps, 72)
    assert [len(row) for row in tiles] == [3, 3]
    assert tiles[1][2].size == (side, side)
    pixels = np.asarray(tiles[1][2]).astype(int).sum(-1)
    size = side // grid
    assert (pixels > 300).sum() == size**2
    assert (pixels[:size, size : 2 * size] > 300).all()
