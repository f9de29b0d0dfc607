"""What is kept of a visitor's latest answer, and what can be shown of it without a model."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from grounding.export import export_files, make_manifest, write_zip
from grounding.grounders import GROUNDERS
from grounding.overlay import (
    Style,
    annotations,
    draw_regions,
    paint,
    phrase_colours,
    shrink,
    table_rows,
)
from grounding.pipeline import Models
from grounding.segmenters import SEGMENTERS
from grounding.select import Choice, Proposals, choose, select, to_result
from grounding.status import describe, settings_link

Painted = tuple[Image.Image, list[tuple[np.ndarray, str]]]
View = tuple[
    tuple[Painted, dict[str, str]],
    Image.Image,
    list[list[object]],
    str,
    tuple[Image.Image, Image.Image],
]


@dataclass(frozen=True)
class Settings:
    """Hold what “More settings” says: which detections are shown, and how they are painted."""

    choice: Choice = field(default_factory=lambda: Choice(0.0))
    style: Style = field(default_factory=Style)


def read_settings(
    count: float, min_area: float, best_only: bool, whole: bool, opacity: float, outline: float
) -> Settings:
    """Return the settings that the components of `_build_more` hold."""
    choice = Choice(0.0, int(count), min_area, best_only, whole)
    return Settings(choice, Style(opacity, int(outline)))


@dataclass(frozen=True)
class Session:
    """Hold the latest answer of one visitor, so that it can be looked at in other ways.

    Attributes:
        image: RGB picture.
        proposals: All that the models proposed for it.
        models: Where the weights came from and the device; the models themselves are left out.
        asked: The prompt, and the settings of the run by their names.
        off: Numbers of the regions that have been switched off.
    """

    image: Image.Image
    proposals: Proposals
    models: Models
    asked: dict[str, Any]
    off: frozenset[int] = frozenset()

    def choice(self, settings: Settings, threshold: float) -> Choice:
        """Complete the settings with the threshold and what has been switched off."""
        return replace(settings.choice, threshold=threshold, off=self.off)


def look(session: Session, settings: Settings, threshold: float) -> View:
    """Show an answer in another way, without a model: both pictures, the table and the words.

    Returns:
        The picture and its masks with the colours of the phrases, the grounder's own answer, the
        table's rows, the status, and the two stages.
    """
    proposals = session.proposals
    selection = select(proposals, session.choice(settings, threshold))
    query, rows = selection.query, selection.shown()
    colours = phrase_colours(query.phrases, query.negatives)
    labels = selection.regions[rows].labels
    shown, pairs = annotations(session.image, labels, selection.masks.masks[rows], settings.style)
    regions = draw_regions(session.image, selection.regions, colours)
    text = describe(proposals, selection, session.models, threshold)
    return (
        ((shown, pairs), colours),
        regions,
        table_rows(selection.regions, selection.masks, selection.on, query.negatives),
        f"{text}\n\n{settings_link(**session.asked)}",
        (shrink(regions), paint(shown, pairs, colours)),
    )


def switch(
    session: Session, settings: Settings, threshold: float, rows: list[list[Any]]
) -> Session:
    """Switch detections on and off as the table's boxes say."""
    numbers, _ = choose(session.proposals, session.choice(settings, threshold))
    said = {numbers[row[1] - 1]: bool(row[0]) for row in rows if 1 <= row[1] <= len(numbers)}
    off = (session.off - said.keys()) | {number for number, on in said.items() if not on}
    return replace(session, off=frozenset(off))


def pack_zip(session: Session | None, settings: Settings, threshold: float, folder: Path) -> Path:
    """Write all files of what is shown into a ZIP in `folder`.

    Raises:
        ValueError: If there is no answer yet.
    """
    if session is None:
        raise ValueError("There is nothing to download yet; press Run first.")
    choice, models = session.choice(settings, threshold), session.models
    folder.mkdir(parents=True, exist_ok=True)
    result = to_result(select(session.proposals, choice), session.proposals.seconds)
    more = {name: value for name, value in asdict(choice).items() if name != "off"}
    asked = {"prompt": session.asked["prompt"], "settings": session.asked | more}
    used = {
        "grounder": (session.asked["grounder"], models.grounder_source),
        "segmenter": (session.asked["segmenter"], models.segmenter_source),
    }
    manifest = make_manifest(result, asked, used, models.device)
    write_zip(folder / "segmentation.zip", export_files(session.image, result, manifest))
    return folder / "segmentation.zip"


def settings_from_query(query: dict[str, str]) -> dict[str, Any]:
    """Return what a link's query says of the settings; what it says wrongly is passed over."""
    said: dict[str, Any] = {}
    if query.get("prompt"):
        said["prompt"] = query["prompt"][:1000]
    for name, menu in (("grounder", GROUNDERS), ("segmenter", SEGMENTERS)):
        if query.get(name) in menu:
            said[name] = query[name]
    try:
        said["threshold"] = Choice(float(query["threshold"])).threshold
    except (KeyError, ValueError):
        if "grounder" in said:
            said["threshold"] = GROUNDERS[said["grounder"]].threshold
    return said
