"""What a checkpoint says of itself, read without torch, so that the page is up before."""

import json
from pathlib import Path
from typing import Any

LIMIT = 10_000_000  # bytes; no header of ours is nearly as long
FACTS = ("config", "classes", "recipe", "metrics")


def read_facts(path: Path) -> dict[str, Any] | None:
    """Return what a checkpoint of `train_vit.py` says of itself, or None if it is none.

    A safetensors file starts with the length of its header, 8 bytes, then the header in JSON
    (https://huggingface.co/docs/safetensors).

    Returns:
        "config", "classes", "recipe" and "metrics" as in `vit.checkpoint.Checkpoint`.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, LIMIT)))
        return {key: json.loads(header["__metadata__"][key]) for key in FACTS}
    except (OSError, ValueError, KeyError, TypeError):
        return None
