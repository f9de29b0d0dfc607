"""The store of models: what loads them, keeps them and puts them away."""

import math
import os
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from common.devices import find_device
from common.exhausted import disk_full, out_of_memory
from grounding.core import Grounder, Segmenter
from grounding.grounders import GROUNDERS
from grounding.memory import GIGABYTE, Shelf, default_budget, file_bytes
from grounding.menu import ModelEntry
from grounding.segmenters import SEGMENTERS
from grounding.weights import Origin, Progress, Source, Weights

# What the models stand on, all of which takes seconds to import.
LIBRARIES = (
    "torchvision",
    "transformers.models.auto.processing_auto",
    "transformers.generation.utils",
    "hydra.utils",
    "sam2.sam2_image_predictor",
)

MENUS: dict[str, Mapping[str, ModelEntry]] = {"grounder": GROUNDERS, "segmenter": SEGMENTERS}


@dataclass(frozen=True)
class Models:
    """Hold a grounder and a segmenter, and where they are from."""

    grounder: Grounder
    segmenter: Segmenter
    origin: Origin


def _quiet(_share: float, _text: str) -> None:
    """Report progress to nobody."""


class ModelStore:
    """Load each model once, at first use, and keep it while there is memory for it."""

    def __init__(self, weights: Weights, device: str, memory: float | None = None) -> None:
        """Take where weights come from, the device, and the GB that the models may take.

        "auto" as the device, and the memory if none is said, are settled at first use.
        """
        if memory is not None and not 0 < memory < math.inf:
            raise ValueError(f"The memory for models is {memory} GB; it must be a number above 0.")
        self.weights, self.device, self.memory = weights, device, memory
        self._shelf = Shelf()
        self._make_locks()
        if hasattr(os, "register_at_fork"):
            # ZeroGPU forks: what others hold at that moment would never be let go in the child.
            os.register_at_fork(after_in_child=self._make_locks)
        self._warm = False

    def _make_locks(self) -> None:
        self._lock, self._importing = threading.Lock(), threading.Lock()
        self._fetching = defaultdict[str, threading.Lock](threading.Lock)  # by repository

    def warm_up(self) -> None:
        """Import `LIBRARIES` in the background, once: while a visitor looks for a picture."""
        if not self._warm:
            self._warm = True
            threading.Thread(target=self._import_libraries).start()

    def _import_libraries(self) -> None:
        # Modules that import each other must not be imported by two threads at once.
        with self._importing:
            for name in LIBRARIES:
                import_module(name)

    def get(self, grounder: str, segmenter: str) -> Models:
        """Return the two models by their names in the menus, downloading and loading if needed.

        Raises:
            ValueError: If a name is not on its menu or the weights cannot be had.
        """
        return self.load(grounder, segmenter, *self.fetch(grounder, segmenter, _quiet))

    def fetch(self, grounder: str, segmenter: str, progress: Progress) -> tuple[Source, Source]:
        """Return the weights of two models, downloading them if needed, without loading them.

        Raises:
            ValueError: As `get`.
        """
        first = self._locate("grounder", grounder, progress)
        return first, self._locate("segmenter", segmenter, progress)

    def load(self, grounder: str, segmenter: str, first: Source, second: Source) -> Models:
        """Return the two models with weights of `fetch`; the hub is not asked.

        Raises:
            ValueError: If the weights are damaged.
        """
        models = self._load("grounder", grounder, first), self.load_segmenter(segmenter, second)
        return Models(*models, Origin(first, second, find_device(self.device)))

    def load_segmenter(self, name: str, source: Source) -> Segmenter:
        """Return a segmenter as `load` does."""
        return self._load("segmenter", name, source)

    def _load(self, role: str, name: str, source: Source) -> Any:
        entry = MENUS[role][name]
        self._import_libraries()
        key = entry.package, entry.module, source  # two adapters may read the same files
        # One lock for all: two people who want the same model must not load it twice.
        with self._lock:
            if (model := self._shelf.find(key)) is None:
                self._shelf.make_room(self.budget, int(entry.kept * file_bytes(source.folder)))
                model = self._read(entry, source, name)
                self._shelf.put(key, model)
                self._shelf.make_room(self.budget)  # the file may have been smaller than the model
            return model

    def _locate(self, role: str, name: str, progress: Progress) -> Source:
        entry = MENUS[role].get(name) if isinstance(name, str) else None  # of programs
        if entry is None:
            menu = ", ".join(MENUS[role])
            raise ValueError(f"There is no {role} {name!r}; choose one of {menu}.")
        self._import_libraries()  # what fetches imports from them, too
        fetching = self._fetching[entry.repo]
        if fetching.locked():
            progress(0.0, f"Waiting for the weights of {name}, which somebody else has asked for")
        # A download holds up only those who want the same model.
        with fetching:
            return self.weights.locate(entry.repo, entry.files, entry.module, progress)

    @property
    def budget(self) -> int:
        """Return how many bytes the models may take together."""
        if self.memory is None:
            return default_budget(find_device(self.device))
        return int(self.memory * GIGABYTE)

    def _read(self, entry: ModelEntry, source: Source, name: str) -> Any:
        device = find_device(self.device)
        try:
            return entry.load(source.folder, device)
        except Exception as error:  # on damaged files the libraries raise almost anything
            if out_of_memory(error) or disk_full(error):
                raise
            print(f"Cannot load {name} from {source.home}: {type(error).__name__}: {error}")
            raise ValueError(
                f"The weights of {name} ({source.name}) are damaged or incomplete. "
                f"{self.weights.remedy(source)}"
            ) from error
