"""Begin a run with the weights of another one, which may have had other patches or classes.

A model with patches twice as wide has a quarter of the tokens and learns four times as fast. Its
blocks know nothing of the patch size, so they go on with smaller patches once the patch embedding
and the positions are resized: FlexiViT, Beyer et al., CVPR 2023 (https://arxiv.org/abs/2212.08013).
"""

from collections.abc import Sequence
from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor

from vit.checkpoint import Checkpoint
from vit.model import ViT

KEPT = ("embed_dim", "depth", "num_heads", "mlp_dim", "pool", "stem", "distilled")


def resize_patch_embed(weight: Tensor, patch_size: int) -> Tensor:
    """Resize a patch embedding so that it says the same of a resized patch.

    That is exact for a larger one, and the least squares for a smaller one.

    Args:
        weight: float (D, 3, p, p).
        patch_size: The new side, in pixels.

    Returns:
        float (D, 3, patch_size, patch_size): FlexiViT's pseudo-inverse for resizing by areas.
    """
    side = weight.shape[-1]
    pixels = torch.eye(side**2, dtype=torch.float64, device=weight.device)
    resize = F.interpolate(pixels.view(-1, 1, side, side), (patch_size, patch_size), mode="area")
    inverse = torch.linalg.pinv(resize.flatten(1).T)  # (p*p, patch_size**2)
    resized = weight.flatten(2).double() @ inverse
    return resized.to(weight.dtype).unflatten(2, (patch_size, patch_size))


def resize_positions(pos_embed: Tensor, prefix: int, grid_size: int) -> Tensor:
    """Resize positions (1, prefix + g*g, D) to (1, prefix + grid_size**2, D); the prefix stays."""
    first, patches = pos_embed[:, :prefix], pos_embed[:, prefix:]
    side = int(patches.shape[1] ** 0.5)
    grid = patches.transpose(1, 2).unflatten(2, (side, side))  # (1, D, g, g)
    grid = F.interpolate(grid, size=(grid_size, grid_size), mode="bilinear")
    return torch.cat((first, grid.flatten(2).transpose(1, 2)), dim=1)


def start_from(model: ViT, checkpoint: Checkpoint, classes: Sequence[str]) -> None:
    """Give `model` the weights of `checkpoint`; a head of other classes stays as it is.

    Raises:
        ValueError: If the architectures differ in more than patches, image size and classes.
    """
    old, new = asdict(checkpoint.model.config), asdict(model.config)
    fields = KEPT if new["stem"] == "patch" else (*KEPT, "patch_size")
    if different := {name: old[name] for name in fields if old[name] != new[name]}:
        raise ValueError(
            f"start is of a model with {different}; this one has "
            f"{ {name: new[name] for name in different} }, and they must be the same"
        )
    tensors = checkpoint.model.state_dict()
    prefix, grid_size = model.config.num_prefix_tokens, model.config.grid_size
    tensors["pos_embed"] = resize_positions(tensors["pos_embed"], prefix, grid_size)
    if new["stem"] == "patch":
        name = "patch_embed.proj.weight"
        tensors[name] = resize_patch_embed(tensors[name], model.config.patch_size)
    if tuple(classes) != checkpoint.classes:
        own = model.state_dict()
        tensors |= {name: own[name] for name in tensors if "head." in name}
    model.load_state_dict(tensors)
