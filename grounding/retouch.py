"""What a click on the picture does to an answer: the tools for correcting it by hand."""

from collections.abc import Callable

import numpy as np

from grounding.core import Clicks, Masks, Regions
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
from grounding.select import Choice, Proposals, Selection, select
from grounding.session import Session
from grounding.settings import Settings

ADD, TAKE, DROP, BOX = "Add to an area", "Remove from an area", "Drop a detection", "Draw a box"
TOOLS = (ADD, TAKE, DROP, BOX)
SMALLEST_BOX = 3  # pixels
HELP = {
    ADD: "Click on what an area is missing; the nearest area grows.",
    TAKE: "Click on what an area should not cover.",
    DROP: "Click on an area that should not be there.",
    BOX: "Click on two opposite corners around something that was not found.",
}

# What is to be outlined: a box, or a mask with clicks on it.
Outline = Callable[[Session, Regions | tuple[np.ndarray, Clicks]], Masks]


def click(
    session: Session,
    settings: Settings,
    threshold: float,
    tool: str,
    phrase: str,
    point: tuple[float, float],
    outline: Outline,
) -> None:
    """Correct an answer where its picture was clicked.

    Args:
        session: The answer to correct.
        settings: What “More settings” says.
        threshold: Which detections are shown.
        tool: One of `TOOLS`.
        phrase: What a drawn box holds.
        point: x and y in pixels of the picture.
        outline: Runs the segmenter.

    Raises:
        ValueError: If the tool can do nothing there.
    """
    if tool not in TOOLS:
        raise ValueError(f"There is no tool {tool!r}; choose one of {', '.join(TOOLS)}.")
    height, width = session.proposals.size
    if not (0 <= point[0] < width and 0 <= point[1] < height):
        raise ValueError(
            f"The point {point[0]:g}, {point[1]:g} is outside the picture of {width} × {height}."
        )
    if tool == BOX:
        _draw_box(session, phrase, point, outline)
    else:
        _change_area(session, session.choice(settings, threshold), tool, point, outline)


def _change_area(
    session: Session, choice: Choice, tool: str, point: tuple[float, float], outline: Outline
) -> None:
    edits = session.corrections.edits
    current = apply_edits(session.proposals, edits)
    selection = select(current, choice)
    shown = selection.shown()
    masks, numbers = selection.masks.masks[shown], [selection.numbers[row] for row in shown]
    if tool == ADD:
        _check_free(selection, *point)
    number = numbers[(row_near if tool == ADD else row_under)(masks, *point)]
    before = clicks_on(edits, number)

    def is_there(now: Proposals) -> bool:
        same = clicks_on(session.corrections.edits, number) == before
        return same and number < len(now.regions)

    if tool == DROP:
        _correct(session, is_there, lambda now: drop(now, number))
        return
    clicks = (*before, (*point, tool == ADD))
    found = outline(session, (current.masks([number]).masks[0], clicks))
    mask, score = obey(found.masks[0], clicks), float(found.scores[0])
    _correct(session, is_there, lambda now: redraw(now, number, mask, score, clicks))


def _check_free(selection: Selection, x: float, y: float) -> None:
    """Refuse a place where what is added would be taken away again."""
    for row, label in enumerate(selection.regions.labels):
        taken = label in selection.query.negatives and selection.on[row]
        if taken and selection.masks.masks[row, int(y), int(x)]:
            raise ValueError(
                f"This place is taken away by “-{label}”; untick that in the table first."
            )


def _correct(
    session: Session,
    is_there: Callable[[Proposals], bool],
    make: Callable[[Proposals], Edit],
) -> None:
    """Add a correction, made of the answer as it is now, to those that there are.

    Raises:
        ValueError: If what it corrects, or what was done for it before, has been taken back.
    """
    corrections = session.corrections
    with corrections.lock:
        now = session.current
        if not is_there(now):
            raise ValueError("What was to be corrected has been taken back meanwhile.")
        corrections.edits += (make(now),)
        corrections.corner = None


def _draw_box(session: Session, phrase: str, point: tuple[float, float], outline: Outline) -> None:
    corrections = session.corrections
    if (corner := corrections.corner) is None:
        corrections.corner = point
        return
    corners = np.array([corner, point], np.float32)
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    if (box[2:] - box[:2]).min() < SMALLEST_BOX:
        raise ValueError("The two corners are too close together; click on opposite ones.")
    if phrase not in session.proposals.query.phrases:
        raise ValueError(f"{phrase!r} is none of the phrases that were looked for.")
    found = outline(session, Regions(box[None], np.ones(1, np.float32), (phrase,)))
    mask, score = found.masks[0], float(found.scores[0])
    if not mask.any():
        raise ValueError("Nothing was outlined in that box; click on another opposite corner.")
    _correct(
        session,
        lambda _: corrections.corner == corner,
        lambda now: add(now, phrase, box, mask, score),
    )


def undo(session: Session) -> bool:
    """Take back the first corner of a box or, if there is none, the last correction, if any."""
    corrections = session.corrections
    with corrections.lock:
        if corrections.corner is not None:
            corrections.corner = None
        elif corrections.edits:
            corrections.edits = corrections.edits[:-1]
        else:
            return False
        # The next box that is drawn gets the number of one that is gone, but was not switched off.
        corrections.off &= {*range(len(session.current.regions))}
    return True
