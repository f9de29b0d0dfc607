"""The one owner of "which devices are there?"."""

import re

DEVICES = "auto, cpu, cuda, cuda:1 or mps"


def find_device(name: str) -> str:
    """Return the torch device of one of the DEVICES; "auto" is the fastest there is.

    Raises:
        ValueError: If there is no such device on this machine.
    """
    import torch  # not at once: the page is up before torch is imported

    # ZeroGPU says that there is CUDA before there is a device.
    cuda = max(1, torch.cuda.device_count()) if torch.cuda.is_available() else 0
    count = {"cuda": cuda, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    there = [kind for kind, number in count.items() if number]
    if name == "auto":
        return there[0]
    found = re.fullmatch(r"cpu|mps|cuda(?::(0|[1-9]\d*))?", name)
    if not found or int(found[1] or 0) >= count[name.partition(":")[0]]:
        raise ValueError(f"The device {name} is not on this machine; there is {', '.join(there)}.")
    return name
