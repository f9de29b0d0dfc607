"""How much memory there is for models, how much each takes, and which of them stay in it."""

import gc
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

GIGABYTE = 10**9
SHARE = 0.5  # of all memory: pictures, results, the page and other programs need some, too
UNKNOWN = 8 * GIGABYTE  # where the machine does not say how much it has
# What a container may use: https://docs.kernel.org/admin-guide/cgroup-v2.html, and the same in v1.
CGROUPS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def default_budget(device: str) -> int:
    """Return how many bytes the models may take on a torch device: half of what there is."""
    if device.startswith("cuda"):
        import torch

        return int(SHARE * torch.cuda.get_device_properties(device).total_memory)
    limits = (path.read_text().strip() for path in CGROUPS if path.is_file())
    return int(SHARE * min([_physical(), *(int(limit) for limit in limits if limit.isdigit())]))


def _physical() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows, or a system that does not know
        return UNKNOWN


def model_bytes(model: Any) -> int:
    """Return what an adapter takes: its network, and the most that it keeps of recent pictures."""
    from torch import nn

    from grounding.recent import MAX_BYTES

    networks = [value for value in vars(model).values() if isinstance(value, nn.Module)]
    tensors = {id(t): t.nbytes for net in networks for t in (*net.parameters(), *net.buffers())}
    return sum(tensors.values()) + MAX_BYTES


def file_bytes(folder: Path) -> int:
    """Return about how large the model in a folder will be: its weights are the largest file."""
    return max((path.stat().st_size for path in folder.iterdir() if path.is_file()), default=0)


class Shelf:
    """Keep models within a budget: the least recently used go first, those in use stay.

    A model is in use while somebody else holds a reference to it. Callers see to it that only one
    thread at a time is here.
    """

    def __init__(self, size: Callable[[Any], int] = model_bytes) -> None:
        """Take how large a model is, in bytes."""
        self._size = size
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def find(self, key: Hashable) -> Any | None:
        """Return a model, which becomes the latest in use, or None if it is not here."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: Hashable, model: Any) -> None:
        """Keep a model."""
        self._kept[key] = model, self._size(model)

    def make_room(self, budget: int, needed: int = 0) -> None:
        """Let go of models until `needed` more bytes fit, as far as they are not in use."""
        for key in list(self._kept):
            if self.nbytes + needed <= budget:
                return
            model, size = self._kept[key]
            self._kept[key] = None, size  # nobody here holds it now, and its place is kept
            alive = weakref.ref(model)
            del model
            if (used := alive()) is not None:
                self._kept[key] = used, size
                continue
            del self._kept[key]
            gc.collect()  # some networks hold themselves in circles

    @property
    def nbytes(self) -> int:
        """Return the size of all models here, in bytes."""
        return sum(size for _, size in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)
