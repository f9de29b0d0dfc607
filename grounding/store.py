"""The store of models: what loads them, keeps them and puts them away."""

import math
import os
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from devices import find_device
from grounding.core import Grounder, Segmenter
from grounding.grounders import GROUNDERS
from grounding.memory import GIGABYTE, Shelf, default_budget, file_bytes
from grounding.menu import ModelEntry
from grounding.segmenters import SEGMENTERS
from grounding.weights import Origin, Progress, Source, Weights
from used_up import disk_full, out_of_memory

# What the models stand on, all of which takes seconds to import.
LIBRARIES = (
    "torchvision",
    "transformers.models.auto.processing_auto",
    "transformers.generation.utils",
    "hydra.utils",
    "sam2.sam2_image_predictor",
)


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
        first = self._load("grounder", GROUNDERS, grounder)
        second = self._load("segmenter", SEGMENTERS, segmenter)
        origin = Origin(first[1], second[1], find_device(self.device))
        return Models(first[0], second[0], origin)

    def get_segmenter(self, name: str) -> Segmenter:
        """Return a segmenter by its name in the menu, as `get` does."""
        return self._load("segmenter", SEGMENTERS, name)[0]

    def fetch(self, grounder: str, segmenter: str, progress: Progress) -> None:
        """Download the weights of two models if needed, without loading them.

        Raises:
            ValueError: As `get`.
        """
        self._locate("grounder", GROUNDERS, grounder, progress)
        self._locate("segmenter", SEGMENTERS, segmenter, progress)

    def _load(self, role: str, menu: Mapping[str, ModelEntry], name: str) -> tuple[Any, Source]:
        source, entry = self._locate(role, menu, name, _quiet), menu[name]
        # One lock for all: two people who want the same model must not load it twice.
        with self._lock:
            if (model := self._shelf.find(source)) is None:
                self._shelf.make_room(self.budget, int(entry.kept * file_bytes(source.folder)))
                model = self._read(entry, source, name)
                self._shelf.put(source, model)
                self._shelf.make_room(self.budget)  # the file may have been smaller than the model
            return model, source

    def _locate(
        self, role: str, menu: Mapping[str, ModelEntry], name: str, progress: Progress
    ) -> Source:
        if name not in menu:
            raise ValueError(f"There is no {role} {name!r}; choose one of {', '.join(menu)}.")
        entry = menu[name]
        self._import_libraries()  # what fetches and what loads imports from them
        # A download holds up only those who want the same model.
        with self._fetching[entry.repo]:
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
            return _with_words(entry.load(source.folder, device))
        except Exception as error:  # on damaged files the libraries raise almost anything
            if out_of_memory(error) or disk_full(error):
                raise
            print(f"Cannot load {name} from {source.folder}: {type(error).__name__}: {error}")
            raise ValueError(
                f"The weights of {name} ({source.name}) are damaged or incomplete. "
                "Delete them from the cache and try again, so that they are downloaded anew."
            ) from error


def _with_words(model: Any) -> Any:
    """Return a model whose tokenizer, if it has one of transformers, knows words.

    Raises:
        ValueError: If not; that is what transformers makes where the tokenizer's files are missing.
    """
    tokenizer = getattr(getattr(model, "processor", None), "tokenizer", None)
    if tokenizer is not None and len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError("the tokenizer has no words; its files are missing")
    return model
