"""The bundled test pictures of CIFAR-10."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from common.images import open_image

FOLDER = Path(__file__).parent.parent / "assets" / "samples" / "cifar10"


class Sample(NamedTuple):
    """A test picture (RGB, 32x32) and its true label."""

    picture: Image.Image
    label: str


def load_samples() -> list[Sample]:
    """Read the pictures in the order of `samples.json`."""
    rows = json.loads((FOLDER / "samples.json").read_text(encoding="utf-8"))
    return [Sample(open_image(FOLDER / row["file"]), row["label"]) for row in rows]


def mistakes(
    samples: Sequence[Sample], answers: Sequence[str], classes: Sequence[str]
) -> dict[int, str]:
    """Return the wrong answers by the index of their sample.

    A sample of a class that the model never learned is none of its mistakes.

    Args:
        samples: The pictures with their true labels.
        answers: A class for each of them.
        classes: All that the model knows.
    """
    return {
        index: answer
        for index, (sample, answer) in enumerate(zip(samples, answers, strict=True))
        if sample.label != answer and sample.label in classes
    }
