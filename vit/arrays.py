"""What the ViT tab shows, as arrays in one NPZ file."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vit.view import Look, Settings, heat_map


def save_arrays(look: Look, shown: Sequence[Settings], folder: Path) -> Path:
    """Write the arrays behind an answer and its maps; `numpy.load` reads them without pickle.

    Args:
        look: The answer.
        shown: The settings of every map on the page.
        folder: Where to write.

    Returns:
        Path of `vit.npz` with `attentions` float32 (L, h, N, N), `maps` float32 (M, g, g),
        `probabilities` float32 (K,), `classes` str (K,), `seen` uint8 (S, S, 3), `box` int (4,):
        left, top, right, bottom of what was seen in the picture, and `settings`, JSON with a list
        of M.
    """
    prediction = look.prediction
    arrays = {
        "attentions": prediction.attentions[:, 0].numpy(),
        "maps": np.stack([heat_map(look, settings).numpy() for settings in shown]),
        "probabilities": np.asarray(list(prediction.probabilities.values()), np.float32),
        "classes": np.asarray(list(prediction.probabilities)),
        "seen": np.asarray(prediction.seen),
        "box": np.asarray(prediction.box),
        "settings": np.asarray(json.dumps([asdict(settings) for settings in shown])),
    }
    path = folder / "vit.npz"
    np.savez_compressed(path, **arrays)
    return path
