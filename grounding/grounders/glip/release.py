"""The released checkpoint: a pickle of 3.7 GB, of which the weights are copied once to safetensors.

Most of the file is the state of the optimiser. It is mapped into memory, never read as a whole, and
no code in it is run. The copy lies in the cache of the Hugging Face hub's client.
"""

import builtins
import collections
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

_HARMLESS = {
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{("builtins", name): getattr(builtins, name) for name in ("set", "list", "dict", "tuple")},
}


class _Nothing(dict[Any, Any]):
    """Stand in for any object of a class that is not needed, whatever it is given."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "_Nothing":
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, _state: Any) -> None:
        pass

    def append(self, _item: Any) -> None:
        """Forget an item."""

    extend = append


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _HARMLESS.get((module, name), _Nothing)


def read_released(path: Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint of the official code, under their names there.

    Args:
        path: A `.pth` file, {"model": {name: tensor}, ...}. What else is in it is not read.

    Raises:
        ValueError: If it is damaged or something else.
    """
    try:
        saved = _load(path)
        weights = saved["model"]
        if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
            raise TypeError("its 'model' holds no tensors")
    except (OSError, EOFError, pickle.PickleError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged or no checkpoint of GLIP ({error or type(error).__name__}). "
            "Get it anew."
        ) from error
    parallel = all(name.startswith("module.") for name in weights)
    return {name.removeprefix("module.") if parallel else name: t for name, t in weights.items()}


def _load(path: Path) -> dict[str, Any]:
    in_place = zipfile.is_zipfile(path)  # what torch before 1.6 wrote cannot be mapped
    try:
        return torch.load(path, map_location="cpu", mmap=in_place, weights_only=True)
    except pickle.UnpicklingError:
        # The optimiser's part may name classes that torch does not trust; they are not needed.
        module = SimpleNamespace(Unpickler=_Unpickler, load=_load_nothing, __name__=__name__)
        return torch.load(
            path, map_location="cpu", mmap=in_place, weights_only=False, pickle_module=module
        )


def _load_nothing(*_args: Any, **_kwargs: Any) -> None:
    raise pickle.UnpicklingError("the file is older than torch 1.6")


def read_converted(path: Path) -> dict[str, Tensor]:
    """Return the weights of a released checkpoint from its safetensors copy, made if need be.

    Where no copy can be written, they come from the checkpoint each time, which takes longer.

    Raises:
        ValueError: If the checkpoint is damaged.
    """
    try:
        return _read_copy(path)
    except (OSError, SafetensorError) as error:
        print(f"No copy of {path} could be written, so that loading stays slow: {error}")
        return read_released(path)


def _read_copy(path: Path) -> dict[str, Tensor]:
    copy = converted_path(path)
    if copy.exists():
        try:
            return load_file(copy)
        except SafetensorError:
            copy.unlink()  # damaged on the disk: made anew
    partial = copy.with_suffix(".partial")
    try:
        weights = {name: tensor.contiguous() for name, tensor in read_released(path).items()}
        save_file(weights, partial)
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)
    return load_file(copy)


def converted_path(path: Path) -> Path:
    """Return where the copy of a checkpoint lies; another file or version has another place."""
    from huggingface_hub import cached_assets_path

    state = path.stat()
    folder = cached_assets_path("glip", namespace="weights")
    return folder / f"{path.stem}-{state.st_size}-{state.st_mtime_ns}.safetensors"
