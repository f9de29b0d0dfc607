import re

import pytest
import torch

from common.devices import find_device


def pretend(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"),
    [(0, False, "cpu"), (0, True, "mps"), (1, False, "cuda"), (2, True, "cuda")],
)
def test_the_fastest_there_is(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, best: str
) -> None:
    pretend(monkeypatch, cuda, mps)
    assert find_device("auto") == best


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "mps"])
def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pretend(monkeypatch, 2, True)
    assert find_device(name) == str(torch.device(name)) == name


def test_cuda_that_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the main process of a ZeroGPU Space torch says that there is CUDA, and no device."""
    pretend(monkeypatch, 0, False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto") == find_device("cuda") == "cuda"


@pytest.mark.parametrize(
    "name", ["cuda:2", "cuda:01", "cpu:0", "mps", "gpu", "", "cuda:", "cuda:-1", "auto:0"]
)
def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pretend(monkeypatch, 2, False)
    message = f"The device {name} is not on this machine; there is cuda, cpu."
    with pytest.raises(ValueError, match=re.escape(message)):
        find_device(name)
