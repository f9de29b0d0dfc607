import numpy as np
import pytest

from vit import confusion
from vit.confusion import HEIGHT, LAST, MANY, SIDE, draw_confusion, short
from vit.heatmap import colour
from vit.strips import GAP, LINE, text_width


def cell(picture: np.ndarray, row: int, column: int, classes: tuple[str, ...]) -> np.ndarray:
    """Return the pixels of a cell that no letter reaches: its lowest rows."""
    width = text_width([*classes, "right"]) + 2
    left = text_width(classes) + 2 * GAP + column * (width + GAP)
    top = LINE + row * (HEIGHT + GAP)
    return picture[top + HEIGHT - 3 : top + HEIGHT, left : left + width]


def test_a_cell_is_bright_as_its_share_of_the_row() -> None:
    classes = ("cat", "a much longer name", "never seen")
    picture = np.asarray(draw_confusion([[1, 3, 0], [50, 100, 50], [0, 0, 0]], classes)).astype(int)
    found = np.array([[cell(picture, y, x, classes)[..., :3].mean() for x in range(4)]
                      for y in range(3)])  # fmt: skip
    shares = np.array([[0.25, 0.75, 0, 0.25], [0.25, 0.5, 0.25, 0.5], [0, 0, 0, 0]])
    assert all(np.ptp(found[shares == share]) == 0 for share in (0, 0.25, 0.5))
    assert np.all(np.diff([found[shares == s].mean() for s in (0, 0.25, 0.5, 0.75)]) > 10)
    assert (picture[LINE:, text_width(classes) + 2 * GAP :, 3].max(0) > 0).any()


def test_thirty_long_names_leave_the_numbers_legible() -> None:
    names = [f"a long name that ends in {i}" for i in range(MANY)]
    assert draw_confusion(np.eye(MANY, dtype=int).tolist(), names).width < 2000


def test_names_without_room_have_numbers_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "sheet", lambda *parts: parts)
    _, rows, heads = draw_confusion(
        np.eye(9, dtype=int).tolist(), [f"a long name {i}" * 2 for i in range(9)]
    )
    assert heads == [*"123456789", LAST]
    assert rows[1] == "2 a long name 1a long nam…"


def test_large_numbers_stay_in_their_cells() -> None:
    small, large = (draw_confusion([[n, n], [n, n]], ("a", "b")).width for n in (1, 10**9))
    assert large > small + 3 * text_width(["1,000"])


def test_many_classes_are_one_small_picture() -> None:
    for count in (MANY + 1, 1000):
        counts = np.eye(count, dtype=int)
        counts[0] = [2] * 2 + [0] * (count - 2)
        picture = draw_confusion(counts.tolist(), [f"class {i}" for i in range(count)])
        scale = picture.width // count
        assert picture.size == (count * scale,) * 2 and SIDE / 2 < picture.width <= max(SIDE, count)
        cells = np.asarray(picture)[scale // 2 :: scale, scale // 2 :: scale]
        shares = np.array([[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]], np.float32)
        assert np.array_equal(cells[:3, :3], colour(shares))


def test_cells_say_counts_and_the_last_one_the_share_that_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(confusion, "_cell", lambda text, share, width: (text, share))
    monkeypatch.setattr(confusion, "sheet", lambda *parts: parts)
    cells, rows, columns = draw_confusion([[1000, 3000], [0, 5]], ("c" * 99, "dog"))
    assert cells == [
        [("1,000", 0.25), ("3,000", 0.75), ("25%", 0.25)],
        [("0", 0.0), ("5", 1.0), ("100%", 1.0)],
    ]
    assert rows == [short("c" * 99), "dog"] and columns == [*rows, LAST]


@pytest.mark.parametrize(("share", "ink"), [(0.0, 255), (1.0, 0)])
def test_numbers_can_be_read_on_any_cell(share: float, ink: int) -> None:
    pixels = np.asarray(confusion._cell("88888", share, 60)).astype(int)
    assert (abs(pixels - ink).max(axis=2) < 10).any()
