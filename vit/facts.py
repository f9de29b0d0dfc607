"""What a checkpoint says of itself, read without torch, so that the page is up before."""

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

FACTS = ("config", "classes", "recipe", "metrics")


def read_facts(path: Path) -> dict[str, Any] | None:
    """Return what a checkpoint of `train_vit.py` says of itself, or None if it is none.

    Returns:
        "config", "classes", "recipe" and "metrics" as in `vit.checkpoint.Checkpoint`, and the
        number of "parameters".
    """
    try:
        with safe_open(path, "np") as file:
            facts = {key: json.loads(file.metadata()[key]) for key in FACTS}
            sizes = [math.prod(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118
        return facts | {"parameters": sum(sizes)}
    # TypeError: it has no metadata.
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
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
