"""Damaged files and used-up resources end in a sentence, and the next try works."""

import errno
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from grounding.export import write_zip
from grounding.grounders import GROUNDERS
from grounding.segmenters import SEGMENTERS
from grounding.store import ModelStore
from grounding.weights import DEMO_ROOT, Weights

CLIPSEG, DINO, SAM = "CLIPSeg", "GroundingDINO tiny", "SAM 2.1 tiny"
ALL = {**GROUNDERS, **SEGMENTERS}
HALF, GONE = "half of it", "gone"
DAMAGES = [
    # the model, the file, what has become of it
    *((CLIPSEG, "config.json", what) for what in (b"", b"{", b"[]", b"\xff", b"{}", HALF, GONE)),
    (CLIPSEG, "config.json", b'{"model_type": 7}'),
    (CLIPSEG, "config.json", b'{"model_type": "clipseg", "text_config": 7}'),
    (CLIPSEG, "model.safetensors", b""),
    (CLIPSEG, "model.safetensors", b"\xff" * 100),  # a header of endless length
    (CLIPSEG, "model.safetensors", HALF),
    (CLIPSEG, "tokenizer.json", b"{"),
    (CLIPSEG, "processor_config.json", b"[]"),
    (DINO, "config.json", b"{}"),
    (DINO, "model.safetensors", HALF),
    (DINO, "tokenizer.json", HALF),
    (DINO, "processor_config.json", GONE),
    *(
        (SAM, "config.yaml", what)
        for what in (b"", b"model:", b"[", b"\0", b"model: 7", HALF, GONE)
    ),
    (SAM, "config.yaml", b"model: {_target_: sam2.modeling.sam2_base.SAM2Base}"),
    (SAM, "model.safetensors", b""),
    (SAM, "model.safetensors", HALF),
]


def load(name: str, folder: Path) -> Any:
    """Load what is on a menu from OWNER/NAME in `folder`, as --weights-folder does."""
    store = ModelStore(Weights("full", offline=True, folder=folder), "cpu")
    return load_with(store, name)


def load_with(store: ModelStore, name: str) -> Any:
    role = "segmenter" if name in SEGMENTERS else "grounder"
    return store._load(role, name, store._locate(role, name, lambda *_: None))


@pytest.mark.filterwarnings("ignore")  # the libraries complain in many ways before they give up
@pytest.mark.parametrize(("name", "file", "damage"), DAMAGES)
def test_damaged_files_are_a_sentence(
    tmp_path: Path, name: str, file: str, damage: bytes | str
) -> None:
    entry = ALL[name]
    place = tmp_path / entry.repo
    shutil.copytree(DEMO_ROOT / entry.module, place)
    if name == SAM:
        (place / "sam2.1_x.pt").touch()  # what the menu looks for
    whole = (place / file).read_bytes()
    (place / file).write_bytes(damage if isinstance(damage, bytes) else whole[: len(whole) // 2])
    if damage == GONE:
        (place / file).unlink()
    with pytest.raises(ValueError, match=r"damaged or incomplete|not on this machine") as caught:
        load(name, tmp_path)
    assert str(tmp_path) not in str(caught.value), "no place of the machine"


def test_once_they_are_whole_again_they_load(tmp_path: Path) -> None:
    place = tmp_path / ALL[CLIPSEG].repo
    shutil.copytree(DEMO_ROOT / ALL[CLIPSEG].module, place)
    whole = (place / "config.json").read_bytes()
    (place / "config.json").write_bytes(b"")
    store = ModelStore(Weights("full", offline=True, folder=tmp_path), "cpu")
    with pytest.raises(ValueError, match="damaged or incomplete"):
        load_with(store, CLIPSEG)
    (place / "config.json").write_bytes(whole)
    load_with(store, CLIPSEG)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        OSError(errno.ENOSPC, "No space left on device"),  # where weights are converted
    ],
)
def test_no_memory_is_not_called_damage(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("grounding.segmenters.sam2.load", fail)
    store = ModelStore(Weights("demo"), "cpu")
    with pytest.raises(type(error)):
        load_with(store, SAM)
    monkeypatch.undo()
    load_with(store, SAM)


def test_a_full_disk_leaves_no_half_zip(tmp_path: Path) -> None:
    def files() -> Iterator[tuple[str, bytes]]:
        yield "a.txt", b"a"
        raise OSError(errno.ENOSPC, "No space left on device")

    write_zip(tmp_path / "old.zip", [("b.txt", b"b")])
    with pytest.raises(OSError, match="No space left"):
        write_zip(tmp_path / "old.zip", files())
    assert [file.name for file in tmp_path.iterdir()] == ["old.zip"]
    assert zipfile.ZipFile(tmp_path / "old.zip").namelist() == ["b.txt"]
