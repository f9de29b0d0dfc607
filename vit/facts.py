"""What a checkpoint says of itself, read without torch, so that the page is up before."""

import json
import math
from pathlib import Path
from typing import Any

LIMIT = 10_000_000  # bytes; no header of ours is nearly as long
FACTS = ("config", "classes", "recipe", "metrics")


def read_facts(path: Path) -> dict[str, Any] | None:
    """Return what a checkpoint of `train_vit.py` says of itself, or None if it is none.

    A safetensors file starts with the length of its header, 8 bytes, then the header in JSON
    (https://huggingface.co/docs/safetensors).

    Returns:
        "config", "classes", "recipe" and "metrics" as in `vit.checkpoint.Checkpoint`, and the
        number of "parameters".
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, LIMIT)))
        facts = {key: json.loads(header["__metadata__"][key]) for key in FACTS}
        sizes = [math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__"]
        return facts | {"parameters": sum(sizes)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def find_checkpoints(shipped: Path, folder: Path | None = None) -> dict[str, Path]:
    """Return the checkpoints to choose from, by the names they have on the page.

    Args:
        shipped: Folder whose `vit-*.safetensors` come first.
        folder: Every checkpoint of `train_vit.py` below it follows.

    Raises:
        ValueError: If `folder` is no folder.
    """
    found = {path.stem: path for path in sorted(shipped.glob("vit-*.safetensors"))}
    if folder:
        if not folder.is_dir():
            raise ValueError(f"--checkpoints is {folder}; it must be a folder")
        root = folder.resolve()
        found |= {
            path.relative_to(root.parent).with_suffix("").as_posix(): path
            for path in sorted(root.rglob("*.safetensors"))
        }
    return {name: path for name, path in found.items() if read_facts(path)}
