"""Recipes: what one training run has other than another, as frozen tables, and their schedules.

What all have alike is where it is used: the betas in `vit/optimizers.py`, the momentum in
`vit/muon.py`.
"""

import math
from dataclasses import dataclass, replace

import torch

from common.precision import has_units
from vit.model import ViTConfig

MIXUPS = (0.01, 100.0)  # beyond, float32 draws only halves


@dataclass(frozen=True)
class TrainConfig:
    """Hold a recipe; the defaults are the reference one.

    Attributes:
        optimizer: "adam", "adamw", or "muon" for the blocks' matrices with AdamW for the rest.
        lr: Peak learning rate of Adam or AdamW.
        muon_lr: Peak learning rate of Muon; used with "muon" only.
        weight_decay: Weight decay of the blocks' matrices; decoupled, but for "adam" part of the
            gradient.
        schedule: "cosine" or "linear": the way from the peak down to 0, step by step; "constant"
            stays at the peak, for weights that another run starts from.
        warmup: Share of all steps in which the learning rate rises from 0.
        batch_size: Images a step, over all processes.
        accumulate: Parts in which a process takes its share of a batch, to need less memory.
        epochs: Passes over the training images, but for those that do not fill a last batch, others
            each time.
        dropout: Dropout probability of the model.
        drop_path: Probability of skipping a branch (attention, MLP) of the last block for an image;
            less in earlier blocks.
        patch_dropout: Share of the patches that an image is trained without, which saves time.
        pool: What the head reads: "cls" token, "mean" of the patches, or "seq" (learned weights).
        stem: "patch" for linear patches, "conv" for convolutions.
        label_smoothing: Share of the target spread over all classes.
        augment: "none", "crop_flip", or "trivial" for crop, flip and TrivialAugment.
        crop_padding: Largest shift of the random crop, in pixels.
        cutmix: Share of the images that get a rectangle of another one.
        mixup: Alpha of the Beta distribution that blends images, within `MIXUPS`; 0 switches it
            off.
        random_erasing: Share of the images in which a rectangle becomes noise.
        plain_epochs: Number of last epochs with whole pictures that are only cropped and flipped.
        sam_rho: How far away sharpness-aware minimisation looks for worse weights, which takes
            twice the time (`vit/sharpness.py`); 0 is off.
        ema_decay: Decay of the running mean of the weights, which is what is kept; 0 is off.
        start: Checkpoint whose weights the run begins with (`vit/start.py`); empty for random ones.
        teacher: Whose answers are half of the loss, as `vit/teacher.py` says; empty for nobody.
            With the class token a distillation token learns them, else the head.
        hint: Weight of what the teacher sees in the places of the patches (`vit/hints.py`); above 0
            with a "convnet:" teacher only.
        holdout: Training images that are kept apart and tested on instead of the test set; what
            files then call `test_accuracy` is theirs.
        train_images: How many of the training images are used at most, always the same; 0 for all.
        precision: "fp32", or "bf16" for the matrix products and the tokens between them where the
            device has units for that (weights and moments stay float32).
        test_every: Epochs between two test passes, after which the model is written; the last epoch
            is always tested.
        seed: Seed of everything random.
    """

    optimizer: str = "adamw"
    lr: float = 3e-4
    muon_lr: float = 0.02
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup: float = 0.0
    batch_size: int = 128
    accumulate: int = 1
    epochs: int = 100
    dropout: float = 0.1
    drop_path: float = 0.0
    patch_dropout: float = 0.0
    pool: str = "cls"
    stem: str = "patch"
    label_smoothing: float = 0.0
    augment: str = "crop_flip"
    crop_padding: int = 4
    cutmix: float = 0.0
    mixup: float = 0.0
    random_erasing: float = 0.0
    plain_epochs: int = 0
    sam_rho: float = 0.0
    ema_decay: float = 0.0
    start: str = ""
    teacher: str = ""
    hint: float = 0.0
    holdout: int = 0
    train_images: int = 0
    precision: str = "fp32"
    test_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {allowed}")
        for name in ("lr", "muon_lr", "batch_size", "accumulate", "epochs", "test_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0 and finite")
        for name in (
            "weight_decay",
            "crop_padding",
            "plain_epochs",
            "sam_rho",
            "hint",
            "holdout",
            "train_images",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be at least 0 and finite"
                )
        low, high = MIXUPS
        if self.mixup and not low <= self.mixup <= high:
            raise ValueError(f"mixup is {self.mixup}; it must be 0 or from {low} to {high}")
        if not 0 <= self.patch_dropout < 1:
            raise ValueError(f"patch_dropout is {self.patch_dropout}; it must be in [0, 1)")
        for name in ("warmup", "label_smoothing", "cutmix", "random_erasing", "ema_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed is {self.seed}; it must be at least 0 and below {2**31}")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.plain_epochs >= self.epochs and (strong := self._not_plain()):
            raise ValueError(
                f"plain_epochs is {self.plain_epochs} of {self.epochs} epochs, in none of which "
                f"{strong} would count; it must be below"
            )
        if self.hint and not self.teacher.startswith("convnet:"):
            raise ValueError(
                f"hint is {self.hint} and teacher {self.teacher!r}; only one that begins with "
                "'convnet:' gives hints"
            )
        if self.hint and self.patch_dropout:
            raise ValueError(
                f"patch_dropout is {self.patch_dropout}, and hint {self.hint} needs all patches; "
                "one of them must be 0"
            )

    @property
    def models(self) -> dict[str, str]:
        """Return the models that a run stands on, by what they are to it."""
        models = {"start": self.start, "teacher": self.teacher}
        return {role: name for role, name in models.items() if name}

    @property
    def accuracy_name(self) -> str:
        """Return what the accuracy of a run is measured on, in words."""
        return "held-out accuracy" if self.holdout else "test accuracy"

    def _not_plain(self) -> dict[str, object]:
        """Return what plain epochs leave out."""
        strong = {"augment": self.augment} if self.augment == "trivial" else {}
        names = ("cutmix", "mixup", "random_erasing", "patch_dropout")
        return strong | {name: getattr(self, name) for name in names if getattr(self, name)}


CHOICES = {
    "optimizer": ("adam", "adamw", "muon"),
    "schedule": ("cosine", "linear", "constant"),
    "augment": ("none", "crop_flip", "trivial"),
    "precision": ("fp32", "bf16"),
}
# What all recipes of our own have in common.
_MUON = TrainConfig(
    optimizer="muon",
    lr=2e-3,
    weight_decay=0.05,
    schedule="linear",
    dropout=0.0,
    pool="mean",
    cutmix=0.5,
    precision="bf16",
)
_BEST = replace(
    _MUON,
    lr=1e-3,
    muon_lr=0.003,
    warmup=0.05,
    augment="trivial",
    plain_epochs=10,
    test_every=5,
)
RECIPES = {
    "reference": TrainConfig(),
    # The most from 100 epochs at the sizes of the reference, without a teacher.
    "best": _BEST,
    # The most with a teacher, which `python -m vit.convnet` trains before.
    "taught": replace(
        _BEST, muon_lr=0.006, sam_rho=0.1, teacher="convnet:runs/teacher.safetensors", hint=3.0
    ),
    # For some hours on a CPU, in two stages. First with --patch-size 8: a quarter of the tokens.
    "coarse": replace(
        _MUON,
        label_smoothing=0.1,
        schedule="constant",
        warmup=0.02,
        batch_size=256,
        epochs=30,
        ema_decay=0.999,
        test_every=5,
    ),
    # Then with --start and the weights of the first.
    "fine": replace(_MUON, label_smoothing=0.1, warmup=0.02, epochs=12, plain_epochs=3),
}


def rate_factor(step: int, steps: int, config: TrainConfig) -> float:
    """Return the factor in [0, 1] on the peak learning rate at `step` of `steps`.

    >>> [round(rate_factor(step, 100, TrainConfig(warmup=0.1)), 2) for step in (0, 9, 10, 55)]
    [0.1, 1.0, 1.0, 0.5]
    """
    warmup = int(config.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "linear":
        return 1 - progress
    return 0.5 * (1 + math.cos(math.pi * progress))


def in_bfloat16(config: TrainConfig, device: torch.device) -> bool:
    """Return whether the matrix products of a recipe are in bfloat16 on a device."""
    return config.precision == "bf16" and has_units(str(device))


def build_model_config(config: TrainConfig, **sizes: int) -> ViTConfig:
    """Return the model that a recipe trains; `sizes` are the other fields of ViTConfig.

    Raises:
        ValueError: If a size is not allowed, or there would be crops without any of the picture.
    """
    model = ViTConfig(
        dropout=config.dropout,
        drop_path=config.drop_path,
        pool=config.pool,
        stem=config.stem,
        distilled=bool(config.teacher) and config.pool == "cls",
        **sizes,
    )
    if config.augment != "none" and config.crop_padding >= model.image_size:
        raise ValueError(
            f"crop_padding is {config.crop_padding}; it must be below the image size, "
            f"{model.image_size}"
        )
    return model
