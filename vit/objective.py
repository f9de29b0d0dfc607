"""What a step makes smaller: the loss against the labels and, if there is one, the teacher."""

import torch.nn.functional as F
from torch import Tensor, nn

from vit.model import ViT


class Objective(nn.Module):
    """The loss as one module with the model, as DistributedDataParallel wants it."""

    def __init__(self, model: ViT, label_smoothing: float) -> None:
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing

    def forward(self, images: Tensor, targets: Tensor, taught: Tensor | None) -> Tensor:
        """Return the loss, summed over the batch.

        Args:
            images: Normalised images (B, 3, S, S), float.
            targets: float (B, K), rows sum to 1.
            taught: The teacher's logits (B, K), whose answers are half of the loss: its labels for
                the distillation token (DeiT: Touvron et al., ICML 2021, arXiv 2012.12877), or,
                where there is no such token, its probabilities (Hinton et al., arXiv 1503.02531).
        """
        if taught is None:
            return self._loss(self.model(images), targets)
        if self.model.config.distilled:
            logits, learner = self.model.forward_heads(images)
            wanted = taught.argmax(1)
        else:
            logits = learner = self.model(images)
            wanted = taught.softmax(1)
        distillation = F.cross_entropy(learner.float(), wanted, reduction="sum")
        return 0.5 * (self._loss(logits, targets) + distillation)

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(
            logits.float(), targets, label_smoothing=self.label_smoothing, reduction="sum"
        )
