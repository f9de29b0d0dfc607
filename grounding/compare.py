"""All grounders on one picture and prompt, side by side."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

from grounding.grounders import GROUNDERS
from grounding.overlay import Style, annotations, paint, phrase_colours, shrink
from grounding.select import Choice, Proposals, select

COMPARED = ("GroundingDINO tiny", "CLIPSeg", "GLIP-T")
HEADERS = ["Grounder", "Found", "Best score", "Threshold", "Grounder, s", "SAM 2, s"]

Propose = Callable[[str, float], Proposals]


@dataclass(frozen=True)
class Answer:
    """Hold a grounder's answer: its picture, a caption for it, and a row for the table."""

    picture: Image.Image
    caption: str
    row: list[object]


def compare(image: Image.Image, propose: Propose, style: Style) -> Iterator[Answer]:
    """Ask each grounder in turn, at its own threshold; one that cannot answer says why.

    Args:
        image: RGB picture.
        propose: Runs the models by the name of the grounder and a threshold.
        style: How masks are painted.
    """
    for name in COMPARED:
        threshold = GROUNDERS[name].threshold
        try:
            yield _answer(name, threshold, image, propose(name, threshold), style)
        except ValueError as error:
            row = [name, str(error), None, threshold, None, None]
            yield Answer(shrink(image), f"{name}: {error}", row)


def _answer(
    name: str, threshold: float, image: Image.Image, proposals: Proposals, style: Style
) -> Answer:
    selection = select(proposals, Choice(threshold))
    rows = selection.shown()
    regions, masks = selection.regions[rows], selection.masks[rows]
    colours = phrase_colours(proposals.query.phrases)
    picture = paint(*annotations(image, regions.labels, masks.masks, style), colours)
    best = max(proposals.best.values(), default=0.0)
    seconds = [round(proposals.seconds.get(stage, 0.0), 2) for stage in ("grounder", "segmenter")]
    caption = f"{name}: {len(rows)} found, {sum(seconds):.1f} s"
    return Answer(picture, caption, [name, len(rows), round(best, 3), threshold, *seconds])
