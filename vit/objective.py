"""What a step makes smaller: the loss against the labels and, if there is one, the teacher."""

import torch.nn.functional as F
from torch import Tensor, nn

from vit.hints import Hints
from vit.model import ViT
from vit.teacher import Answer


class Objective(nn.Module):
    """The loss as one module with the model, as DistributedDataParallel wants it."""

    def __init__(self, model: ViT, label_smoothing: float, hints: Hints | None = None) -> None:
        super().__init__()
        self.model, self.label_smoothing, self.hints = model, label_smoothing, hints

    def forward(self, images: Tensor, targets: Tensor, taught: Answer | None) -> Tensor:
        """Return the loss, summed over the batch.

        Args:
            images: Normalised images (B, 3, S, S), float.
            targets: float (B, K), rows sum to 1.
            taught: The teacher's answer, which is half of the loss: its labels for the distillation
                token (DeiT: Touvron et al., ICML 2021, arXiv 2012.12877), or, where there is no
                such token, its probabilities (Hinton et al., arXiv 1503.02531). Hints come on top.
        """
        if taught is None:
            return self._loss(self.model(images), targets)
        logits, learner, tokens = self.model.forward_to_learn(images)
        said = taught.logits
        wanted = said.argmax(1) if self.model.config.distilled else said.softmax(1)
        distillation = F.cross_entropy(learner.float(), wanted, reduction="sum")
        loss = 0.5 * (self._loss(logits, targets) + distillation)
        return loss + self.hints(tokens, taught.maps) if self.hints else loss

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(
            logits.float(), targets, label_smoothing=self.label_smoothing, reduction="sum"
        )
