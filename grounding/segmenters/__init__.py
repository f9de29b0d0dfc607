"""The menu of segmenters: the four sizes of SAM 2.1."""

from dataclasses import dataclass
from typing import ClassVar

from grounding.menu import ModelEntry


@dataclass(frozen=True)
class SegmenterEntry(ModelEntry):
    """Say where a segmenter comes from."""

    package: ClassVar[str] = __name__

    files: tuple[str, ...] = ("sam2.1_*.pt",)


SEGMENTERS = {
    "SAM 2.1 tiny": SegmenterEntry("sam2", "facebook/sam2.1-hiera-tiny"),
    "SAM 2.1 small": SegmenterEntry("sam2", "facebook/sam2.1-hiera-small"),
    "SAM 2.1 base+": SegmenterEntry("sam2", "facebook/sam2.1-hiera-base-plus"),
    "SAM 2.1 large": SegmenterEntry("sam2", "facebook/sam2.1-hiera-large"),
}
