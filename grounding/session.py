"""What is kept of a visitor's latest answer, and what can be shown of it without a model."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple
from uuid import uuid4

import cv2
import numpy as np
from PIL import Image

from grounding.core import Regions
from grounding.edits import Corrections, apply_edits
from grounding.export import PARTS, Export, File, export_files, make_manifest
from grounding.overlay import (
    annotations,
    draw_regions,
    mark,
    paint,
    phrase_colours,
    row_facts,
    shown_scale,
    shrink,
    table_rows,
)
from grounding.select import Choice, Proposals, Result, Selection, choose, select, to_result
from grounding.settings import Settings, settings_link
from grounding.status import describe, quote
from grounding.weights import Origin

EVERYTHING = "everything"

Painted = tuple[Image.Image, list[tuple[np.ndarray, str]]]


class View(NamedTuple):
    """What the page shows of an answer.

    Attributes:
        painted: The picture and its masks, for a `gr.AnnotatedImage`.
        colours: Of the phrases.
        rows: Of the table.
        status: The words, as Markdown.
        stages: The grounder's own answer, and what the segmenter made of it.
        canvas: The picture to click on.
        numbers: Of the masks, as in the table.
    """

    painted: Painted
    colours: dict[str, str]
    rows: list[list[object]]
    status: str
    stages: tuple[Image.Image, Image.Image]
    canvas: Image.Image
    numbers: list[int]


@dataclass(frozen=True)
class Session:
    """Hold the latest answer of one visitor, so that it can be looked at in other ways.

    Attributes:
        image: RGB picture.
        proposals: All that the models proposed for it.
        origin: The weights, and the device.
        asked: The prompt, and the settings of the run by their names.
        corrections: What has been done to it by hand.
        path: Of the picture that was uploaded; an address, which is asked, comes first.
        file: Name of the picture's file, where it is one of several.
        key: Of this answer and no other.
    """

    image: Image.Image
    proposals: Proposals
    origin: Origin
    asked: dict[str, Any]
    corrections: Corrections = field(default_factory=Corrections)
    path: str | None = None
    file: str = ""
    key: str = field(default_factory=lambda: uuid4().hex)

    @cached_property
    def shown(self) -> Image.Image:
        """Return the picture as the page shows it."""
        return shrink(self.image)

    @property
    def current(self) -> Proposals:
        """Return the proposals with all corrections made."""
        return apply_edits(self.proposals, self.corrections.edits)

    def is_of(self, path: str | None, url: str | None) -> bool:
        """Say whether it is of the picture that is given now, if any is."""
        given, asked = (url or "").strip(), self.asked["url"]
        if not (given or path):
            return True
        return given == asked if given or asked else path == self.path

    def choice(self, settings: Settings, threshold: float) -> Choice:
        """Complete the settings with the threshold and what has been switched off."""
        return replace(settings.choice, threshold=threshold, off=self.corrections.off)


def look(session: Session, settings: Settings, threshold: float) -> View:
    """Show an answer in another way, without a model."""
    proposals = session.current
    choice = session.choice(settings, threshold)
    selection = select(proposals, choice)
    query, rows = selection.query, selection.shown()
    colours = phrase_colours(query.phrases, query.negatives)
    labels = selection.regions[rows].labels
    shown, pairs = annotations(session.shown, labels, selection.masks.masks[rows], settings.style)
    found, numbers = _as_found(session, selection), range(1, len(selection.numbers) + 1)
    regions = draw_regions(shown, found, numbers, colours)
    text = f"{_asked(session)}\n\n{describe(proposals, selection, session.origin, choice)}"
    if edits := session.corrections.edits:
        text += f"\n\nCorrections by hand: {len(edits)}."
    if corner := session.corrections.corner:
        x, y = corner
        text += f"\n\nFirst corner of a box: {x:.0f}, {y:.0f}. Now the opposite one."
    painted = paint(shown, pairs, colours)
    return View(
        (shown, pairs),
        colours,
        table_rows(selection.regions, selection.masks, selection.on, query.negatives),
        f"{text}\n\n{settings_link(session.asked, threshold, settings)}",
        (regions, painted),
        mark(painted, corner, shown_scale(session.image)),
        [int(row) + 1 for row in rows],
    )


def _as_found(session: Session, selection: Selection) -> Regions:
    """Return the chosen regions, in pixels of `shown`, with the boxes that the segmenter got.

    An area that was corrected has another box by now.
    """
    found = session.proposals.regions.boxes
    boxes = selection.regions.boxes.copy()
    for row, number in enumerate(selection.numbers):
        if number < len(found):
            boxes[row] = found[number]
    heatmap = selection.regions.heatmap
    if heatmap is not None:
        heatmap = cv2.resize(heatmap, session.shown.size, interpolation=cv2.INTER_AREA)
    return replace(selection.regions, boxes=boxes / shown_scale(session.image), heatmap=heatmap)


def _asked(session: Session) -> str:
    """Say what the answer is about: the fields beside it may have been changed since."""
    return f"<small>{quote(session.asked['prompt'])}, {session.asked['grounder']}:</small>"


def switch(session: Session, settings: Settings, threshold: float, rows: list[list[Any]]) -> None:
    """Switch detections on and off as the table's boxes say; odd rows say nothing."""
    rest, numbers, _ = choose(session.current, session.choice(settings, threshold))
    facts = row_facts(rest.regions[numbers], rest.mask_scores[numbers], rest.query.negatives)
    said, left = {}, list(rows)
    # By what they say and not by their place: other rows may have come or gone meanwhile.
    for number, fact in zip(numbers, facts, strict=True):
        if row := next((row for row in left if row[2:6] == fact), None):
            said[number] = bool(row[0])
            left.remove(row)  # the next may say the same
    off = {number for number, on in said.items() if not on}
    with session.corrections.lock:
        session.corrections.off = (session.corrections.off - said.keys()) | off


def shown_result(session: Session, settings: Settings, threshold: float) -> Result:
    """Return what is shown of an answer."""
    selection = select(session.current, session.choice(settings, threshold))
    return to_result(selection, session.proposals.seconds)


def pack(session: Session, settings: Settings, threshold: float, part: str) -> Iterator[File]:
    """Return the files of what is shown: all of them, or one of `export.PARTS`.

    Raises:
        ValueError: If there is no such part.
    """
    result = shown_result(session, settings, threshold)
    # Areas of a map stay as they were cut in the run.
    cut = {"cut": session.proposals.floor} if result.regions.heatmap is not None else {}
    asked = {
        "prompt": session.asked["prompt"],
        "settings": session.asked | settings.values() | {"threshold": threshold} | cut,
        "corrections": len(session.corrections.edits),
    } | ({"file": session.file} if session.file else {})
    manifest = make_manifest(result, asked, session.origin)
    answer = Export(session.image, result, manifest, settings.style)
    return export_files(answer, PARTS if part == EVERYTHING else [part])
