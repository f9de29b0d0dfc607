"""What a model has computed for the latest pictures, kept for the next prompt or click."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import torch

MAX_BYTES = 128 * 2**20
MAX_PICTURES = 32  # small results are soon too old to be asked for again

T = TypeVar("T")


def tensor_bytes(value: Any) -> int:
    """Return the size of all tensors in nested lists, tuples and mappings, in bytes.

    >>> tensor_bytes([torch.zeros(2, 3), {"a": (torch.zeros(1), None)}])
    28
    """
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(tensor_bytes, value.values()))
    return sum(map(tensor_bytes, value)) if isinstance(value, (list, tuple)) else 0


class Recent(Generic[T]):
    """Keep results by the content of pictures, so that nobody gets another's; for many threads."""

    def __init__(self, size: Callable[[T], int] = tensor_bytes, max_bytes: int = MAX_BYTES) -> None:
        """Take how large a result is, and how large all may be; the latest stays anyway."""
        self._size, self._max_bytes = size, max_bytes
        self._kept: OrderedDict[bytes, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, pixels: np.ndarray, make: Callable[[], T]) -> T:
        """Return the result for a picture of any shape and dtype, and make it if need be."""
        kind = f"{pixels.shape}{pixels.dtype}".encode()
        key = hashlib.sha256(kind + np.ascontiguousarray(pixels).tobytes()).digest()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_PICTURES or self._is_too_large():
                self._kept.popitem(last=False)
            return self._kept[key]

    def _is_too_large(self) -> bool:
        return len(self._kept) > 1 and self.nbytes > self._max_bytes

    @property
    def nbytes(self) -> int:
        """Return the size of what is kept, in bytes."""
        return sum(map(self._size, self._kept.values()))

    def __len__(self) -> int:
        return len(self._kept)
