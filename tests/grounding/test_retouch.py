import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grounding.core import Clicks, Masks, Regions
from grounding.edits import Corrections
from grounding.prompt import parse_prompt
from grounding.retouch import ADD, BOX, DROP, TAKE, Outline, click, undo
from grounding.select import Choice, Proposals, pack_masks, select
from grounding.session import Session
from grounding.settings import Settings
from grounding.weights import Origin, Source

Asked = Regions | tuple[np.ndarray, Clicks]


@pytest.fixture
def session() -> Session:
    """A dog at the left, a cat at the right of a picture of 100 x 80."""
    masks = np.zeros((2, 80, 100), bool)
    masks[0, 10:40, 10:40] = masks[1, 10:40, 60:90] = True
    boxes = np.array([[10, 10, 40, 40], [60, 10, 90, 40]], np.float32)
    scores = np.array([0.9, 0.5], np.float32)
    regions = Regions(boxes, scores, ("a dog", "a cat"))
    found = Proposals(
        parse_prompt("a dog, a cat"), regions, pack_masks(masks), scores, (80, 100), 0.05, {}, {}
    )
    source = Source("a/b", Path())
    return Session(Image.new("RGB", (100, 80)), found, Origin(source, source), {})


class Recorder:
    """A segmenter that fills boxes, and leaves masks as they are."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    def __call__(self, session: Session, what: Asked) -> Masks:
        self.asked.append(what)
        if not isinstance(what, Regions):
            return Masks(what[0][None], np.full(1, 0.5, np.float32))
        mask = np.zeros((1, 80, 100), bool)
        x1, y1, x2, y2 = what.boxes[0].astype(int)
        mask[0, y1:y2, x1:x2] = True
        return Masks(mask, np.full(1, 0.8, np.float32))


def clicked(
    session: Session, *clicks: tuple[str, str, tuple[float, float]], outline: Outline | None = None
) -> Session:
    """Return a copy of an answer with clicks of a tool for a phrase at a point."""
    was = session.corrections
    session = replace(session, corrections=Corrections(was.edits, was.corner, was.off))
    for tool, phrase, point in clicks:
        click(session, Settings(), 0.1, tool, phrase, point, outline or Recorder())
    return session


def areas(session: Session, threshold: float = 0.1) -> dict[str, int]:
    selection = select(session.current, Choice(threshold))
    sums = selection.masks.masks.sum((1, 2)).tolist()
    return dict(zip(selection.regions.labels, sums, strict=True))


def test_a_correction_waits_for_one_that_is_being_written(session: Session) -> None:
    """Else both would begin with the same ones, and the later would lose the earlier."""
    asked = (session, Settings(), 0.1, DROP, "", (20, 20), Recorder())
    thread = threading.Thread(target=click, args=asked)
    with session.corrections.lock:
        thread.start()
        thread.join(0.2)
        assert not session.corrections.edits
    thread.join(10)
    assert len(session.corrections.edits) == 1


@pytest.mark.parametrize(
    ("tool", "point", "grows", "shrinks"),
    [
        (ADD, (45, 20), "a dog", None),  # beside the dog
        (ADD, (55.5, 20.5), "a cat", None),  # beside the cat
        (TAKE, (70, 20), None, "a cat"),  # inside the cat
    ],
)
def test_a_click_changes_one_area(
    session: Session, tool: str, point: tuple[float, float], grows: str, shrinks: str
) -> None:
    after = areas(clicked(session, (tool, "", point)))
    for label, area in areas(session).items():
        assert (after[label] > area) == (label == grows)
        assert (after[label] < area) == (label == shrinks)


def test_later_clicks_bring_the_earlier_ones_along(session: Session) -> None:
    recorder = Recorder()
    places = (ADD, (45, 20)), (ADD, (55, 20)), (TAKE, (15, 15)), (TAKE, (30, 30))
    clicks = [(tool, "", place) for tool, place in places]
    clicked(session, *clicks, outline=recorder)
    assert [asked[1] for asked in recorder.asked] == [
        ((45, 20, True),),
        ((55, 20, True),),
        ((45, 20, True), (15, 15, False)),
        ((45, 20, True), (15, 15, False), (30, 30, False)),
    ]


def test_every_click_is_obeyed_though_the_segmenter_hears_none(session: Session) -> None:
    class Deaf(Recorder):
        def __call__(self, session: Session, what: Asked) -> Masks:
            return Masks(session.proposals.masks([0]).masks, np.full(1, 0.5, np.float32))

    after = clicked(session, (ADD, "", (45, 20)), (TAKE, "", (15, 15)), outline=Deaf())
    mask = after.current.masks([0]).masks[0]
    assert mask[20, 45] and not mask[15, 15]
    assert after.current.mask_scores[0] == 0.5


def test_a_click_means_what_is_shown_there_though_another_row_is_off(session: Session) -> None:
    session.corrections.off = frozenset({0})
    click(session, Settings(), 0.1, DROP, "", (70, 20), Recorder())
    assert [edit.number for edit in session.corrections.edits] == [1]


@pytest.mark.parametrize(
    ("settings", "threshold"),
    [
        (Settings(), 0.6),  # by the threshold
        (Settings(Choice(0, count=1)), 0.1),  # by what “More settings” says
    ],
)
def test_what_is_not_shown_cannot_be_dropped(
    session: Session, settings: Settings, threshold: float
) -> None:
    with pytest.raises(ValueError, match="no area under"):
        click(session, settings, threshold, DROP, "", (70, 20), Recorder())


def test_nothing_is_added_where_it_would_be_taken_away(session: Session) -> None:
    query, recorder = parse_prompt("a dog -a cat"), Recorder()
    session = replace(session, proposals=replace(session.proposals, query=query))
    with pytest.raises(ValueError, match="This place is taken away by “-a cat”; untick"):
        click(session, Settings(), 0.1, ADD, "", (70.5, 20.5), recorder)
    assert not recorder.asked and not session.corrections.edits
    assert areas(clicked(session, (ADD, "", (50, 20))))["a dog"] > 900  # beside it
    session.corrections.off = frozenset({1})
    assert len(clicked(session, (ADD, "", (70, 20))).corrections.edits) == 1


def test_drop_and_undo(session: Session) -> None:
    dropped = clicked(session, (DROP, "", (20, 20)))
    assert set(areas(dropped)) == {"a cat"}
    undo(dropped)
    assert areas(dropped) == areas(session)


def test_undo_takes_back_one_correction(session: Session) -> None:
    both = clicked(session, (DROP, "", (20, 20)), (DROP, "", (70, 20)))
    undo(both)
    assert set(areas(both)) == {"a cat"}


def test_a_box_is_two_clicks_in_any_direction(session: Session) -> None:
    once = clicked(session, (BOX, "a cat", (50, 75)))
    assert once.corrections.corner == (50, 75) and areas(once) == areas(session)
    twice = clicked(once, (BOX, "a cat", (20, 55)))
    undo(once)
    assert once.corrections.corner is None
    labels, sums = twice.current.regions.labels, twice.current.masks([2]).masks.sum()
    assert (
        twice.corrections.corner is None
        and labels == ("a dog", "a cat", "a cat")
        and sums == 30 * 20
    )
    assert select(twice.current, Choice(0.99)).regions.labels == ("a cat",), "it passes always"


def test_what_was_drawn_replaces_what_was_found_there(session: Session) -> None:
    twice = clicked(session, (BOX, "a dog", (9, 9)), (BOX, "a dog", (41, 41)))
    assert areas(twice)["a dog"] == 32 * 32 and len(areas(twice)) == 2


@pytest.mark.parametrize(("tool", "left"), [(DROP, {"a cat"}), (TAKE, {"a dog", "a cat"})])
def test_what_was_drawn_and_corrected_brings_nothing_back(
    session: Session, tool: str, left: set[str]
) -> None:
    """What was found there stays out, else it would cover what has been taken away."""
    corners = (BOX, "a dog", (9, 9)), (BOX, "a dog", (41, 41))
    after = clicked(session, *corners, (tool, "", (20, 20)))
    assert set(areas(after)) == left
    assert select(after.current, Choice(0.1)).numbers.count(0) == 0
    undo(after)
    undo(after)
    assert areas(after) == areas(session)


def test_a_box_in_which_nothing_is_outlined_is_refused(session: Session) -> None:
    class Blind(Recorder):
        def __call__(self, session: Session, what: Asked) -> Masks:
            return Masks(np.zeros((1, 80, 100), bool), np.full(1, 0.5, np.float32))

    session = clicked(session, (BOX, "a dog", (5, 50)))
    with pytest.raises(ValueError, match="Nothing was outlined"):
        click(session, Settings(), 0.1, BOX, "a dog", (30, 70), Blind())
    assert session.corrections.edits == () and session.corrections.corner == (5, 50)


def test_a_box_drawn_around_everything_is_shown(session: Session) -> None:
    session = clicked(session, (BOX, "a cat", (0, 0)), (BOX, "a cat", (99, 79)))
    assert select(session.current, Choice(0.99)).masks.masks.sum() == 99 * 79


def test_a_new_box_is_on_though_one_taken_back_was_off(session: Session) -> None:
    corners = (BOX, "a dog", (5, 50)), (BOX, "a dog", (30, 70))
    session = clicked(session, *corners)
    session.corrections.off = frozenset({1, 2})
    undo(session)
    assert clicked(session, *corners).corrections.off == {1}, "the cat stays off"


class Meanwhile(Recorder):
    """A segmenter that takes so long that something else is done to the answer."""

    def __init__(self, done: Callable[[], object]) -> None:
        super().__init__()
        self.done = done

    def __call__(self, session: Session, what: Asked) -> Masks:
        self.done()
        return super().__call__(session, what)


def test_a_correction_joins_what_is_done_meanwhile(session: Session) -> None:
    """The box that was there at first is taken back."""
    box = (BOX, "a dog", (5, 50)), (BOX, "a dog", (30, 70))
    session = clicked(session, *box, (BOX, "a cat", (50, 60)))
    click(session, Settings(), 0.1, BOX, "a cat", (70, 75), Meanwhile(lambda: drop_box(session)))
    assert session.current.regions.labels == ("a dog", "a cat", "a cat")


def drop_box(session: Session) -> None:
    """Take back the box that was drawn first, but not the corner of the next one."""
    corner, session.corrections.corner = session.corrections.corner, None
    undo(session)
    session.corrections.corner = corner


def test_what_is_taken_back_meanwhile_is_not_corrected(session: Session) -> None:
    session = clicked(session, (BOX, "a dog", (5, 50)), (BOX, "a dog", (30, 70)))
    slow = Meanwhile(lambda: undo(session))
    with pytest.raises(ValueError, match="taken back meanwhile"):
        click(session, Settings(), 0.1, TAKE, "", (20, 60), slow)
    assert session.corrections.edits == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((ADD, "", (45, 20)), (ADD, "", (46, 25))),  # two clicks on one area
        ((BOX, "a dog", (5, 50)), (BOX, "a dog", (30, 70))),  # two corners of one box
    ],
)
def test_undo_while_the_next_click_is_worked_on(
    session: Session,
    first: tuple[str, str, tuple[float, float]],
    second: tuple[str, str, tuple[float, float]],
) -> None:
    session = clicked(session, first)
    with pytest.raises(ValueError, match="taken back meanwhile"):
        click(session, Settings(), 0.1, *second, Meanwhile(lambda: undo(session)))
    assert (session.corrections.edits, session.corrections.corner) == ((), None)


def _without_masks(session: Session) -> Session:
    return replace(session, corrections=Corrections(off=frozenset({0, 1})))


def _with_corner(session: Session) -> Session:
    return replace(session, corrections=Corrections(corner=(50, 50)))


def _with_negative(session: Session) -> Session:
    found = replace(session.proposals, query=parse_prompt("a dog -a cat"))
    return replace(_with_corner(session), proposals=found)


def _same(session: Session) -> Session:
    return session


@pytest.mark.parametrize(
    ("change", "tool", "phrase", "point", "message"),
    [
        (_same, "Paint", "", (1, 1), "no tool 'Paint'; choose one of Add"),  # unknown tool
        (_same, TAKE, "", (5, 5), "no area under the click"),  # nothing there
        (_same, DROP, "", (5, 5), "no area under the click"),
        (_without_masks, ADD, "", (5, 5), "draw a box instead"),  # nothing anywhere
        (_same, ADD, "", (100, 5), "outside the picture of 100 × 80"),  # one pixel too far
        (_same, ADD, "", (5, 80), "outside the picture of 100 × 80"),
        (_same, BOX, "", (-1, 5), "outside the picture"),
        (_same, ADD, "", (float("nan"), 5), "outside the picture"),
        (_with_corner, BOX, "a dog", (51, 60), "too close"),  # a box without width
        (_with_corner, BOX, "a bird", (80, 70), "none of the phrases"),
        (_with_negative, BOX, "a cat", (80, 70), "none of the phrases"),  # what is taken away
    ],
)
def test_refused_clicks(
    session: Session,
    change: Callable[[Session], Session],
    tool: str,
    phrase: str,
    point: tuple[float, float],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        click(change(session), Settings(), 0.1, tool, phrase, point, Recorder())


def test_nothing_to_undo(session: Session) -> None:
    assert not undo(session) and not session.corrections.edits
