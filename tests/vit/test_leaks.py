from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.vit.configs import ADAMW
from vit import convnet
from vit.checkpoint import load_checkpoint, save_checkpoint
from vit.convnet import TrainedConvNet
from vit.data import ImageSet
from vit.leaks import describe_leaks
from vit.model import ViTConfig
from vit.training import Trainer


def _vit(path: Path, holdout: int) -> str:
    checkpoint = load_checkpoint(path)
    save_checkpoint(path, replace(checkpoint, recipe={"holdout": holdout}))
    return str(path)


def _network(path: Path, holdout: int) -> str:
    convnet.save(path, TrainedConvNet(convnet.build(3), ("red", "green", "blue"), 8, holdout))
    return f"convnet:{path}"


@pytest.mark.parametrize(
    ("held", "holdout", "leaks"),
    [
        (0, 0, False),  # nothing is held out
        (0, 2, True),  # all were learnt
        (1, 2, True),  # some were
        (2, 2, False),
        (5, 2, False),  # more were held out, among them these
    ],
)
def test_who_knows_what_is_held_out(
    tmp_path: Path, tiny_checkpoint: Path, held: int, holdout: int, leaks: bool
) -> None:
    vit, network = _vit(tiny_checkpoint, held), _network(tmp_path / "net.safetensors", held)
    for role, name in (("start", vit), ("teacher", vit), ("teacher", network)):
        said = describe_leaks(replace(ADAMW, holdout=holdout, **{role: name}))
        assert len(said) == leaks
        assert all(f"the {role} {name.removeprefix('convnet:')} held out {held}" in s for s in said)


def test_what_a_model_started_from_counts(tiny_checkpoint: Path) -> None:
    """However far back: each has held out more than the one that it started from."""
    recipe = {"holdout": 1}
    for count in (2, 3):
        recipe = {"holdout": count, "started_from": {"recipe": recipe, "metrics": {}}}
    save_checkpoint(tiny_checkpoint, replace(load_checkpoint(tiny_checkpoint), recipe=recipe))
    for holdout, leaks in ((1, 0), (2, 1)):
        assert (
            len(describe_leaks(replace(ADAMW, holdout=holdout, start=str(tiny_checkpoint))))
            == leaks
        )


@pytest.mark.parametrize("teacher", ["", "torchvision:resnet18", "transformers:a/b", "convnet:no"])
def test_models_from_elsewhere_say_nothing(teacher: str) -> None:
    assert describe_leaks(replace(ADAMW, holdout=5, teacher=teacher)) == []


def test_a_run_says_so(
    tmp_path: Path,
    tiny_set: ImageSet,
    tiny_config: ViTConfig,
    tiny_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = replace(ADAMW, epochs=1, holdout=2, teacher=_vit(tiny_checkpoint, 0))
    model_config = replace(tiny_config, distilled=True)
    Trainer(config, model_config, tiny_set, tmp_path / "run", torch.device("cpu")).run()
    assert "held out 0 training pictures and this run 2" in capsys.readouterr().out
