"""Corrections by hand: what a click changes, and the proposals with all changes made.

A correction replaces one proposal's mask or adds a proposal; an empty mask drops it. None is ever
overwritten, so undo forgets the last one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

import cv2
import numpy as np

from grounding.core import Clicks, mask_box
from grounding.select import Proposals, pack_masks, same_as, twins

# Of what is drawn by hand, so that every threshold lets it pass.
SURE = 1.0
# Radius of the spot that follows a click even where the segmenter does not, as share of the side.
SPOT = 0.02


@dataclass(frozen=True)
class Edit:
    """Hold one correction.

    Attributes:
        number: The proposal it is about; one past the last adds a proposal.
        label: The phrase.
        box: xyxy in pixels of the picture.
        bits: The new mask, packed: uint8 (ceil(H * W / 8),).
        mask_score: Its predicted IoU in [0, 1].
        clicks: All clicks on this proposal so far.
    """

    number: int
    label: str
    box: np.ndarray
    bits: np.ndarray
    mask_score: float
    clicks: Clicks = ()


@dataclass
class Corrections:
    """Hold what has been done to one answer by hand.

    A correction takes seconds: it joins those that there are then, and undoes nothing else that was
    done to the answer meanwhile.

    Attributes:
        edits: The latest last.
        corner: First corner of a box that is being drawn, x and y in pixels, or None.
        off: Numbers of the proposals that have been switched off.
        lock: Held while they change.
    """

    edits: tuple[Edit, ...] = ()
    corner: tuple[float, float] | None = None
    off: frozenset[int] = frozenset()
    lock: Lock = field(default_factory=Lock)


def apply_edits(proposals: Proposals, edits: Sequence[Edit]) -> Proposals:
    """Return the proposals with all corrections made, in their order.

    What was found twice stays out when the better one is changed or dropped.
    """
    if not edits:
        return proposals
    regions = proposals.regions
    own = (regions.boxes, regions.scores, regions.labels, proposals.bits, proposals.mask_scores)
    rows = dict(enumerate(zip(*own, strict=True)))
    hidden: set[int] = set()  # behind what was drawn, which may be corrected later
    for edit in edits:
        if edit.number not in rows:
            hidden |= {*same_as(proposals, edit.label, edit.bits)}
        score = rows[edit.number][1] if edit.number in rows else SURE
        rows[edit.number] = edit.box, score, edit.label, edit.bits, edit.mask_score
    by_hand = frozenset(edit.number for edit in edits)
    for number in by_hand & {*range(len(regions))}:
        hidden |= {*twins(proposals, number)}
    boxes, scores, labels, masks, mask_scores = zip(*rows.values(), strict=True)
    bits = np.array(masks)
    bits[[*hidden - by_hand]] = 0
    return replace(
        proposals,
        regions=replace(
            regions,
            boxes=np.array(boxes, np.float32),
            scores=np.array(scores, np.float32),
            labels=labels,
        ),
        bits=bits,
        mask_scores=np.array(mask_scores, np.float32),
        by_hand=by_hand,
    )


def drop(proposals: Proposals, number: int) -> Edit:
    """Return the correction that drops a proposal."""
    nothing = np.zeros_like(proposals.bits[number])
    return Edit(
        number, proposals.regions.labels[number], proposals.regions.boxes[number], nothing, 0.0
    )


def redraw(
    proposals: Proposals, number: int, mask: np.ndarray, mask_score: float, clicks: Clicks
) -> Edit:
    """Return the correction that gives a proposal another bool mask (H, W)."""
    box = np.array(mask_box(mask), np.float32)
    label = proposals.regions.labels[number]
    return Edit(number, label, box, pack_masks(mask[None])[0], mask_score, clicks)


def add(
    proposals: Proposals, label: str, box: np.ndarray, mask: np.ndarray, mask_score: float
) -> Edit:
    """Return the correction that adds a proposal with a bool mask (H, W)."""
    return Edit(len(proposals.regions), label, box, pack_masks(mask[None])[0], mask_score)


def clicks_on(edits: Sequence[Edit], number: int) -> Clicks:
    """Return the clicks that have made a proposal's mask what it is."""
    return next((edit.clicks for edit in reversed(edits) if edit.number == number), ())


def row_under(masks: np.ndarray, x: float, y: float) -> int:
    """Return the row of the smallest of the bool masks (N, H, W) that holds a point (x, y).

    Raises:
        ValueError: If none does.
    """
    x, y = int(x), int(y)
    rows = np.flatnonzero(masks[:, y, x])
    if not len(rows):
        raise ValueError("There is no area under the click; click on a coloured one.")
    return int(rows[masks[rows].sum((1, 2)).argmin()])


def row_near(masks: np.ndarray, x: float, y: float) -> int:
    """Return the row of the bool mask (N, H, W) that is nearest to a point (x, y).

    Raises:
        ValueError: If there is no mask.
    """
    if not len(masks):
        raise ValueError("There is no area to add to; draw a box instead.")
    rows, columns = np.nonzero(masks.any(axis=0))
    nearest = ((columns - int(x)) ** 2 + (rows - int(y)) ** 2).argmin()
    return int(masks[:, rows[nearest], columns[nearest]].argmax())


def obey(mask: np.ndarray, clicks: Clicks) -> np.ndarray:
    """Return a copy of a bool mask (H, W) that is right at least in a spot around each click.

    A segmenter may pass over a click; the person at the page must see that it was heard.
    """
    obeyed = mask.astype(np.uint8)
    radius = max(1, round(SPOT * max(mask.shape)))
    for x, y, adds in clicks:
        if bool(obeyed[int(y), int(x)]) != adds:
            cv2.circle(obeyed, (int(x), int(y)), radius, int(adds), thickness=-1)
    return obeyed.astype(bool)
