"""One grounder of each kind on one picture and prompt, side by side."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from grounding.export import detections
from grounding.grounders import GROUNDERS
from grounding.overlay import annotations, paint, phrase_colours, shrink
from grounding.select import Proposals, select, to_result
from grounding.settings import Settings
from grounding.status import describe_weights, quote
from grounding.weights import Source
from web.page import explain

COMPARED = ("GroundingDINO tiny", "CLIPSeg", "GLIP-T")
HEADERS = ["Grounder", "Found", "Best score", "Threshold", "Grounder, s", "SAM 2, s"]

HELP = "Each at its own threshold; the segmenter reads the picture once, for the first row."

Propose = Callable[[str, float], Proposals]


@dataclass(frozen=True)
class Answer:
    """Hold a grounder's answer.

    Attributes:
        picture: With its masks.
        caption: For the picture.
        row: Of the table, in the order of `HEADERS`.
        detections: As data; see `grounding.export.detections`.
    """

    picture: Image.Image
    caption: str
    row: list[object]
    detections: list[dict[str, Any]]


def compare(image: Image.Image, propose: Propose, settings: Settings) -> Iterator[Answer]:
    """Ask each grounder in turn, at its own threshold; one that cannot answer says why.

    Args:
        image: RGB picture.
        propose: Runs the models by the name of the grounder and a threshold.
        settings: Which detections are shown, and how.
    """
    for name in COMPARED:
        threshold = GROUNDERS[name].threshold
        try:
            yield _answer(name, threshold, image, propose(name, threshold), settings)
        except Exception as error:
            _, said = explain(error)
            row: list[object] = [name, said, None, threshold, None, None]
            yield Answer(shrink(image), f"{name}: {said}", row, [])


def _answer(
    name: str, threshold: float, image: Image.Image, proposals: Proposals, settings: Settings
) -> Answer:
    selection = select(proposals, replace(settings.choice, threshold=threshold))
    result = to_result(selection, proposals.seconds)
    colours = phrase_colours(result.phrases)
    shown = annotations(image, result.regions.labels, result.masks.masks, settings.style)
    picture = paint(*shown, colours)
    # Where nothing is shown, how far it was from that.
    missed = [proposals.best.get(phrase, 0.0) for phrase in result.phrases]
    best = max(map(float, result.regions.scores), default=max(missed))
    seconds = [round(proposals.seconds.get(stage, 0.0), 2) for stage in ("grounder", "segmenter")]
    row = [name, len(result.masks), round(best, 3), threshold, *seconds]
    caption = f"{name}: {len(result.masks)} found, {sum(seconds):.1f} s"
    return Answer(picture, caption, row, detections(result))


def describe(prompt: str, sources: Collection[Source]) -> str:
    """Say in Markdown what a comparison is of, and which weights made it."""
    weights = [describe_weights(sources)] if sources else []  # none where all have failed
    return "\n\n".join([f"<small>{quote(prompt)}. {HELP}</small>", *weights])
