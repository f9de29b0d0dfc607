"""Does a map matter? Deletion and insertion of the patches it calls important.

Petsiuk, Das and Saenko, "RISE" (BMVC 2018, https://arxiv.org/abs/1806.07421): patches are replaced
by a plain colour, which is the mean of CIFAR-10, the most important first (deletion), or put back
on a blurred picture (insertion), and the probability of a class is watched. A good map has a small
area under the first curve and a large one under the second.

What a map has to beat is chance: random orders, and the map itself at other places of the picture.
The latter are as smooth as it is; scattered patches alone are easily beaten by any smooth map, even
that of another picture.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 10  # pictures along a curve, at most one per patch
CONTROLS = 4  # of each kind
MARGIN = 0.005  # of an area: what is less cannot be seen in the table
ORDERS = ("this map", "moved", "random", "reversed")
Classify = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Curves:
    """Hold probabilities in [0, 1], float (4, steps + 1), a row per name in `ORDERS`.

    Attributes:
        shares: float (steps + 1,), share of the patches replaced or put back, from 0 to 1.
        deletion: Patches replaced, the most important first.
        insertion: Patches put back, the most important first.
        chance: float (2, n), areas under deletion and insertion of each moved map and random order.
    """

    shares: Tensor
    deletion: Tensor
    insertion: Tensor
    chance: Tensor


def area(shares: Tensor, curve: Tensor) -> Tensor:
    """Return the area under curves (..., n) over shares (n,), by trapezoids.

    >>> area(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.5, 0.0]))
    tensor(0.5000)
    """
    return torch.trapezoid(curve, shares, dim=-1)


def _counts(patches: int) -> Tensor:
    """Return how many patches are replaced in every picture, from 0 to all."""
    return torch.linspace(0, patches, min(STEPS, patches) + 1).round()


def masks(order: Tensor, grid: int, side: int) -> Tensor:
    """Return which pixels belong to the first patches of an order.

    Args:
        order: int (g * g,), all patches, the most important first.
        grid: Number g of patches along one side.
        side: Of the picture, in pixels; a multiple of g.

    Returns:
        bool (steps + 1, 1, side, side), from no patch to all.
    """
    chosen = order.argsort() < _counts(len(order))[:, None]
    pixels = chosen.view(-1, 1, grid, grid)
    return pixels.repeat_interleave(side // grid, 2).repeat_interleave(side // grid, 3)


def blur(x: Tensor) -> Tensor:
    """Blur pictures (B, 3, S, S) until only colours are left: an average over half the side."""
    reach = x.shape[-1] // 4
    padded = F.pad(x, [reach] * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * reach + 1, stride=1)


def measure(x: Tensor, heat: Tensor, classify: Classify, label: int) -> Curves:
    """Delete and insert the patches of one picture in the order of a map, and in others.

    Args:
        x: The model's input, float (1, 3, S, S), in which 0 is the mean colour.
        heat: float (g, g), the map, g at least 2; ties count in reading order.
        classify: Turns inputs (B, 3, S, S) into probabilities (B, K).
        label: Index of the class to watch.

    Returns:
        The curves; the rows "moved" and "random" are means of orders that are always the same.
    """
    best, *moved = map(_order, (heat, *_elsewhere(heat)))
    generator = torch.Generator().manual_seed(0)
    randoms = [torch.randperm(len(best), generator=generator) for _ in range(CONTROLS)]
    orders = (best, *moved, *randoms, best.flip(0))
    chosen = torch.cat([masks(order, len(heat), x.shape[-1]) for order in orders])
    pictures = torch.cat((torch.where(chosen, 0.0, x), torch.where(chosen, x, blur(x))))
    # Every order begins and ends alike.
    different, place = pictures.unique(dim=0, return_inverse=True)
    curves = classify(different)[place, label].view(2, len(orders), -1)
    kinds = curves.split((1, len(moved), len(randoms), 1), dim=1)
    deletion, insertion = torch.stack([kind.mean(dim=1) for kind in kinds], dim=1)
    shares = _counts(len(best)) / len(best)
    return Curves(shares, deletion, insertion, area(shares, curves[:, 1:-1]))


def _order(heat: Tensor) -> Tensor:
    return heat.flatten().argsort(descending=True, stable=True)


def _elsewhere(heat: Tensor) -> list[Tensor]:
    """Move a map, in both directions by a quarter at least, and let it come in from the other side.

    (A smooth map is like itself a patch away.)
    """
    least = max(1, len(heat) // 4)
    shifts = list(product(range(least, len(heat) - least + 1), repeat=2))
    chosen = torch.randperm(len(shifts), generator=torch.Generator().manual_seed(0))[:CONTROLS]
    return [heat.roll(shifts[number], (0, 1)) for number in chosen.tolist()]


def verdict(curves: Curves, label: str) -> str:
    """Say in one sentence whether the map knows what matters for the class `label`.

    It has to be better than each other order: half of all maps without meaning beat their mean.
    """
    falls = bool(area(curves.shares, curves.deletion[0]) < curves.chance[0].min() - MARGIN)
    rises = bool(area(curves.shares, curves.insertion[0]) > curves.chance[1].max() + MARGIN)
    if falls and rises:
        return f"The map is better than chance both ways: it finds what matters for {label}."
    if falls or rises:
        return f"The map is better than chance one way only: read it for {label} with care."
    return f"The map is no better than chance: it does not show what matters for {label}."
