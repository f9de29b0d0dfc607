from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.images import MAX_SIDE
from grounding.core import Regions
from grounding.edits import apply_edits, drop, redraw
from grounding.prompt import parse_prompt
from grounding.select import Choice, Proposals, pack_masks, select
from grounding.status import describe
from grounding.weights import BUNDLED, Origin, Source


def _proposals(labels: tuple[str, ...], prompt: str, best: float, floor: float) -> Proposals:
    n = len(labels)
    regions = Regions(np.ones((n, 4), np.float32), np.ones(n, np.float32), labels)
    masks = np.zeros((n, 6, 6), bool)
    for i, mask in enumerate(masks):
        mask[i % 6] = True
    query = parse_prompt(prompt)
    scores = dict.fromkeys(labels, 1.0) | {p: best for p in query.phrases if p not in labels}
    sure = np.ones(n, np.float32)
    seconds = {"grounder": 0.5}
    return Proposals(query, regions, pack_masks(masks), sure, (6, 6), floor, scores, seconds)


def _origin(demo: bool) -> Origin:
    name, why = (BUNDLED, "it was asked for them") if demo else ("a/b", "")
    source = Source(name, Path(), why)
    return Origin(source, source, "cuda")


def _text(
    labels: tuple[str, ...], prompt: str, best: float = 0.0, off: tuple[int, ...] = (), **how: float
) -> str:
    proposals = _proposals(labels, prompt, best, how.get("floor", 0.05))
    selection = select(proposals, Choice(0.3, off=frozenset(off)))
    return describe(proposals, selection, _origin(demo=False), Choice(0.3))


@pytest.mark.parametrize(
    ("labels", "prompt", "words"),
    [
        (("a dog",), "a dog", ["Found 1 region."]),  # one
        (("a dog", "a dog"), "a dog", ["Found 2 regions."]),  # many
        (
            (),
            "a dog",
            ["Nothing found for “a dog”**: no part of the picture scores 0.05 or more; try"],
        ),  # none
        ((), "a dog, a cat", ["Nothing found for “a dog”, “a cat”**: no part"]),  # none of two
        (("a dog",), "a dog, a cat", ["Found 1", "Nothing found for “a cat”"]),  # one of two
        (("a dog",), "a dog -collar", ["Nothing found for “collar”"]),  # the negative
        (("a dog",), "a dog, dog", ["or more, or another phrase fits better there"]),  # rivals
        ((), "<b>", ["&#60;b&#62;"]),  # markup stays text
    ],
)
def test_describe(labels: tuple[str, ...], prompt: str, words: list[str]) -> None:
    text = _text(labels, prompt)
    assert all(word in text for word in words)
    assert "Weights in use: a/b." in text and "<b>" not in text
    assert "Time on cuda: grounder 0.50 s" in text


@pytest.mark.parametrize(
    ("best", "words"),
    [
        (0.219, "Its best score is 0.21; a threshold of 0.21 and another Run would"),  # just below
        (0.219, "with a score of at least 0.30"),  # the page's threshold
        (0.6, "was found but left out"),  # above, and cleaned away
    ],
)
def test_what_was_not_found_says_how_far_it_was(best: float, words: str) -> None:
    assert words in _text((), "a dog", best)


def test_a_threshold_of_its_own_is_said() -> None:
    assert "with a score of at least 0.40" in _text((), "a dog: 0.4", 0.219)


@pytest.mark.parametrize(
    ("labels", "prompt", "hint"),
    [
        ((), "un perro", True),  # not found, and not English
        ((), "собака", True),
        (("un perro",), "un perro", False),  # found all the same
        ((), "a dog", False),  # English
    ],
)
def test_hint_for_other_languages(labels: tuple[str, ...], prompt: str, hint: bool) -> None:
    assert ("English words best" in _text(labels, prompt)) == hint


def test_a_phrase_without_a_box_is_said_once() -> None:
    text = _text((), "a dog: 0")
    assert "no part of the picture scores 0.00 or more" in text
    assert "left out" not in text


@pytest.mark.parametrize(
    ("prompt", "dropped", "words"),
    [
        ("a", (), None),
        # As the page's threshold says, by which one is kept.
        ("a", ((0.5, "a"), (0.3, "a"), (0.29, "a")), "Only 1 of 3 regions are kept;"),
        ("a: 0.4", ((0.5, "a"), (0.3, "a")), "1 of 2 regions"),  # a threshold of its own
        ("a", ((0.1, "a"),), None),
    ],
)
def test_what_had_no_place(
    prompt: str, dropped: tuple[tuple[float, str], ...], words: str | None
) -> None:
    proposals = replace(_proposals(("a",), prompt, 0.0, 0.05), dropped=dropped)
    text = describe(proposals, select(proposals, Choice(0.3)), _origin(demo=False), Choice(0.3))
    assert ("regions are kept" in text) == ("Press Run to keep more" in text) == bool(words)
    assert (words or "") in text


def test_another_run_keeps_no_more_than_all_places() -> None:
    proposals = replace(_proposals(("a",) * 30, "a", 0.0, 0.05), dropped=((0.5, "a"),))
    notes = select(proposals, Choice(0.3)).notes
    assert notes[0] == "Only 30 of 31 regions are kept; phrases share the places."


def test_what_was_dropped_by_hand_is_said_to_be_so() -> None:
    proposals = _proposals(("a dog", "a cat"), "a dog, a cat", 0.0, 0.05)
    proposals = apply_edits(proposals, [drop(proposals, 1)])
    text = describe(proposals, select(proposals, Choice(0.3)), _origin(demo=False), Choice(0.3))
    assert "Found 1 region" in text and "“a cat” was dropped by hand." in text


def test_other_limits_are_said() -> None:
    assert "Found 2 regions.** 1 switched off." in _text(("a", "a"), "a", off=(1,))
    assert "cut its map at 0.40; press Run" in _text(("a",), "a", floor=0.4)


@pytest.mark.parametrize("size", [(MAX_SIDE, 6), (6, MAX_SIDE), (6, MAX_SIDE - 1)])
def test_a_picture_that_was_shrunk_is_said_to_be_so(size: tuple[int, int]) -> None:
    proposals = replace(_proposals((), "a", 0.0, 0.05), size=size)
    text = describe(proposals, select(proposals, Choice(0.3)), _origin(demo=False), Choice(0.3))
    said = f"used at {size[1]} × {size[0]} pixels, the most that is used" in text
    assert said == (max(size) == MAX_SIDE)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a dog", False),  # it lies below the cut, and the sentence about that says all
        ("a dog: 0.2", True),  # cut at its own threshold, it was found
    ],
)
def test_what_another_run_would_find(prompt: str, found: bool) -> None:
    text = _text((), prompt, best=0.35, floor=0.4)
    assert ("“a dog” was found but left out" in text) == found
    assert "press Run to cut it lower" in text


@pytest.mark.parametrize(
    ("prompt", "floor", "heat", "said"),
    [
        ("a dog", 0.2, True, True),  # the slider has been moved up since the run
        ("a dog", 0.3, True, False),  # it has not
        ("a dog", 0.2, False, False),  # there is no map
        ("a dog: 0.2", 0.2, True, False),  # the slider is not about it
    ],
)
def test_where_the_areas_of_a_map_are_cut(
    prompt: str, floor: float, heat: bool, said: bool
) -> None:
    found = _proposals(("a dog",), prompt, 0.0, floor)
    if heat:
        regions = replace(found.regions, heatmap=np.ones((6, 6), np.float32))
        found = replace(found, regions=regions)
    text = describe(found, select(found, Choice(0.3)), _origin(demo=False), Choice(0.3))
    assert ("The areas are cut at 0.2; press Run to cut them at 0.3." in text) == said


def _large(label: str, score: float, box: list[int], prompt: str) -> Proposals:
    """One detection, of most of a picture of 20 x 20."""
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 1:19, 1:19] = True
    regions = Regions(np.array([box], np.float32), np.array([score], np.float32), (label,))
    bits, sure = pack_masks(mask), np.ones(1, np.float32)
    best = {label: score}
    return Proposals(parse_prompt(prompt), regions, bits, sure, (20, 20), 0.05, best, {})


WHOLE, PART = [0, 0, 20, 20], [1, 1, 15, 19]


@pytest.mark.parametrize(
    ("prompt", "box", "choice", "words"),
    [
        ("a dog", PART, Choice(0.3), "Its best score is 0.22; a threshold of 0.22 would show it."),
        ("a dog: 0.4", PART, Choice(0.1), "a threshold of 0.22 would show it."),  # of its own
        ("a dog", WHOLE, Choice(0.3), "it would be left out at a lower threshold, too."),
        ("a dog", WHOLE, Choice(0.3, whole=True), "a threshold of 0.22 would show it."),
        ("a dog: 0.4", WHOLE, Choice(0.1), "it would be left out at a lower threshold, too."),
        (
            "a dog",
            PART,
            Choice(0.3, min_area=99),
            "it would be left out at a lower threshold, too.",
        ),
    ],
)
def test_a_threshold_is_named_only_where_it_helps(
    prompt: str, box: list[int], choice: Choice, words: str
) -> None:
    proposals = _large("a dog", 0.2234, box, prompt)
    assert words in describe(proposals, select(proposals, choice), _origin(demo=False), choice)


def test_another_run_is_asked_for_where_no_region_is_there() -> None:
    """It was cut out of no map, or had no place beside others."""
    proposals, choice = _proposals((), "a dog", 0.29, 0.3), Choice(0.3)
    text = describe(proposals, select(proposals, choice), _origin(demo=False), choice)
    assert "a threshold of 0.29 and another Run would show it" in text


def test_demo_weights_are_said_and_what_to_do() -> None:
    proposals = _proposals(("a dog",), "a dog", 0.0, 0.05)
    text = describe(proposals, select(proposals, Choice(0.3)), _origin(demo=True), Choice(0.3))
    assert "<b>bundled demo weights</b>, which know only the drawn objects" in text
    assert "Why: it was asked for them." in text
    assert "--weights demo" in text


def test_what_was_changed_by_hand_and_is_too_small_was_not_dropped() -> None:
    proposals, choice = _proposals(("a dog",), "a dog", 0.0, 0.05), Choice(0.3, min_area=5)
    spot = np.eye(6, dtype=bool) & (np.arange(6) < 1)
    proposals = apply_edits(proposals, [redraw(proposals, 0, spot, 0.9, ())])
    text = describe(proposals, select(proposals, choice), _origin(demo=False), choice)
    assert "“a dog” was found but left out." in text and "by hand" not in text
