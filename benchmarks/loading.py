"""Loading models of real size from disk: ours against torch.load and load_state_dict.

    python benchmarks/loading.py [--rounds 3]

plain  the model's class with its fresh random weights, then `load_state_dict(torch.load(file))`
ours   `load(folder, device)`: the file is mapped into memory and no random weights are made; the
       tokenizer and the processor are loaded as well

The files are random weights in the official layouts in a temporary folder, 1.5 GB for both sides;
the sides take turns, and the files are in the system's cache for both.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import real_size as real
import torch

from grounding.grounders import GROUNDERS
from grounding.segmenters import SEGMENTERS

# Name in the menus, and how the plain side builds the model.
MODELS: dict[str, Callable[[], Any]] = {
    "GroundingDINO tiny": lambda: real.stock_grounding_dino()[0],
    "CLIPSeg": lambda: real.stock_clipseg()[0],
    "SAM 2.1 tiny": real.stock_sam2,
}
OFFICIAL = "sam2.1_hiera_tiny.pt"


def save(name: str, folder: Path) -> None:
    """Write random weights: for ours in the official layout, for the plain side with torch.save."""
    if name in SEGMENTERS:
        torch.save({"model": real.stock_sam2().state_dict()}, folder / OFFICIAL)
        return
    stock = {"CLIPSeg": real.stock_clipseg, "GroundingDINO tiny": real.stock_grounding_dino}[name]
    model, processor = stock()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    torch.save({"model": model.state_dict()}, folder / "plain.bin")


def plain(name: str, folder: Path, _turn: int) -> None:
    file = folder / (OFFICIAL if name in SEGMENTERS else "plain.bin")
    model = MODELS[name]()
    model.load_state_dict(torch.load(file, weights_only=True)["model"])


def ours(name: str, folder: Path, _turn: int) -> None:
    (SEGMENTERS | GROUNDERS)[name].load(folder, "cpu")


def main() -> None:
    rounds = real.read_rounds(__doc__, 3)
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            save(name, Path(folder))
            sides = {"plain": plain, "ours": ours}
            calls = {side: partial(call, name, Path(folder)) for side, call in sides.items()}
            seconds = real.medians(calls, rounds)
        print(
            f"{name:20} plain {seconds['plain']:6.2f} s   ours {seconds['ours']:6.2f} s   "
            f"ratio {seconds['plain'] / seconds['ours']:5.2f}"
        )


if __name__ == "__main__":
    main()
