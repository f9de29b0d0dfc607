import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from grounding.grounders.glip import release
from grounding.grounders.glip.release import converted_path, read_converted, read_released


class Scheduler:
    """A class of somebody else's; to make one means to run their code."""

    made = 0

    def __init__(self) -> None:
        self.last_epoch = 3

    def __setstate__(self, state: dict[str, Any]) -> None:
        Scheduler.made += 1


class Bomb:
    """What somebody would put into a checkpoint to run a command."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        "huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "cache")
    )
    return tmp_path / "cache"


WEIGHTS = {"module.a.weight": torch.arange(6.0).view(2, 3), "module.b": torch.ones(1)}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (WEIGHTS, ["a.weight", "b"]),  # as released: DistributedDataParallel's prefix on all
        ({"a": torch.ones(1)}, ["a"]),  # without it
        ({"module.a": torch.ones(1), "b": torch.ones(1)}, ["b", "module.a"]),  # a part of a name
    ],
)
def test_names(tmp_path: Path, model: dict[str, torch.Tensor], names: list[str]) -> None:
    weights = read_released(saved(tmp_path / "x.pth", {"model": model}))
    assert sorted(weights) == names


def test_the_optimisers_part_is_not_run(tmp_path: Path) -> None:
    rest = {
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
        "scheduler": Scheduler(),
        "date": datetime(2022, 1, 1, tzinfo=UTC),
        "iteration": 5,
    }
    weights = read_released(saved(tmp_path / "x.pth", {"model": WEIGHTS, **rest}))
    assert torch.equal(weights["a.weight"], WEIGHTS["module.a.weight"])
    assert Scheduler.made == 0


def test_a_command_in_the_file_is_not_run(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {"model": WEIGHTS, "optimizer": Bomb(tmp_path / "boom")})
    assert sorted(read_released(path)) == ["a.weight", "b"]
    assert not (tmp_path / "boom").exists()


def test_format_of_old_torch(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert sorted(read_released(tmp_path / "x.pth")) == ["a.weight", "b"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


@pytest.mark.parametrize(
    "damage",
    [
        cut,  # a download that was cut off
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("<html>not found</html>"),
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        lambda path: path.unlink(),
        lambda path: saved(path, [1, 2]),  # torch's, but no dictionary
        lambda path: saved(path, {"state_dict": WEIGHTS}),  # another project's
        lambda path: saved(path, {"model": {}}),
        lambda path: saved(path, {"model": {"a": 3}}),
        lambda path: saved(path, Scheduler()),
        lambda path: saved(path, {"model": Scheduler()}),
    ],
)
def test_damaged_or_foreign(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    path = saved(tmp_path / "x.pth", {"model": WEIGHTS})
    damage(path)
    with pytest.raises(ValueError, match=r"x\.pth is damaged or no checkpoint of GLIP"):
        read_released(path)


def test_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.pth", {"model": WEIGHTS})
    first = read_converted(path)
    monkeypatch.setattr(release, "read_released", None)  # whoever calls it, fails
    second = read_converted(path)
    assert sorted(first) == sorted(second) == ["a.weight", "b"]
    assert torch.equal(second["a.weight"], WEIGHTS["module.a.weight"])


def test_another_file_of_the_same_name_is_converted_anew(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {"model": WEIGHTS})
    read_converted(path)
    saved(path, {"model": {"a": torch.zeros(9)}})
    assert sorted(read_converted(path)) == ["a"]


def test_another_file_of_the_same_name_and_size_is_converted_anew(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {"model": {"a": torch.zeros(9)}})
    read_converted(path)
    saved(path, {"model": {"a": torch.ones(9)}})
    os.utime(path, ns=(1, 1))
    assert read_converted(path)["a"].sum() == 9


def test_a_tensor_that_is_a_view_is_converted(tmp_path: Path) -> None:
    turned = torch.arange(6.0).view(2, 3).T
    path = saved(tmp_path / "x.pth", {"model": {"a": turned}})
    for _ in range(2):
        assert torch.equal(read_converted(path)["a"], turned)


def test_a_damaged_copy_is_made_anew(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {"model": WEIGHTS})
    read_converted(path)
    converted_path(path).write_bytes(b"half")
    assert sorted(read_converted(path)) == ["a.weight", "b"]
    assert sorted(safetensors.torch.load_file(converted_path(path))) == ["a.weight", "b"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("full")])
def test_no_room(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    """Then the weights come from the checkpoint itself."""
    path = saved(tmp_path / "x.pth", {"model": WEIGHTS})

    def fail(_tensors: object, target: Path) -> None:
        target.write_bytes(b"half")
        raise error

    monkeypatch.setattr(release, "save_file", fail)
    assert torch.equal(read_converted(path)["a.weight"], WEIGHTS["module.a.weight"])
    assert f"No copy of {path} could be written" in capsys.readouterr().out
    assert not [file for file in cache.rglob("*") if file.is_file()]
    monkeypatch.setattr(release, "save_file", safetensors.torch.save_file)
    assert sorted(read_converted(path)) == ["a.weight", "b"]  # once there is room again
    assert converted_path(path).exists()


def test_a_cache_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("huggingface_hub.cached_assets_path", refuse)
    path = saved(tmp_path / "x.pth", {"model": WEIGHTS})
    assert sorted(read_converted(path)) == ["a.weight", "b"]
    damaged = saved(tmp_path / "y.pth", [1, 2])
    with pytest.raises(ValueError, match=r"y\.pth is damaged"):
        read_converted(damaged)


def test_killed_while_converting(tmp_path: Path) -> None:
    """What a killed process leaves is no copy, and does not stop the next one."""
    path = saved(tmp_path / "x.pth", {"model": WEIGHTS})
    converted_path(path).with_suffix(".partial").write_bytes(b"half")
    assert sorted(read_converted(path)) == ["a.weight", "b"]


def test_reads_the_released_layout(parity_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copy(parity_folder / "checkpoint.pth", tmp_path)
    weights = read_converted(Path(copy))
    assert "rpn.head.bias0" in weights
    assert not [name for name in weights if name.startswith("module.")]
