"""The processes of one run, as torchrun starts them; without torchrun there is only one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the processes of torchrun, if it started this one, and yield this one's device.

    nccl on CUDA, one device per process of a machine; gloo elsewhere.
    """
    if "LOCAL_RANK" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, from 0; number 0 alone writes, prints and tests."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """Return the sum of `values` over all processes; the same shape and type."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def wait_for_all() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def first_alone(load: Callable[[], T]) -> T:
    """Return `load()`; the others wait until process 0 has it, so that it alone downloads."""
    if rank() > 0:
        wait_for_all()
    loaded = load()
    if rank() == 0:
        wait_for_all()
    return loaded
