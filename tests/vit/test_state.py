import copy
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vit.checkpoint import save_tensors
from vit.model import ViT, ViTConfig
from vit.optimizers import build_optimizers
from vit.recipes import TrainConfig
from vit.state import check_run, pack, read_run, unpack

PATH = Path("run/state.safetensors")
CONFIG = TrainConfig(epochs=3, lr=3e-3)
MODEL = ViTConfig()
SOURCES = {"training pictures": "1f", "teacher": ""}


def facts(**without: str) -> dict[str, Any]:
    """Return the metadata of a run of CONFIG and MODEL, as from before the fields `without`."""
    found = {
        "train_config": dataclasses.asdict(CONFIG),
        "config": dataclasses.asdict(MODEL),
        "sources": SOURCES,
    }
    for kind, field in without.items():
        del found[kind][field]
    return found


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_unpacked_is_what_was_packed(make_model: Callable[..., ViT], optimizer: str) -> None:
    """Weights and moments after a step come back in a model of other weights, without moments."""
    config = TrainConfig(optimizer=optimizer)
    model, other = make_model().train(), make_model().train()
    optimizers, others = build_optimizers(model, config), build_optimizers(other, config)
    model(torch.ones(1, 3, 8, 8)).square().sum().backward()
    for each in optimizers:
        each.step()
    tensors = copy.deepcopy(pack({"model": model}, optimizers))
    assert any(name.startswith("optimizer.0.0.") for name in tensors)
    assert not torch.equal(other.head.weight, model.head.weight)
    unpack(tensors, {"model": other}, others)
    again = pack({"model": other}, others)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("given", "epochs"),
    [
        (facts(), 3),
        (facts(), 9),  # more epochs are welcome
        (facts(train_config="train_images"), 3),  # saved before there was this flag
        (facts(config="drop_path"), 3),
    ],
)
def test_the_same_run_goes_on(given: dict[str, Any], epochs: int) -> None:
    assert check_run(PATH, given, dataclasses.replace(CONFIG, epochs=epochs), MODEL, SOURCES) == 3


@pytest.mark.parametrize(
    ("config", "model", "message"),
    [
        ({"lr": 0.5}, {}, "was trained with {'lr': 0.003}; resume without the flags"),
        ({}, {"depth": 2}, "was trained with {'depth': 6}; resume without the flags"),
        ({"seed": 1, "lr": 1.0}, {}, "was trained with {'lr': 0.003, 'seed': 0}; resume without"),
        ({"teacher": "a"}, {"distilled": True}, "was trained with {'teacher': ''}; resume without"),
        ({"epochs": 2}, {}, "of a run of 3 epochs; to resume give as many or more, not 2"),
    ],
)
def test_another_run_is_refused(
    config: dict[str, Any], model: dict[str, Any], message: str
) -> None:
    changed = dataclasses.replace(CONFIG, **config), dataclasses.replace(MODEL, **model)
    with pytest.raises(ValueError, match=re.escape(f"{PATH} ") + ".*" + re.escape(message)):
        check_run(PATH, facts(), *changed, SOURCES)


def test_a_teacher_is_named_only_where_it_is_another() -> None:
    taught, token = dataclasses.replace(CONFIG, teacher="a"), {"distilled": True}
    ran = facts() | {
        "train_config": dataclasses.asdict(taught),
        "config": dataclasses.asdict(MODEL) | token,
    }
    changed = dataclasses.replace(taught, pool="mean"), dataclasses.replace(MODEL, pool="mean")
    with pytest.raises(ValueError, match=r"was trained with \{'pool': 'cls'\}; resume"):
        check_run(PATH, ran, *changed, SOURCES)


def test_a_run_from_before_test_pictures_were_known_goes_on() -> None:
    assert check_run(PATH, facts(), CONFIG, MODEL, SOURCES | {"test pictures": "3f"}) == 3


def test_a_run_goes_on_with_a_teacher_that_has_moved() -> None:
    config = dataclasses.replace(CONFIG, teacher="convnet:elsewhere")
    assert check_run(PATH, facts(), config, MODEL, SOURCES) == 3


@pytest.mark.parametrize("names", [["training pictures"], ["teacher"], list(SOURCES)])
def test_other_sources_are_refused(names: list[str]) -> None:
    changed = SOURCES | dict.fromkeys(names, "2f")
    model = dataclasses.replace(MODEL, num_classes=3)
    message = f"{PATH} was trained with other sources ({', '.join(names)}); resume with the same"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_run(PATH, facts(), CONFIG, model, changed)


def write_state(path: Path, found: dict[str, Any]) -> Path:
    save_tensors(
        path, {"step": torch.zeros(1)}, {name: json.dumps(value) for name, value in found.items()}
    )
    return path


@pytest.mark.parametrize(
    "found",
    [
        facts(),
        facts(train_config="train_images"),  # saved before there was this flag
        facts(config="patch_size"),
        facts() | {"train_config": facts()["train_config"] | {"gone": 1}},  # and before it went
    ],
)
def test_a_run_knows_its_recipe_and_sizes(tmp_path: Path, found: dict[str, Any]) -> None:
    config, sizes = read_run(write_state(tmp_path / "state.safetensors", found))
    assert config == CONFIG
    assert ViTConfig(**sizes) == MODEL


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        ({}, "train_config"),  # as the demo weights' states
        ({"train_config": {}}, "config"),
    ],
)
def test_what_is_no_run_is_a_sentence(tmp_path: Path, found: dict[str, Any], missing: str) -> None:
    path = write_state(tmp_path / "state.safetensors", found)
    with pytest.raises(ValueError, match=f"another program or version, there is no '{missing}'"):
        read_run(path)
