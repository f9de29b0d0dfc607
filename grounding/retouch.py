"""What a click on the picture does to an answer: the tools for correcting it by hand."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from grounding.core import Clicks, Masks, Regions
from grounding.edits import Edit, add, clicks_on, drop, obey, redraw, row_near, row_under
from grounding.select import select
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
) -> Session:
    """Return the session after a click.

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
        return _draw_box(session, phrase, point, outline)
    selection = select(session.current, session.choice(settings, threshold))
    shown = selection.shown()
    masks, numbers = selection.masks.masks[shown], [selection.numbers[row] for row in shown]
    number = numbers[(row_near if tool == ADD else row_under)(masks, *point)]
    edit = (
        drop(session.current, number)
        if tool == DROP
        else _reshape(session, number, (*point, tool == ADD), outline)
    )
    return replace(session, edits=(*session.edits, edit), corner=None)


def _reshape(
    session: Session, number: int, clicked: tuple[float, float, bool], outline: Outline
) -> Edit:
    clicks = (*clicks_on(session.edits, number), clicked)
    found = outline(session, (session.current.masks([number]).masks[0], clicks))
    return redraw(
        session.current, number, obey(found.masks[0], clicks), float(found.scores[0]), clicks
    )


def _draw_box(
    session: Session, phrase: str, point: tuple[float, float], outline: Outline
) -> Session:
    if session.corner is None:
        return replace(session, corner=point)
    corners = np.array([session.corner, point], np.float32)
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    if (box[2:] - box[:2]).min() < SMALLEST_BOX:
        raise ValueError("The two corners are too close together; click on opposite ones.")
    if phrase not in session.proposals.query.phrases:
        raise ValueError(f"{phrase!r} is none of the phrases that were looked for.")
    found = outline(session, Regions(box[None], np.ones(1, np.float32), (phrase,)))
    edit = add(session.current, phrase, box, found.masks[0], float(found.scores[0]))
    return replace(session, edits=(*session.edits, edit), corner=None)


def undo(session: Session) -> Session:
    """Return the session without its first corner of a box or, if there is none, the last edit."""
    if session.corner is not None:
        return replace(session, corner=None)
    if not session.edits:
        raise ValueError("There is nothing to undo.")
    before = replace(session, edits=session.edits[:-1])
    # The next box that is drawn gets the number of the one that is gone, but was not switched off.
    there = len(before.current.regions)
    return replace(before, off=frozenset(number for number in before.off if number < there))
