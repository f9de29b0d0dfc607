import numpy as np
import pytest
from PIL import Image

from grounding.core import Masks, Regions
from grounding.overlay import (
    COLOURS,
    DISPLAY_SIDE,
    HEADERS,
    NEGATIVE_COLOUR,
    Style,
    annotations,
    draw_regions,
    from_shown,
    heat_overlay,
    paint,
    phrase_colours,
    shown_scale,
    table_rows,
    to_shown,
)


def _regions(*boxes: tuple[float, ...], heatmap: np.ndarray | None = None) -> Regions:
    n = len(boxes)
    return Regions(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(n, 0.5, np.float32),
        ("a dog",) * n,
        heatmap=heatmap,
    )


def test_colours_follow_the_prompt_and_come_round_again() -> None:
    phrases = [f"thing {i}" for i in range(9)]
    colours = phrase_colours(phrases)
    assert [colours[p] for p in phrases] == [*COLOURS, *COLOURS[:2]]


@pytest.mark.parametrize("size", [(60, 40), (4000, 1000), (1, 1)])  # small, large, a single pixel
def test_annotations_fit_the_picture_shown(size: tuple[int, int]) -> None:
    masks = np.ones((1, size[1], size[0]), bool)
    masks[:, :, size[0] // 2 :] = size[0] == 1
    shown, [(mask, label)] = annotations(Image.new("RGB", size), ["a dog"], masks)
    assert max(shown.size) == min(max(size), DISPLAY_SIDE)
    assert mask.shape == (shown.height, shown.width) and label == "a dog"
    assert (mask > 0).mean() == pytest.approx(masks.mean(), abs=0.01)


def test_negatives_are_grey_and_take_no_colour() -> None:
    colours = phrase_colours(["a dog", "a cat"], ["grass", "sky"])
    assert list(colours.values()) == [*COLOURS[:2], NEGATIVE_COLOUR, NEGATIVE_COLOUR]


@pytest.mark.parametrize(
    ("style", "edge", "inside"),
    [
        (Style(0.5, 2), 255, 128),  # both
        (Style(0.5, 0), 128, 128),  # no outline
        (Style(1.0, 2), 255, 255),  # no picture left
    ],
)
def test_opacity_and_outline(style: Style, edge: int, inside: int) -> None:
    masks = np.zeros((1, 20, 20), bool)
    masks[0, 5:15, 5:15] = True
    shown, pairs = annotations(Image.new("RGB", (20, 20)), ["a dog"], masks, style)
    red = np.asarray(paint(shown, pairs, {"a dog": "#FF0000"}))[..., 0]
    assert (red[5, 10], red[6, 10], red[10, 10]) == (edge, edge, inside)
    assert not red[4, 10] and not red[15, 10]


def test_box_is_drawn_where_it_is() -> None:
    regions = _regions((50, 60, 150, 160))
    picture = draw_regions(Image.new("RGB", (200, 200)), regions, [1], {"a dog": "#0072B2"})
    pixels = np.asarray(picture)
    assert tuple(pixels[160, 100]) == (0, 0x72, 0xB2)  # lower edge
    assert not pixels[110, 100].any()  # inside
    assert not pixels[:, 160:].any()  # right of it


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 5, 5),  # no room above for the tag
        (195, 195, 200, 200),  # no room to the right
        (0, 0, 200, 200),  # the whole picture
    ],
)
def test_tag_stays_inside(box: tuple[float, ...]) -> None:
    def letters(box: tuple[float, ...]) -> int:
        grey = Image.new("RGB", (200, 200), "grey")
        picture = draw_regions(grey, _regions(box), [1], {"a dog": "#FFFFFF"})
        return int((np.asarray(picture) < 100).all(-1).sum())

    assert letters(box) == letters((50, 60, 150, 160)) > 50


def test_heat_is_brightest_where_the_map_is() -> None:
    heat = np.zeros((20, 20), np.float32)
    heat[:, 10:] = 1
    pixels = np.asarray(heat_overlay(Image.new("RGB", (20, 20), "white"), heat), int)
    assert abs(pixels[5, 15] - pixels[5, 5]).sum() > 60
    assert pixels[5, 15, 0] > pixels[5, 15, 2] + 20, "yellow, and not blue"


def test_the_best_lies_on_top() -> None:
    regions = Regions(np.float32([[50, 60, 150, 160]] * 2), np.float32([0.9, 0.4]), ("dog", "cat"))
    colours = {"dog": "#0000ff", "cat": "#ff0000"}
    picture = draw_regions(Image.new("RGB", (200, 200)), regions, [1, 2], colours)
    assert picture.getpixel((100, 160)) == (0, 0, 255)


def test_table_has_a_row_each() -> None:
    masks = np.zeros((2, 10, 10), bool)
    masks[0, :5] = True
    rows = table_rows(
        _regions((0, 0, 9.6, 5), (1, 2, 3, 4)),
        Masks(masks, np.array([0.9, 0.1], np.float32)),
        [True, False],
        ["a dog"],
    )
    assert rows == [
        [True, 1, "−a dog", 0.5, 0.9, "0, 0, 10, 5", 50.0],
        [False, 2, "−a dog", 0.5, 0.1, "1, 2, 3, 4", 0.0],
    ]
    assert all(len(row) == len(HEADERS) for row in rows)


def test_tags_have_the_numbers_of_the_table() -> None:
    regions, colours = _regions((9, 50, 90, 90)), {"a dog": "#ffffff"}
    plain = Image.new("RGB", (200, 100))
    assert len({draw_regions(plain, regions, [n], colours).tobytes() for n in (1, 2, 3)}) == 3


def test_tags_say_what_is_not_ascii() -> None:
    """And of what no font has, the number and the score."""

    def tag(label: str) -> bytes:
        regions = Regions(np.float32([[9, 50, 90, 90]]), np.float32([0.5]), (label,))
        return draw_regions(
            Image.new("RGB", (200, 100)), regions, [1], {label: "#ffffff"}
        ).tobytes()

    assert len({tag(label) for label in ("собака", "кошка", "犬", "chêne", "chene")}) == 5
    assert tag("犬") == tag("猫") == tag("🐕")


@pytest.mark.parametrize("side", [1281, 1920, 2048])
def test_masks_lie_where_the_shrunk_picture_shows_them(side: int) -> None:
    rows, columns = np.mgrid[:side, :side] + 0.5
    disc = np.hypot(rows - 0.4 * side, columns - 0.6 * side) < 0.25 * side
    shown, [(opacity, _)] = annotations(
        Image.fromarray(disc), ["disc"], disc[None], Style(opacity=1.0, outline=0)
    )
    white = np.asarray(shown.convert("L")) > 127
    for found, seen in zip(np.nonzero(opacity), np.nonzero(white), strict=True):
        assert found.mean() == pytest.approx(seen.mean(), abs=0.1)
    scale = shown_scale(Image.fromarray(disc))
    assert to_shown(from_shown(7.0, scale), scale) == pytest.approx(7.0)
    assert from_shown(shown.width - 1, scale) < side and from_shown(0, scale) >= 0
