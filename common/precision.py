"""The one owner of "is bfloat16 fast here?"."""

import torch


def has_units(device: str) -> bool:
    """Return whether a device has units for bfloat16; without them float32 is faster."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch multiplies bfloat16 on any CPU, one way or another.
    return device == "cpu" and torch.cpu._is_avx512_bf16_supported()


def fast(device: str) -> torch.autocast:
    """Return a context in which matrix products are in bfloat16 where that is fast.

    What comes out of it may be bfloat16, too.
    """
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_units(device))
