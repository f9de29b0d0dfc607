import numpy as np
import pytest

from grounding.core import Clicks, Regions
from grounding.edits import (
    Edit,
    add,
    apply_edits,
    clicks_on,
    drop,
    obey,
    redraw,
    row_near,
    row_under,
)
from grounding.prompt import parse_prompt
from grounding.select import Choice, Proposals, choose, pack_masks, twins


def _square(x: int, y: int, side: int, size: int = 100) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y : y + side, x : x + side] = True
    return mask


@pytest.fixture
def proposals() -> Proposals:
    masks = np.stack([_square(10, 10, 30), _square(15, 15, 5), _square(80, 80, 10)])
    boxes = np.array([[10, 10, 40, 40], [15, 15, 20, 20], [80, 80, 90, 90]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    regions = Regions(boxes, scores, ("a dog", "a dog", "a cat"))
    query = parse_prompt("a dog, a cat")
    return Proposals(query, regions, pack_masks(masks), scores, (100, 100), 0.05, {}, {})


def test_no_edit_is_no_change(proposals: Proposals) -> None:
    assert apply_edits(proposals, ()) is proposals


def test_edits_change_add_and_drop_and_leave_the_original_alone(proposals: Proposals) -> None:
    before = proposals.bits.copy()
    edits: tuple[Edit, ...] = ()
    edits = (*edits, redraw(proposals, 2, _square(0, 0, 3), 0.5, ((1, 1, True),)))
    box = np.array([50, 0, 60, 10], np.float32)
    edits = (*edits, add(proposals, "a cat", box, _square(50, 0, 10), 0.6))
    edits = (*edits, drop(apply_edits(proposals, edits), 0))
    after = apply_edits(proposals, edits)
    assert after.regions.labels == ("a dog", "a dog", "a cat", "a cat")
    assert after.masks([0, 1, 2, 3]).masks.sum((1, 2)).tolist() == [0, 25, 9, 100]
    assert after.regions.boxes[2].tolist() == [0, 0, 3, 3]
    assert after.regions.scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 1.0])
    assert after.mask_scores.tolist() == pytest.approx([0, 0.8, 0.5, 0.6])
    assert np.array_equal(proposals.bits, before)


def test_clicks_are_those_on_the_same_proposal_since_it_was_drawn(proposals: Proposals) -> None:
    first, second = (1, 1, True), (2, 2, False)
    one = redraw(proposals, 1, _square(0, 0, 3), 0.5, (first,))
    other = redraw(proposals, 2, _square(0, 0, 3), 0.5, (second,))
    assert clicks_on((), 1) == ()
    assert clicks_on((one, other), 1) == (first,)
    more = redraw(proposals, 1, _square(0, 0, 3), 0.5, (first, second))
    assert clicks_on((one, more, other), 1) == (first, second), "the latest say all"


@pytest.mark.parametrize(
    ("point", "under", "near"),
    [
        ((12, 12), 0, 0),  # one mask
        ((17, 17), 1, 0),  # two: the smaller one goes; the first of equal distance grows
        ((85, 89), 2, 2),  # another
        ((99, 99), None, 2),  # none under it, the last is nearest
        ((41, 10), None, 0),  # a pixel beside the first
        ((85, 20), None, 0),  # nearest by its columns
        ((20, 85), None, 0),  # and by its rows
        ((39.6, 39.6), 0, 0),  # parts of a pixel: of its last one
        ((99.6, 99.6), None, 2),
    ],
)
def test_which_mask_a_click_means(
    proposals: Proposals, point: tuple[float, float], under: int | None, near: int
) -> None:
    masks = proposals.masks([0, 1, 2]).masks
    assert row_near(masks, *point) == near
    if under is not None:
        assert row_under(masks, *point) == under
        return
    with pytest.raises(ValueError, match="no area under the click"):
        row_under(masks, *point)


def test_nearest_of_large_and_thin_masks() -> None:
    masks = np.zeros((2, 2000, 2000), bool)
    masks[0, 100:200, 100:200] = True
    masks[1, 1001, :] = True  # a line between the pixels that are looked at
    assert row_near(masks, 1000, 900) == 1
    assert row_near(masks, 150, 300) == 0
    with pytest.raises(ValueError, match="draw a box instead"):
        row_near(masks[:0], 1, 1)


@pytest.mark.parametrize(("x", "row"), [(499, 0), (500, 1)])  # either side of the border
def test_a_click_inside_a_mask_of_a_large_picture_means_that_one(x: int, row: int) -> None:
    masks = np.zeros((2, 1024, 1024), bool)
    masks[0, :, :500] = masks[1, :, 500:] = True
    assert row_near(masks, x, 400) == row


@pytest.mark.parametrize("size", [(512, 512), (960, 1280), (2048, 3), (1, 1)])
@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_nearest_of_single_pixels_in_corners(
    size: tuple[int, int], corner: tuple[int, int]
) -> None:
    masks = np.zeros((1, *size), bool)
    masks[0][corner] = True
    assert row_near(masks, size[1] // 2, size[0] // 2) == 0


def test_what_is_found_twice_stays_out_when_the_better_one_is_corrected() -> None:
    twice, apart = _square(10, 10, 30), _square(60, 60, 30)
    masks = np.stack([twice, twice, apart, twice])
    masks[1, :, 39] = False
    regions = Regions(
        np.zeros((4, 4), np.float32),
        np.array([0.9, 0.6, 0.5, 0.4], np.float32),
        ("a dog", "a dog", "a dog", "a cat"),
    )
    query = parse_prompt("a dog, a cat")
    found = Proposals(query, regions, pack_masks(masks), regions.scores, (100, 100), 0.05, {}, {})
    assert twins(found, 0) == [1] and twins(found, 1) == twins(found, 2) == []

    def shown(*edits: Edit) -> list[int]:
        return choose(apply_edits(found, edits), Choice(0.3))[1]

    assert shown() == [0, 2, 3]
    assert shown(drop(found, 0)) == [2, 3]
    by_hand = redraw(found, 1, _square(0, 0, 9), 0.5, ())  # shown while a third one hid the first
    assert shown(by_hand, drop(found, 0)) == [1, 2, 3], "what was drawn by hand stays"
    assert shown(redraw(found, 0, _square(10, 10, 9), 0.5, ())) == [0, 2, 3]


@pytest.mark.parametrize(
    ("clicks", "inside"),
    [
        (((50.7, 50.2, True),), True),  # followed already
        (((50, 50, False),), False),  # must be taken away
        (((99, 99, True),), True),  # must be added, at the very edge
        (((50, 50, False), (52, 50, True), (50, 50, False)), False),  # the last word counts
    ],
)
def test_a_click_is_obeyed(clicks: Clicks, inside: bool) -> None:
    mask = _square(40, 40, 20)
    obeyed = obey(mask, clicks)
    x, y, _ = clicks[-1]
    assert obeyed[int(y), int(x)] == inside
    changed = (obeyed ^ mask).sum()
    assert changed == 0 or 5 < changed <= 60, "a spot that can be seen, and no more"
    assert mask.sum() == 400, "the mask itself stays"


def test_the_spot_of_a_click_grows_with_the_picture() -> None:
    assert obey(np.zeros((1000, 1000), bool), ((500, 500, True),)).sum() > 1000


def test_clicks_that_were_followed_paint_nothing() -> None:
    mask = _square(40, 40, 20)
    assert np.array_equal(obey(mask, ((59, 50, True), (39, 50, False))), mask)
