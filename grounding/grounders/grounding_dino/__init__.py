"""GroundingDINO (Liu et al., ECCV 2024, https://arxiv.org/abs/2303.05499) as a grounder."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grounding.grounders.grounding_dino.grounder import GroundingDino


def load(folder: Path, device: str) -> "GroundingDino":
    """Load the grounder from a folder in transformers' layout."""
    from transformers import AutoModelForZeroShotObjectDetection

    from grounding.grounders.grounding_dino.grounder import GroundingDino
    from grounding.grounders.grounding_dino.lean import make_lean
    from grounding.loading import read_pretrained, read_processor

    model = read_pretrained(AutoModelForZeroShotObjectDetection, folder)
    make_lean(model.to(device), device)
    return GroundingDino(model, read_processor(folder), device)
