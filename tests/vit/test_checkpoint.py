import json
import os
import re
from pathlib import Path

import pytest
import torch

from vit.checkpoint import Preprocessing, load_checkpoint, load_tensors, save_tensors
from vit.model import ViT

SHIPPED = Path(__file__).parents[2] / "assets" / "vit-cifar10.safetensors"


def test_round_trip(tiny_checkpoint: Path, tiny_model: ViT) -> None:
    loaded = load_checkpoint(tiny_checkpoint)
    assert loaded.model.config == tiny_model.config
    assert loaded.classes == ("red", "green", "blue")
    assert loaded.preprocessing == Preprocessing()
    assert loaded.recipe == {"epochs": 1}
    assert loaded.metrics["test_accuracy"] == 0.875
    assert not loaded.model.training
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)


def test_a_config_of_before_the_options_loads(tiny_checkpoint: Path, tiny_model: ViT) -> None:
    tensors, facts = load_tensors(tiny_checkpoint)
    for name in ("pool", "stem", "drop_path", "distilled"):
        del facts["config"][name]
    save_tensors(tiny_checkpoint, tensors, {key: json.dumps(v) for key, v in facts.items()})
    assert load_checkpoint(tiny_checkpoint).model.config == tiny_model.config


def test_a_crash_while_saving_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new folder" / "a.safetensors"
    save_tensors(path, {"x": torch.ones(2)}, {})

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        save_tensors(path, {"x": torch.zeros(2)}, {})
    assert torch.equal(load_tensors(path)[0]["x"], torch.ones(2))


def test_the_new_file_is_on_the_disk_before_the_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that loses its power may have made the change of names and not yet the bytes."""
    path, synced = tmp_path / "a.safetensors", []
    save_tensors(path, {"a": torch.zeros(1)}, {})
    monkeypatch.setattr("vit.checkpoint.os.fsync", lambda _: synced.append(load_tensors(path)[0]))
    save_tensors(path, {"a": torch.ones(1)}, {})
    assert synced == [{"a": torch.zeros(1)}] and load_tensors(path)[0] == {"a": torch.ones(1)}


def test_what_is_read_does_not_hold_the_file(tmp_path: Path) -> None:
    """On Windows no file that is mapped can be replaced, and a resumed run saves over its own."""
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.ones(5000)}, {})
    tensors, _ = load_tensors(path)
    assert tensors["a"].sum() == 5000
    assert str(path) not in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_who_may_read_it(tmp_path: Path) -> None:
    """As with any new file; a file that is replaced keeps its rights."""
    new, old, usual = (tmp_path / f"{name}.safetensors" for name in ("new", "old", "usual"))
    usual.touch()
    old.touch(0o640)
    for path in (new, old):
        save_tensors(path, {"a": torch.ones(1)}, {})
    fixed = tmp_path / "fixed.safetensors"
    save_tensors(fixed, {"a": torch.ones(1)}, {})
    fixed.chmod(0o444)
    save_tensors(fixed, {"a": torch.zeros(1)}, {})
    rights = [path.stat().st_mode & 0o777 for path in (new, old, fixed)]
    assert rights == [usual.stat().st_mode & 0o777, 0o640, 0o444]


@pytest.mark.parametrize("name", ["a.partial", "a.safetensors"])
def test_what_else_is_in_the_folder_stays(tmp_path: Path, name: str) -> None:
    others = [tmp_path / other for other in ("a.partial", "a.tmp", "a") if other != name]
    for other in others:
        other.write_text("precious")
    save_tensors(tmp_path / name, {"a": torch.ones(1)}, {})
    assert load_tensors(tmp_path / name)[0] == {"a": torch.ones(1)}
    assert [other.read_text() for other in others] == ["precious"] * len(others)
    assert len(list(tmp_path.iterdir())) == len(others) + 1


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a checkpoint of train_vit.py \(it is a folder"):
        load_checkpoint(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/a\.safetensors cannot be written"):
        save_tensors(tmp_path / "file" / "a.safetensors", {}, {})


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.safetensors is not a checkpoint of train_vit\.py"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_cut_off_file(tiny_checkpoint: Path) -> None:
    tiny_checkpoint.write_bytes(tiny_checkpoint.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_checkpoint(tiny_checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": None}, "no ['classes'] in it"),  # None: without it
        ({"config": {"embed_dim": 24, "num_heads": 2}}, "the weights do not fit its config"),
        ({"config": {"registers": 4}}, "unexpected keyword argument 'registers'"),  # a later size
        ({"config": {"depth": 0}}, "depth is 0"),
        ({"config": {"stem": "conv", "patch_size": 4.0}}, "do not fit its config"),
        ({"preprocessing": []}, "do not fit its config"),
        ({"classes": 5}, "do not fit its config"),
        ({"classes": ["cat"]}, "names the classes ('cat',)"),  # fewer than the model has
        ({"classes": ["cat"] * 3}, "each needs a name of its own"),
        # a head that this model has not
        ({"config": {"pool": "mean"}}, "the weights do not fit its config"),
    ],
)
def test_damaged_facts(tiny_checkpoint: Path, change: dict[str, object], message: str) -> None:
    tensors, facts = load_tensors(tiny_checkpoint)
    facts = {key: value for key, value in (facts | change).items() if value is not None}
    save_tensors(tiny_checkpoint, tensors, {key: json.dumps(v) for key, v in facts.items()})
    with pytest.raises(ValueError, match=re.escape(message)):
        load_checkpoint(tiny_checkpoint)


def test_new_runs_see_the_colours_that_the_bundled_model_saw() -> None:
    assert load_checkpoint(SHIPPED).preprocessing == Preprocessing()
