"""The menu of grounders. A new one is a file here with a `load` function, and a line below."""

from dataclasses import dataclass, field
from typing import ClassVar

from grounding.menu import ModelEntry


@dataclass(frozen=True)
class GrounderEntry(ModelEntry):
    """Say where a grounder comes from.

    Attributes:
        threshold: Score from which on a region counts, as a start for the slider.
    """

    package: ClassVar[str] = __name__

    files: tuple[str, ...] = ("*.json", "*.txt", "model.safetensors")
    threshold: float = field(kw_only=True)


GROUNDERS = {
    "GroundingDINO tiny": GrounderEntry(
        "grounding_dino", "IDEA-Research/grounding-dino-tiny", threshold=0.3
    ),
    "GroundingDINO base": GrounderEntry(
        "grounding_dino", "IDEA-Research/grounding-dino-base", threshold=0.3
    ),
    "CLIPSeg": GrounderEntry("clipseg", "CIDAS/clipseg-rd64-refined", threshold=0.4),
    "GLIP-T": GrounderEntry(
        "glip",
        "GLIPModel/GLIP",
        ("glip_tiny_model_o365_goldg_cc_sbu.pth",),
        threshold=0.5,
        kept=0.25,  # the rest is the state of its training
    ),
}
