from dataclasses import replace

import numpy as np
import pytest

from grounding.core import Regions
from grounding.prompt import Query
from grounding.select import Choice, Proposals, distinct, pack_masks, select, to_result

SIDE = 20
# label, score, box; the mask fills the box.
Thing = tuple[str, float, tuple[int, int, int, int]]
DOG: Thing = ("dog", 0.9, (0, 0, 10, 10))
SAME_DOG: Thing = ("dog", 0.8, (0, 0, 10, 9))
PUPPY: Thing = ("dog", 0.6, (12, 0, 16, 4))
SPOT: Thing = ("dog", 0.3, (17, 17, 19, 19))
CAT: Thing = ("cat", 0.5, (0, 0, 10, 10))
COLLAR: Thing = ("collar", 0.4, (4, 0, 6, 10))
BELT: Thing = ("collar", 0.35, (0, 5, 10, 6))
COAT: Thing = ("collar", 0.4, (0, 0, 10, 10))
TALL: Thing = ("dog", 0.9, (0, 0, 10, 20))
LONG_COAT: Thing = ("collar", 0.4, (0, 0, 10, 19))
HEM: Thing = ("collar", 0.35, (0, 19, 8, 20))
ALL: Thing = ("dog", 0.7, (0, 0, 20, 20))
MOST: Thing = ("dog", 0.7, (0, 0, 20, 19))
ALL_CATS: Thing = ("cat", 0.7, (0, 0, 20, 20))
WIDE: Thing = ("dog", 0.7, (0, 0, 20, 10))
LOW: Thing = ("dog", 0.7, (0, 10, 20, 20))
RIGHT: Thing = ("dog", 0.7, (10, 0, 20, 20))
HALF: Thing = ("dog", 0.5, (0, 0, 10, 10))
EMPTY: Thing = ("dog", 0.7, (5, 5, 5, 5))


def proposals(*things: Thing, heat: bool = False, **thresholds: float) -> Proposals:
    masks = np.zeros((len(things), SIDE, SIDE), bool)
    for mask, (_, _, (x1, y1, x2, y2)) in zip(masks, things, strict=True):
        mask[y1:y2, x1:x2] = True
    regions = Regions(
        np.array([box for *_, box in things], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in things], np.float32),
        tuple(label for label, *_ in things),
        heatmap=np.zeros((SIDE, SIDE), np.float32) if heat else None,
    )
    query = Query(["dog", "cat"], ["collar"], thresholds)
    sure = np.ones(len(things), np.float32)
    return Proposals(query, regions, pack_masks(masks), sure, (SIDE, SIDE), 0.05, {}, {})


@pytest.mark.parametrize(
    ("things", "choice", "numbers", "note"),
    [
        ((), Choice(0.3), [], ""),  # nothing proposed
        ((DOG, PUPPY), Choice(0.3), [0, 1], ""),  # both above
        ((DOG, PUPPY), Choice(0.7), [0], ""),  # one below
        ((DOG, PUPPY), Choice(0.95), [], ""),  # both below
        ((DOG, SAME_DOG), Choice(0.3), [0], ""),  # the same thing twice
        ((DOG, CAT), Choice(0.3), [0, 1], ""),  # two names for one thing both stay
        ((DOG, EMPTY), Choice(0.3), [0], ""),  # a mask without a pixel
        ((ALL, PUPPY), Choice(0.3), [1], "1 box around the whole picture"),  # by surprise
        ((ALL, PUPPY), Choice(0.3, whole=True), [0, 1], ""),  # or on purpose
        ((MOST, PUPPY), Choice(0.3), [0, 1], ""),  # 95 % of the picture
        ((DOG, PUPPY), Choice(0.3, min_area=5), [0], "1 area under 5 %"),  # 4 % of the picture
        ((DOG, PUPPY), Choice(0.3, best_only=True), [0], ""),  # the best dog
        ((DOG, PUPPY, CAT), Choice(0.3, best_only=True), [0, 2], ""),  # and the best cat
        ((DOG, PUPPY, CAT), Choice(0.3, 2), [0, 1], "the best 2 of 3"),  # at most two
        ((DOG, PUPPY, COLLAR), Choice(0.3, 2), [0, 1, 2], ""),  # negatives are not counted
        ((DOG, COLLAR), Choice(0.3, min_area=6), [0, 1], ""),  # nor measured
        ((COLLAR, PUPPY, BELT, SPOT), Choice(0.3), [1, 3, 0, 2], ""),  # but come last
        ((PUPPY, COLLAR, BELT), Choice(0.3, best_only=True), [0, 1, 2], ""),  # nor only the best
        ((DOG, COAT), Choice(0.3), [1], "1 area covered by what is taken away"),  # all of it
        ((TALL, LONG_COAT, HEM), Choice(0.3), [1, 2], "1 area covered"),  # 1 % of it is left
        ((DOG, PUPPY, COAT), Choice(0.3, 1), [1, 2], "1 area covered"),  # it takes no place
        ((DOG, COAT), Choice(0.3, off=frozenset({1})), [0, 1], ""),  # a coat switched off
        ((DOG, COLLAR), Choice(0.3, min_area=21), [1], "1 area under 21 %"),  # 20 % are left
        ((DOG, COLLAR), Choice(0.3, min_area=20), [0, 1], ""),  # just as much as is asked for
        ((HALF,), Choice(0.5), [0], ""),  # and a score just as high
        ((WIDE,), Choice(0.3), [0], ""),  # as wide as the picture, but half as high
        ((LOW,), Choice(0.3), [0], ""),  # or at its lower edge
        ((RIGHT,), Choice(0.3), [0], ""),  # or as high, and at its right edge
    ],
)
def test_select(things: tuple[Thing, ...], choice: Choice, numbers: list[int], note: str) -> None:
    selection = select(proposals(*things), choice)
    assert selection.numbers == numbers
    assert (note in " ".join(selection.notes)) if note else not selection.notes


@pytest.mark.parametrize(
    ("own", "numbers"),
    [
        ({}, [0, 1, 2]),  # one threshold for all
        ({"dog": 0.7}, [0, 2]),  # stricter
        ({"cat": 0.55, "dog": 0.1}, [0, 1]),  # one each
    ],
)
def test_a_phrase_may_have_its_own_threshold(own: dict[str, float], numbers: list[int]) -> None:
    assert select(proposals(DOG, PUPPY, CAT, **own), Choice(0.3)).numbers == numbers


def test_a_box_a_little_short_of_the_whole_picture_counts_as_it() -> None:
    found = proposals(ALL)
    boxes = np.array([[0.2, 0.2, 19.9, 19.9]], np.float32)  # 97 %
    almost = replace(found, regions=replace(found.regions, boxes=boxes))
    assert select(almost, Choice(0.3)).numbers == []


def test_what_was_taken_away_comes_back_with_the_negative_switched_off() -> None:
    found = proposals(DOG, COLLAR)
    for off, pixels in (((), 80), ((1,), 100)):
        selection = select(found, Choice(0.3, off=frozenset(off)))
        assert selection.masks.masks[0].sum() == pixels


def test_a_map_is_not_judged_by_the_box_around_it() -> None:
    assert select(proposals(ALL, heat=True), Choice(0.3)).numbers == [0]


def test_what_a_person_drew_around_the_whole_picture_is_meant() -> None:
    drawn = replace(proposals(ALL, ALL_CATS), by_hand=frozenset({1}))
    assert select(drawn, Choice(0.3)).numbers == [1]


def test_the_best_of_a_phrase_may_be_the_last() -> None:
    """As what is drawn by hand is."""
    selection = select(proposals(CAT, PUPPY, DOG), Choice(0.3, best_only=True))
    assert selection.numbers == [2, 0]


@pytest.mark.parametrize(
    ("things", "off", "pixels"),
    [
        ((DOG, COLLAR), (), [80]),  # 20 of its 100 pixels are taken away
        ((DOG, COLLAR), (1,), [100]),  # the negative is switched off
        ((DOG,), (), [100]),  # the negative was not found
        ((COLLAR,), (), []),  # nothing else was found
        ((DOG, CAT, COLLAR), (0,), [80]),  # a detection is switched off
    ],
)
def test_negatives_and_switches(
    things: tuple[Thing, ...], off: tuple[int, ...], pixels: list[int]
) -> None:
    selection = select(proposals(*things), Choice(0.3, off=frozenset(off)))
    assert len(selection.numbers) == len(things), "every detection keeps its row"
    result = to_result(selection, {})
    assert result.masks.masks.sum((1, 2)).tolist() == pixels
    assert "collar" not in result.regions.labels and result.phrases == ["dog", "cat"]


def test_numbers_are_those_of_the_rows() -> None:
    found = proposals(DOG, COLLAR, PUPPY, CAT)
    for off, numbers in (((), [1, 2, 3]), ((2,), [1, 3]), ((0, 1), [2, 3])):
        selection = select(found, Choice(0.3, off=frozenset(off)))
        assert to_result(selection, {}).numbers == numbers


def test_masks_come_out_of_their_bits_as_they_went_in() -> None:
    masks = np.random.default_rng(0).random((3, SIDE, SIDE)) > 0.5
    packed = replace(proposals(DOG, PUPPY, CAT), bits=pack_masks(masks))
    assert np.array_equal(packed.masks([2, 0]).masks, masks[[2, 0]])


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])  # below, above, no number
def test_refused_thresholds(threshold: float) -> None:
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        Choice(threshold)


def _square(start: int) -> np.ndarray:
    mask = np.zeros((20, 20), bool)
    mask[:, start : start + 10] = True
    return mask


@pytest.mark.parametrize(
    ("labels", "starts", "kept"),
    [
        ((), (), []),  # none
        (("a", "a"), (0, 0), [0]),  # the same thing twice
        (("a", "b"), (0, 0), [0, 1]),  # two names for one thing both stay
        (("a", "a"), (0, 5), [0, 1]),  # two things that overlap
        (("a", "a", "a"), (0, 2, 1), [0, 1]),  # IoU 0.67 with the first; 0.82 with both
        (("a", "a", "a"), (0, 1, 2), [0, 2]),  # what is dropped hides nothing
    ],
)
def test_distinct(labels: tuple[str, ...], starts: tuple[int, ...], kept: list[int]) -> None:
    masks = np.array([_square(s) for s in starts], bool).reshape(-1, 20, 20)
    assert distinct(labels, pack_masks(masks)) == kept
