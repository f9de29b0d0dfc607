"""Picture + prompt -> regions -> masks, with the models that have been loaded so far."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from safetensors import SafetensorError

from grounding.core import Grounder, Masks, Regions, Segmenter
from grounding.grounders import GROUNDERS
from grounding.menu import ModelEntry
from grounding.prompt import parse_prompt
from grounding.segmenters import SEGMENTERS
from grounding.weights import Progress, Source, Weights

DUPLICATE_IOU = 0.7

T = TypeVar("T")


@dataclass(frozen=True)
class Models:
    """Hold a loaded grounder and segmenter and where their weights came from."""

    grounder: Grounder
    segmenter: Segmenter
    grounder_source: Source
    segmenter_source: Source


@dataclass(frozen=True)
class Result:
    """Hold an answer: what was looked for, found and made of it, and the seconds of each stage."""

    phrases: list[str]
    regions: Regions
    masks: Masks
    seconds: dict[str, float] = field(default_factory=dict)


def _quiet(_share: float, _text: str) -> None:
    """Report progress to nobody."""


def choose_device(name: str) -> str:
    """Return the torch device for "auto", "cpu", "cuda" or "mps".

    Raises:
        ValueError: If that device is not on this machine.
    """
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, found in there.items() if found)
    if not there[name]:
        found = ", ".join(device for device, is_there in there.items() if is_there)
        raise ValueError(f"The device {name} is not on this machine; there is {found}.")
    return name


class ModelStore:
    """Load each model once, at first use, and keep it."""

    def __init__(self, weights: Weights, device: str) -> None:
        """Take where weights come from and the device; "auto" is settled at first use."""
        self.weights, self.device = weights, device
        self._loaded: dict[Source, Any] = {}
        self._lock = threading.Lock()

    def get(self, grounder: str, segmenter: str, progress: Progress = _quiet) -> Models:
        """Return the two models by their names in the menus, downloading and loading if needed.

        Raises:
            ValueError: If a name is not on its menu or the weights cannot be had.
        """
        first = self._load("grounder", GROUNDERS, grounder, progress)
        second = self._load("segmenter", SEGMENTERS, segmenter, progress)
        return Models(first[0], second[0], first[1], second[1])

    def _load(
        self, role: str, menu: Mapping[str, ModelEntry], name: str, progress: Progress
    ) -> tuple[Any, Source]:
        if name not in menu:
            raise ValueError(f"There is no {role} {name!r}; choose one of {', '.join(menu)}.")
        entry = menu[name]
        # One lock for all: two people who want the same model must not load it twice.
        with self._lock:
            source = self.weights.locate(entry.repo, entry.files, entry.module, progress)
            if source not in self._loaded:
                progress(1.0, f"Loading {name}")
                self._loaded[source] = self._read(entry, source, name)
            return self._loaded[source], source

    def _read(self, entry: ModelEntry, source: Source, name: str) -> Any:
        device = choose_device(self.device)
        try:
            return entry.load(source.folder, device)
        except (OSError, RuntimeError, SafetensorError) as error:
            print(f"Cannot load {name} from {source.folder}: {type(error).__name__}: {error}")
            raise ValueError(
                f"The weights of {name} ({source.name}) are damaged or incomplete. "
                "Delete them from the cache and try again, so that they are downloaded anew."
            ) from error


def run(models: Models, image: Image.Image, prompt: str, threshold: float) -> Result:
    """Find what `prompt` names in an RGB picture and return its masks.

    Args:
        models: The loaded grounder and segmenter.
        image: RGB picture.
        prompt: One phrase or several; see `parse_prompt`.
        threshold: Lowest score of a region, in [0, 1].

    Raises:
        ValueError: If the prompt holds no phrase or the threshold is not in [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"The threshold is {threshold}; it must be between 0 and 1.")
    phrases = parse_prompt(prompt)
    regions, ground_seconds = _timed(lambda: models.grounder.ground(image, phrases, threshold))
    if not len(regions):
        nothing = Masks(np.zeros((0, image.height, image.width), bool), np.zeros(0, np.float32))
        return Result(phrases, regions, nothing, {"grounder": ground_seconds})
    masks, segment_seconds = _timed(lambda: models.segmenter.segment(image, regions))
    seconds = {"grounder": ground_seconds, "segmenter": segment_seconds}
    kept = distinct(regions.labels, masks.masks)
    return Result(phrases, regions[kept], masks[kept], seconds)


def distinct(labels: tuple[str, ...], masks: np.ndarray) -> list[int]:
    """Return the numbers of the masks (N, H, W), best first, that are not found twice.

    Two boxes around one thing often give the same mask; the second is dropped when it has the
    same label and an IoU above 0.7 with the first. So is a mask without a pixel.
    """
    kept: list[int] = []
    for i, mask in enumerate(masks):
        rivals = [j for j in kept if labels[j] == labels[i]]
        if mask.any() and all(_iou(mask, masks[j]) <= DUPLICATE_IOU for j in rivals):
            kept.append(i)
    return kept


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return call(), time.perf_counter() - began
