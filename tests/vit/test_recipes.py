import dataclasses
import json
import re

import pytest

from train_vit import SHIPPED
from vit.facts import read_facts
from vit.recipes import RECIPES, TrainConfig, build_model_config, rate_factor

COSINE, LINEAR = TrainConfig(), TrainConfig(schedule="linear", warmup=0.1)
CONSTANT = TrainConfig(schedule="constant", warmup=0.1)


@pytest.mark.parametrize(
    ("config", "step", "factor"),
    [
        (COSINE, 0, 1.0),  # no warm-up: the peak at once
        (COSINE, 50, 0.5),
        (COSINE, 100, 0.0),
        (COSINE, 25, 0.853553),
        (LINEAR, 0, 0.1),  # the first step already moves
        (LINEAR, 9, 1.0),
        (LINEAR, 10, 1.0),
        (LINEAR, 55, 0.5),
        (LINEAR, 100, 0.0),
        (CONSTANT, 4, 0.5),
        (CONSTANT, 99, 1.0),  # what another run starts from
    ],
)
def test_learning_rate(config: TrainConfig, step: int, factor: float) -> None:
    assert rate_factor(step, 100, config) == pytest.approx(factor, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; choose one of ('adam', 'adamw', 'muon')"),
        (
            {"schedule": "step"},
            "schedule is 'step'; choose one of ('cosine', 'linear', 'constant')",
        ),
        ({"augment": "rand"}, "augment is 'rand'; choose one of ('none', 'crop_flip', 'trivial')"),
        ({"lr": 0.0}, "lr is 0.0; it must be above 0"),
        ({"lr": float("inf")}, "lr is inf; it must be above 0 and finite"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it must be at least 0"),
        ({"weight_decay": float("nan")}, "weight_decay is nan; it must be at least 0"),
        ({"epochs": -1}, "epochs is -1; it must be above 0"),
        ({"accumulate": 0}, "accumulate is 0; it must be above 0"),
        ({"mixup": -0.1}, "mixup is -0.1; it must be 0 or from 0.01 to 100.0"),
        ({"mixup": 1e-3}, "mixup is 0.001; it must be 0 or from 0.01 to 100.0"),
        ({"mixup": float("inf")}, "mixup is inf; it must be 0 or from"),
        ({"sam_rho": -0.1}, "sam_rho is -0.1; it must be at least 0"),
        ({"holdout": -1}, "holdout is -1; it must be at least 0"),
        ({"train_images": -1}, "train_images is -1; it must be at least 0"),
        ({"cutmix": 1.5}, "cutmix is 1.5; it must be in [0, 1]"),
        ({"patch_dropout": 1.0}, "patch_dropout is 1.0; it must be in [0, 1)"),
        ({"ema_decay": -1.0}, "ema_decay is -1.0; it must be in [0, 1]"),
        ({"hint": -1.0, "teacher": "convnet:a"}, "hint is -1.0; it must be at least 0"),
        ({"seed": -1}, "seed is -1; it must be at least 0 and below 2147483648"),
        ({"seed": 2**31}, "seed is 2147483648; it must be"),
        # What does not go together.
        ({"hint": 3.0}, "hint is 3.0 and teacher ''; only one that begins with 'convnet:'"),
        ({"hint": 3.0, "teacher": "a"}, "teacher 'a'; only one that begins with 'convnet:' gives"),
        (
            {"hint": 3.0, "teacher": "convnet:a", "patch_dropout": 0.5},
            "patch_dropout is 0.5, and hint 3.0 needs all patches",
        ),
        # In plain epochs these do nothing.
        ({"plain_epochs": 100, "cutmix": 0.5}, "plain_epochs is 100 of 100 epochs, in none of wh"),
        ({"epochs": 3, "plain_epochs": 4, "augment": "trivial"}, "{'augment': 'trivial'} would"),
    ],
)
def test_impossible_recipes(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainConfig(**changes)


def test_the_reference_recipe_is_the_reference() -> None:
    config = RECIPES["reference"]
    assert (config.optimizer, config.lr, config.schedule) == ("adamw", 3e-4, "cosine")
    assert config.weight_decay == 0.01
    assert (config.batch_size, config.epochs, config.dropout) == (128, 100, 0.1)
    assert (config.augment, config.crop_padding, config.pool) == ("crop_flip", 4, "cls")
    off = ("warmup", "label_smoothing", "cutmix", "mixup", "random_erasing", "ema_decay")
    assert not any(getattr(config, name) for name in off)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_recipes_survive_json(recipe: TrainConfig) -> None:
    assert TrainConfig(**json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe


def test_the_shipped_weights_are_of_the_recipe_taught() -> None:
    recipe = read_facts(SHIPPED)["recipe"] | {"train_images": 0}  # it says how many those were
    assert recipe == dataclasses.asdict(RECIPES["taught"]) | {"lengthened": []}


def test_build_model_config() -> None:
    config = TrainConfig(dropout=0.2, drop_path=0.3, stem="conv", teacher="a.safetensors")
    model = build_model_config(config, num_classes=7, depth=2)
    assert (model.num_classes, model.depth) == (7, 2)
    assert (model.dropout, model.drop_path, model.stem) == (0.2, 0.3, "conv")
    assert model.distilled
    # The token stands beside the class token; other heads learn from a teacher themselves.
    assert not build_model_config(TrainConfig(pool="mean", teacher="a.safetensors")).distilled
