import re

import pytest

from vit.crop import Crop, crop_around


@pytest.mark.parametrize(
    ("crop", "size", "box"),
    [
        (Crop(), (640, 480), (80, 0, 560, 480)),  # lying
        (Crop(), (480, 640), (0, 80, 480, 560)),  # standing
        (Crop(), (5, 8), (0, 1, 5, 6)),  # one row more below than above
        (Crop(), (300, 1), (149, 0, 150, 1)),  # a line
        (Crop(0, 1), (640, 480), (0, 0, 480, 480)),  # there is no room above it
        (Crop(1, 0), (640, 480), (160, 0, 640, 480)),
        (Crop(1, 1, 0.5), (640, 480), (400, 240, 640, 480)),
        (Crop(0, 0, 0.01), (10, 10), (0, 0, 1, 1)),  # a pixel at least
    ],
)
def test_box(crop: Crop, size: tuple[int, int], box: tuple[int, ...]) -> None:
    assert crop.box(size) == box


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((-0.1,), "across is -0.1; it must be from 0 to 1"),
        ((0, 1.5), "down is 1.5; it must be from 0 to 1"),
        ((0, float("nan")), "down is nan; it must be from 0 to 1"),
        ((0, 0, 0), "size is 0; it must be above 0 and at most 1"),
    ],
)
def test_what_is_no_share(values: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Crop(*values)


@pytest.mark.parametrize(
    ("point", "size", "box"),
    [
        ((50, 20), (100, 40), (30, 0, 70, 40)),  # the middle
        ((35, 5), (100, 40), (15, 0, 55, 40)),  # no room above and below
        ((3, 3), (100, 40), (0, 0, 40, 40)),  # as near as the edge allows
        ((99, 39), (100, 40), (60, 0, 100, 40)),
        ((7, 7), (40, 40), (0, 0, 40, 40)),  # no room at all
    ],
)
def test_around_a_point(point: tuple[int, int], size: tuple[int, int], box: tuple) -> None:
    assert crop_around(point, Crop(0.1, 0.9), size).box(size) == box


def test_around_a_point_the_size_stays() -> None:
    assert crop_around((30, 20), Crop(size=0.5), (100, 40)).box((100, 40)) == (20, 10, 40, 30)


def test_every_pixel_can_be_the_first() -> None:
    assert [Crop(pixel / 43).box((53, 10))[0] for pixel in range(44)] == [*range(44)]


def test_sides_are_rounded() -> None:
    assert (Crop(size=0.57).side((100, 100)), Crop(size=0.29).side((100, 200))) == (57, 29)
