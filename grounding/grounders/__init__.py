"""The menu of grounders. A new one is a file here with a `load` function, and a line below."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from grounding.core import Grounder

_TRANSFORMERS = ("*.json", "*.txt", "model.safetensors")


@dataclass(frozen=True)
class GrounderEntry:
    """Say where a grounder comes from.

    Attributes:
        module: File in this folder; its `load(folder, device)` returns the grounder. It is also
            the name of the bundled demo weights.
        repo: Repository on the hub.
        threshold: Score from which on a region counts, as a start for the slider.
        files: Patterns of the files needed from the repository, the weights' own last.
    """

    module: str
    repo: str
    threshold: float
    files: tuple[str, ...] = _TRANSFORMERS

    def load(self, folder: Path, device: str) -> Grounder:
        """Load the grounder from the files in `folder` onto `device`."""
        loader: Callable[[Path, str], Grounder] = import_module(f"{__name__}.{self.module}").load
        return loader(folder, device)


GROUNDERS = {
    "GroundingDINO tiny": GrounderEntry(
        "grounding_dino", "IDEA-Research/grounding-dino-tiny", threshold=0.3
    ),
    "GroundingDINO base": GrounderEntry(
        "grounding_dino", "IDEA-Research/grounding-dino-base", threshold=0.3
    ),
    "CLIPSeg": GrounderEntry("clipseg", "CIDAS/clipseg-rd64-refined", threshold=0.4),
    # GLIP takes its line here when grounders/glip exists.
}
