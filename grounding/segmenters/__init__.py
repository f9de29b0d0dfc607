"""The menu of segmenters: the four sizes of SAM 2.1."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from grounding.core import Segmenter


@dataclass(frozen=True)
class SegmenterEntry:
    """Say where a segmenter comes from.

    Attributes:
        module: File in this folder; its `load(folder, device)` returns the segmenter. It is also
            the name of the bundled demo weights.
        repo: Repository on the hub.
        files: Patterns of the files needed from the repository, the weights' own last.
    """

    module: str
    repo: str
    files: tuple[str, ...]

    def load(self, folder: Path, device: str) -> Segmenter:
        """Load the segmenter from the files in `folder` onto `device`."""
        loader: Callable[[Path, str], Segmenter] = import_module(f"{__name__}.{self.module}").load
        return loader(folder, device)


SEGMENTERS = {
    "SAM 2.1 tiny": SegmenterEntry("sam2", "facebook/sam2.1-hiera-tiny", ("sam2.1_*.pt",)),
    "SAM 2.1 small": SegmenterEntry("sam2", "facebook/sam2.1-hiera-small", ("sam2.1_*.pt",)),
    "SAM 2.1 base+": SegmenterEntry("sam2", "facebook/sam2.1-hiera-base-plus", ("sam2.1_*.pt",)),
    "SAM 2.1 large": SegmenterEntry("sam2", "facebook/sam2.1-hiera-large", ("sam2.1_*.pt",)),
}
