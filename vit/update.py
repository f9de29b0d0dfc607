"""One optimiser step: augment a batch, compare the model's answers, change its weights.

To be read from `Update.__call__` (learning rates, seed) over `_step` (augmentation, at the end the
optimisers) and `_find_gradients` (once, with sharpness-aware minimisation twice) to `_backward`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vit.augment import augment
from vit.checkpoint import Preprocessing
from vit.data import Split, normalize, random_split, statistics
from vit.distributed import rank, total, world_size
from vit.graphed import Graphed, compiled
from vit.hints import Hints
from vit.kernels import attention_kernels
from vit.model import ViT
from vit.objective import Objective
from vit.optimizers import build_optimizers, scale_learning_rates
from vit.recipes import TrainConfig, in_bfloat16
from vit.sharpness import uphill
from vit.teacher import Answer

Part = tuple[Tensor, Tensor, Answer | None]
KNOWN = 256  # training pictures of all classes on which a teacher's features are measured


class Update:
    """Change the weights of a ViT by a batch, as a recipe says.

    Of several processes each takes its part of the batch. A process that has a GPU for itself
    runs the whole step as a CUDA graph of compiled kernels (`vit/graphed.py`).
    """

    def __init__(
        self,
        model: ViT,
        config: TrainConfig,
        split: Split,
        preprocessing: Preprocessing,
        teach: Callable[[Tensor], Answer] | None,
    ) -> None:
        """Build the optimisers and the loss.

        Args:
            model: In training mode.
            config: The recipe.
            split: The pictures, on the device of the model.
            preprocessing: How pictures are normalised.
            teach: Maps pictures to a teacher's answer; None for nobody.
        """
        self.model, self.config, self.split, self.teach = model, config, split, teach
        self.device = split.images.device
        self.bf16 = in_bfloat16(config, self.device)
        self.statistics = statistics(preprocessing, self.device)
        self.parts = world_size() * config.accumulate  # of a batch
        self.optimizers = build_optimizers(model, config)
        if self.device.type == "cuda":
            torch.compiler.reset()  # or it gives up after some trainers in one process
        self.objective: nn.Module = Objective(model, config.label_smoothing, self._build_hints())
        self.augment = augment
        self.steps = {plain: partial(self._step, plain=plain) for plain in (False, True)}
        if world_size() > 1:
            self.objective = DistributedDataParallel(self.objective)
        elif self.device.type == "cuda":
            self.objective, self.augment = compiled(self.objective), compiled(augment)
            self.steps = {plain: Graphed(step) for plain, step in self.steps.items()}

    def _build_hints(self) -> Hints | None:
        if not self.config.hint:
            return None
        known, _ = random_split(self.split, KNOWN)  # in an archive one class follows the other
        size = -(-self.config.batch_size // self.parts)
        with self._autocast():
            parts = [self.teach(images).maps for images in known.images.split(size)]
        maps = [torch.cat(part).float() for part in zip(*parts, strict=True)]
        return Hints(tuple(maps), self.model.config, self.config.hint)

    def __call__(self, chosen: Tensor, factor: float, seed: int, plain: bool) -> Tensor:
        """Take one step.

        Args:
            chosen: int64 (B,), which pictures of the split are the batch.
            factor: In [0, 1], on the peak learning rates.
            seed: Of augmentation and dropout, so that they do not depend on earlier steps.
            plain: Whether pictures are only cropped and flipped, and seen whole.

        Returns:
            The mean loss of the batch, a scalar tensor; with `sam_rho` that of the weights nearby.
        """
        torch.manual_seed(seed)
        scale_learning_rates(self.optimizers, factor)
        return self.steps[plain](chosen)

    def _step(self, chosen: Tensor, plain: bool) -> Tensor:
        self.model.patch_dropout.p = 0.0 if plain else self.config.patch_dropout
        labels = self.split.labels[chosen]
        images, targets = self.augment(
            self.split.images[chosen],
            F.one_hot(labels, self.model.config.num_classes).float(),
            self.config,
            plain=plain,
        )
        if rank() > 0:
            torch.manual_seed(torch.initial_seed() + 500_000_000 * rank())  # its own dropout
        loss = self._find_gradients(images, targets)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def _find_gradients(self, images: Tensor, targets: Tensor) -> Tensor:
        """Give the weights the gradients that the recipe asks for; return the mean loss."""
        parts = self._take_parts(images, targets)
        if not self.config.sam_rho:
            return self._backward(parts, len(images))
        parts = list(parts)  # for two passes; the teacher is asked once
        self._backward(parts, len(images))
        with uphill(self.model.parameters(), self.config.sam_rho):
            return self._backward(parts, len(images))

    def _take_parts(self, images: Tensor, targets: Tensor) -> Iterator[Part]:
        """Yield what this process learns of a batch, in parts, as `Objective` takes them."""
        first, last = rank() * self.config.accumulate, (rank() + 1) * self.config.accumulate
        pairs = zip(images.tensor_split(self.parts), targets.tensor_split(self.parts), strict=True)
        for part, part_targets in list(pairs)[first:last]:
            with self._autocast(), self._attention_kernels():
                taught = self.teach(part) if self.teach else None
            yield normalize(part, *self.statistics), part_targets, taught

    def _backward(self, parts: Iterable[Part], count: int) -> Tensor:
        """Give the weights the gradient of the mean loss of `count` pictures; return that loss."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, 1):
            with self._exchange(number == self.config.accumulate):
                with self._autocast(), self._attention_kernels():
                    part_loss = self.objective(*part) / count
                # Between processes gradients are averaged, and we want their sum.
                (part_loss * world_size()).backward()
            loss += part_loss.detach()
        return total(loss)

    def _exchange(self, now: bool) -> AbstractContextManager[None]:
        if now or not isinstance(self.objective, DistributedDataParallel):
            return nullcontext()
        return self.objective.no_sync()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def _attention_kernels(self) -> AbstractContextManager[None]:
        tokens = self.model.pos_embed.shape[1]
        return attention_kernels(tokens) if self.device.type == "cuda" else nullcontext()
