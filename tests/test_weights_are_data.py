"""No file that is given as weights, and none beside it, runs code."""

import contextlib
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import grounding.demo.train as demo
import train_vit
from grounding.grounders import GROUNDERS
from grounding.grounders.glip.release import read_released
from grounding.segmenters import SEGMENTERS, sam2
from grounding.weights import DEMO_ROOT
from tests.grounding.test_faults import load
from vit.checkpoint import load_checkpoint
from vit.teacher import load_teacher


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "code-was-run"


def pickled(path: Path, mark: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"model": Bomb(mark)}, protocol=2))  # the one torch knows
    return path


def zipped(path: Path, mark: Path) -> Path:
    """As torch saves today: a ZIP with the pickle in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": Bomb(mark)}, path)
    return path


WRITERS = (pickled, zipped)
Write = Callable[[Path, Path], Path]


def test_the_bomb_goes_off_where_pickle_is_trusted(tmp_path: Path, mark: Path) -> None:
    pickle.loads(pickled(tmp_path / "bomb", mark).read_bytes())
    assert mark.exists()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("SAM 2.1 tiny", "sam2.1_hiera_tiny.pt"),
        ("GLIP-T", "glip_tiny_model_o365_goldg_cc_sbu.pth"),
        ("CLIPSeg", "model.safetensors"),  # a pickle of that name
        ("GroundingDINO tiny", "model.safetensors"),
    ],
)
def test_a_pickle_as_weights(
    tmp_path: Path, mark: Path, write: Write, name: str, file: str
) -> None:
    menu = SEGMENTERS if name in SEGMENTERS else GROUNDERS
    place = tmp_path / menu[name].repo
    shutil.copytree(DEMO_ROOT / menu[name].module, place, ignore=shutil.ignore_patterns("*.saf*"))
    write(place / file, mark)
    with pytest.raises(ValueError, match="damaged"):
        load(name, tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["CLIPSeg", "GroundingDINO tiny"])
@pytest.mark.parametrize("safe", ["missing", "damaged"])
def test_a_pickle_beside_the_weights(
    tmp_path: Path, mark: Path, write: Write, name: str, safe: str
) -> None:
    place = tmp_path / GROUNDERS[name].repo
    shutil.copytree(
        DEMO_ROOT / GROUNDERS[name].module, place, ignore=shutil.ignore_patterns("*.saf*")
    )
    write(place / "pytorch_model.bin", mark)
    if safe == "damaged":
        (place / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"not on this machine|damaged"):
        load(name, tmp_path)
    assert not mark.exists()


REMOTE_CODE = [
    # which file asks for code, under which classes
    ("config.json", ["AutoConfig", "AutoModelForZeroShotObjectDetection"]),
    ("processor_config.json", ["AutoProcessor"]),
    ("tokenizer_config.json", ["AutoTokenizer"]),
]


@pytest.mark.parametrize(("file", "wanted"), REMOTE_CODE)
@pytest.mark.parametrize("name", ["CLIPSeg", "GroundingDINO tiny"])
def test_python_beside_the_weights(
    tmp_path: Path, mark: Path, name: str, file: str, wanted: list[str]
) -> None:
    place = tmp_path / GROUNDERS[name].repo
    shutil.copytree(DEMO_ROOT / GROUNDERS[name].module, place)
    (place / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil:\n    pass\n")
    facts = json.loads((place / file).read_text())
    facts |= {"auto_map": dict.fromkeys(wanted, "evil.Evil"), "model_type": "no-such-model"}
    (place / file).write_text(json.dumps(facts))
    with contextlib.suppress(ValueError):  # refused, or passed over where it is not needed
        load(name, tmp_path)
    assert not mark.exists()
    assert "evil" not in sys.modules


FOREIGN = [
    # what a config.yaml of SAM 2 would have called
    "os.system",
    "builtins.exec",
    "sam2.build_sam.os.system",  # by way of a module of SAM 2
    "sam2.modeling.sam2_base.torch.load",
    "${oc.decode:os.system}",  # hidden
    "${.name}",
]


@pytest.mark.parametrize("target", FOREIGN)
@pytest.mark.parametrize("deep", [False, True])
def test_a_configuration_calls_nothing_but_sam_2(tmp_path: Path, target: str, deep: bool) -> None:
    place = shutil.copytree(DEMO_ROOT / "sam2", tmp_path / "sam2")
    call = f'{{_target_: "{target}", name: os.system, _args_: ["exit 1"]}}'
    if deep:
        call = f"{{_target_: sam2.modeling.sam2_base.SAM2Base, image_encoder: [{call}]}}"
    (place / "config.yaml").write_text(f"model: {call}\n")
    with pytest.raises(ValueError, match=r"config\.yaml names .*no parts of SAM 2"):
        sam2.load(place, "cpu")


@pytest.mark.parametrize("write", WRITERS)
def test_a_pickle_as_checkpoint_of_the_vit(tmp_path: Path, mark: Path, write: Write) -> None:
    path = write(tmp_path / "model.safetensors", mark)
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_checkpoint(path)
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_teacher(str(path), ("a",), torch.device("cpu"))
    for arguments in (["--evaluate", str(path)], ["--export", "onnx", "--checkpoint", str(path)]):
        with pytest.raises(ValueError, match="is not a checkpoint"):
            train_vit.main(arguments)
    assert not mark.exists()


@pytest.mark.parametrize("write", WRITERS)
def test_a_pickle_as_teacher_of_transformers(tmp_path: Path, mark: Path, write: Write) -> None:
    write(tmp_path / "pytorch_model.bin", mark)
    (tmp_path / "config.json").write_text('{"model_type": "vit", "architectures": ["ViT"]}')
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_teacher(f"transformers:{tmp_path}", ("a",), torch.device("cpu"))
    assert not mark.exists()


@pytest.mark.parametrize("write", WRITERS)
def test_a_pickle_as_release_of_glip(tmp_path: Path, mark: Path, write: Write) -> None:
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        read_released(write(tmp_path / "a.pth", mark))
    assert not mark.exists()


@pytest.mark.parametrize("write", WRITERS)
def test_a_pickle_as_state_of_a_training(tmp_path: Path, mark: Path, write: Write) -> None:
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / "data" / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / place / "a.png")
    write(tmp_path / "run" / "state.safetensors", mark)
    sizes = ["--image-size", "8", "--embed-dim", "16", "--depth", "1", "--num-heads", "2"]
    places = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=r"is not a checkpoint of train_vit\.py"):
        train_vit.main([*places, *sizes, "--epochs", "1", "--device", "cpu", "--resume"])
    assert not mark.exists()


@pytest.mark.parametrize("write", WRITERS)
def test_a_pickle_as_state_of_a_demo_training(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    line = nn.Linear(1, 1)
    recipe = SimpleNamespace(build=lambda: line, LEARNING_RATE=0.1, BATCH=1)
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setitem(sys.modules, demo.RECIPES["sam2"], recipe)
    folder = tmp_path / "runs" / "demo" / "sam2"
    demo.Run("sam2", recipe, folder).save()
    assert [path.name for path in folder.iterdir()] == ["state.safetensors"]
    write(folder / "state.safetensors", mark)
    with pytest.raises(ValueError, match="holds no run to go on with"):
        demo.main(["sam2", "--resume"])
    assert not mark.exists()


@pytest.mark.parametrize(
    "part", ["${oc.decode:'{_target_: os.system, _args_: [exit 1]}'}", "${beside}"]
)
def test_a_configuration_hides_no_part(tmp_path: Path, part: str) -> None:
    place = shutil.copytree(DEMO_ROOT / "sam2", tmp_path / "sam2")
    model = f'{{_target_: sam2.modeling.sam2_base.SAM2Base, image_encoder: "{part}"}}'
    (place / "config.yaml").write_text(f"beside: {{_target_: os.system}}\nmodel: {model}\n")
    with pytest.raises(ValueError, match=r"config\.yaml names .*os\.system.*no parts of SAM 2"):
        sam2.load(place, "cpu")
