"""An auxiliary task for the grounders: name and colour of what each cell of a feature map shows.

It teaches the vision tower in minutes what the phrases alone teach it in hours; its weight fades,
and the head is not part of the saved model.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grounding.demo.scenes import Scene
from grounding.demo.words import COLOURS, NAMES

_IGNORE = -100


def cell_labels(scenes: list[Scene], grid: int) -> tuple[Tensor, Tensor]:
    """Return names and colours per cell, two int64 (B, grid, grid).

    Label 0 is background. Cells of which objects cover more than a tenth, but none covers half, are
    ignored, and so is the colour of objects that have none.
    """
    names = np.zeros((len(scenes), grid, grid), np.int64)
    colours = np.zeros_like(names)
    for i, scene in enumerate(scenes):
        masks = torch.from_numpy(scene.masks).float()[None]
        cover = F.adaptive_avg_pool2d(masks, grid)[0].numpy()
        mixed = (cover.sum(axis=0) > 0.1) & (cover.max(axis=0) < 0.5)
        names[i][mixed] = colours[i][mixed] = _IGNORE
        for share, name, colour in zip(cover, scene.names, scene.colours, strict=True):
            names[i][share >= 0.5] = 1 + NAMES.index(name)
            colours[i][share >= 0.5] = 1 + COLOURS.index(colour) if colour else _IGNORE
    return torch.from_numpy(names), torch.from_numpy(colours)


class DenseHead(nn.Module):
    """Linear read-out of names and colours from a feature map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.names = nn.Linear(width, 1 + len(NAMES))
        self.colours = nn.Linear(width, 1 + len(COLOURS))

    def loss(self, features: Tensor, scenes: list[Scene]) -> Tensor:
        """Return the cross-entropy of features (B, grid, grid, width), objects counting more."""
        names, colours = cell_labels(scenes, features.shape[1])
        features = self.norm(features).flatten(0, 2)
        return self._balanced(self.names(features), names.flatten()) + self._balanced(
            self.colours(features), colours.flatten()
        )

    def _balanced(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses = F.cross_entropy(logits, labels, ignore_index=_IGNORE, reduction="none")
        objects, background = labels > 0, labels == 0
        return losses[objects].mean() + 0.5 * losses[background].mean()
