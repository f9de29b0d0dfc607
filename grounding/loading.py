"""Read models of transformers whole, or not at all; make no random weights for nothing."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_RANDOM = {Tensor.normal_, Tensor.uniform_, Tensor.erfinv_}


class NoInit(TorchFunctionMode):
    """Leave new weights as they lie in memory.

    Unlike with the device "meta", what a model computes for itself, as its positions, is there.

    >>> from torch import nn
    >>> with NoInit():
    ...     model = nn.Linear(2, 3)
    >>> _ = model.load_state_dict(nn.Linear(2, 3).state_dict(), assign=True)
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call any function of torch but those that fill a tensor with random numbers."""
        given = kwargs or {}
        if func in _RANDOM or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def read_pretrained(kind: Any, folder: Path) -> Any:
    """Return a model of one of transformers' classes, in eval mode, in float32.

    Raises:
        ValueError: If a weight is not in the file: transformers would make it up and only warn.
    """
    model, found = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{len(missing)} weights are not in the file, {missing[0]} among them")
    return model.eval()


def read_processor(folder: Path) -> Any:
    """Return the processor of a model: what makes numbers of its pictures and words.

    Raises:
        ValueError: If its tokenizer knows no words; transformers makes such a one where the
            tokenizer's files are missing.
    """
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    if len(processor.tokenizer) <= len(processor.tokenizer.all_special_ids):
        raise ValueError("the tokenizer has no words; its files are missing")
    return processor
