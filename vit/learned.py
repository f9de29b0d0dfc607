"""What a trained ViT knows before it sees a picture: figure 7 of the ViT paper.

Dosovitskiy et al., ICLR 2021 (https://arxiv.org/abs/2010.11929), left and middle.
"""

import torch
from torch import Tensor

from vit.model import ConvStem, ViT
from vit.rollout import stretch

FILTERS = 28  # as many as the paper shows


@torch.no_grad()
def position_similarity(model: ViT) -> Tensor:
    """Return how alike the learned positions of the patches are.

    Returns:
        float (g, g, g, g): cosine similarity in [-1, 1] of the patch at the first two indices with
        the patch at the last two.
    """
    grid, prefix = model.config.grid_size, model.config.num_prefix_tokens
    places = torch.nn.functional.normalize(model.pos_embed[0, prefix:], dim=-1)
    return (places @ places.T).view(grid, grid, grid, grid)


@torch.no_grad()
def patch_filters(model: ViT) -> Tensor:
    """Return what the patch embedding looks for.

    Returns:
        float (n, 3, p, p), each stretched to [0, 1]: the first principal components of the
        embedding's filters, the most important first, but for those of which there is nothing; of a
        convolutional stem the first layer's filters themselves.
    """
    if isinstance(model.patch_embed, ConvStem):
        filters = model.patch_embed.convs[0].weight
    else:
        weights = model.patch_embed.proj.weight
        centred = weights.flatten(1) - weights.flatten(1).mean(dim=0)
        _, strengths, parts = torch.linalg.svd(centred, full_matrices=False)
        filters = parts[strengths >= 1e-5 * strengths[0]].view(-1, *weights.shape[1:])
    filters = filters[:FILTERS]
    return stretch(filters.flatten(2)).view(filters.shape)
