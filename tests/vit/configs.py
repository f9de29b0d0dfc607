"""Recipes for a dozen pictures."""

import dataclasses

from vit.recipes import TrainConfig

ADAM = TrainConfig(optimizer="adam", batch_size=4, epochs=3, crop_padding=1, lr=3e-3)
ADAMW = dataclasses.replace(ADAM, optimizer="adamw")
MUON = dataclasses.replace(ADAMW, optimizer="muon", schedule="linear", warmup=0.2, precision="bf16")
EVERYTHING = dataclasses.replace(
    MUON,
    augment="trivial",
    cutmix=0.5,
    mixup=0.2,
    random_erasing=0.25,
    plain_epochs=1,
    sam_rho=0.05,
    label_smoothing=0.1,
    drop_path=0.2,
    patch_dropout=0.5,
    ema_decay=0.9,
    pool="mean",
    accumulate=2,
    holdout=1,
)
