"""Several pictures from the page at once: all their files, one picture after another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from common.images import open_image
from grounding.export import File
from grounding.filenames import free_name
from grounding.session import EVERYTHING, Session, look, pack
from grounding.settings import Settings
from grounding.weights import Source, names
from web.page import explain

LIMIT = 50


@dataclass(frozen=True)
class Report:
    """Hold what has come of the pictures so far: what was painted, and what went wrong.

    Attributes:
        painted: The good pictures with their masks, and a caption each.
        failures: The file's name of each picture that could not be used, and a sentence.
        sources: The weights that were used.
    """

    painted: list[tuple[Image.Image, str]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)

    def describe(self) -> str:
        """Say what has come of the pictures, by which weights, and a line each of the bad ones."""
        total = len(self.painted) + len(self.failures)
        lines = [f"{len(self.painted)} of {total} pictures done."]
        if self.sources:
            lines[0] += f" Weights in use: {names(self.sources)}."
        return "\n".join([*lines, *(f"{name}: {why}" for name, why in self.failures)])


def segment_files(
    paths: Sequence[str],
    answer: Callable[[Image.Image, float], Session],
    settings: Settings,
    threshold: float,
    report: Report,
) -> Iterator[File]:
    """Yield the files of all pictures, each picture's in a folder of its own.

    Args:
        paths: At most `LIMIT` pictures; a bad one is reported and passed over.
        answer: Runs the models on a picture; the number is the share of pictures done.
        settings: Which detections are shown, and how.
        threshold: Lowest score of a region, in [0, 1].
        report: Filled in while the pictures are worked on.

    Raises:
        ValueError: If there is no picture or there are too many.
    """
    if not paths:
        raise ValueError("Choose pictures first, in the field above.")
    if len(paths) > LIMIT:
        raise ValueError(
            f"{len(paths)} pictures were given; choose at most {LIMIT}. For more there is the "
            "command python -m grounding."
        )
    taken: set[str] = set()
    for i, path in enumerate(map(Path, paths)):
        try:
            session = replace(answer(open_image(path), i / len(paths)), file=path.name)
        except Exception as error:
            report.failures.append((path.name, explain(error)[1]))
            continue
        report.sources.extend(session.origin.sources.values())
        view = look(session, settings, threshold)
        report.painted.append((view.stages[1], f"{len(view.numbers)} found: {path.name}"))
        folder = free_name(Path(path.name), taken)
        for name, content in pack(session, settings, threshold, EVERYTHING):
            yield f"{folder}/{name}", content
