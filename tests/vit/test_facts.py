from pathlib import Path

import pytest

from vit.checkpoint import load_checkpoint
from vit.facts import find_checkpoints, read_facts


def test_facts_are_those_of_the_checkpoint(tiny_checkpoint: Path) -> None:
    facts, checkpoint = read_facts(tiny_checkpoint), load_checkpoint(tiny_checkpoint)
    assert facts is not None
    assert tuple(facts["classes"]) == checkpoint.classes
    assert facts["config"]["depth"] == checkpoint.model.config.depth
    assert facts["parameters"] == sum(p.numel() for p in checkpoint.model.parameters())
    assert (facts["metrics"], facts["recipe"]) == (checkpoint.metrics, checkpoint.recipe)


@pytest.mark.parametrize(
    "content",
    [
        None,  # no such file
        b"",
        b"This is no checkpoint at all.",
        b"\x02\0\0\0\0\0\0\0{}",  # safetensors without metadata
        b"\x02\0\0\0\0\0\0\0[]",
        b'\x20\0\0\0\0\0\0\0{"__metadata__":{"format":"pt"}} ',  # of another program
    ],
)
def test_what_is_no_checkpoint_has_no_facts(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert read_facts(path) is None


def test_half_a_checkpoint_has_no_facts(tiny_checkpoint: Path) -> None:
    tiny_checkpoint.write_bytes(tiny_checkpoint.read_bytes()[:-1])
    assert read_facts(tiny_checkpoint) is None


def test_checkpoints_by_name(tmp_path: Path, tiny_checkpoint: Path) -> None:
    shipped, runs = tmp_path / "assets", tmp_path / "runs"
    files = {
        shipped / "vit-b.safetensors": "vit-b",
        shipped / "vit-a.safetensors": "vit-a",
        shipped / "other.safetensors": None,  # not one of the ViT's
        runs / "best" / "model.safetensors": "runs/best/model",
        runs / "top.safetensors": "runs/top",
        runs / "vit-a.safetensors": "runs/vit-a",  # does not hide the shipped one
    }
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiny_checkpoint.read_bytes())
    (runs / "best" / "state.safetensors").write_bytes(b"no checkpoint")
    found = find_checkpoints(shipped, runs)
    assert found == {name: path for path, name in files.items() if name}
    assert list(find_checkpoints(shipped)) == ["vit-a", "vit-b"]
    assert find_checkpoints(tmp_path / "nowhere") == {}


def test_checkpoints_in_what_is_no_folder(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"--checkpoints is .*tiny\.safetensors; it must be a f"):
        find_checkpoints(tiny_checkpoint.parent, tiny_checkpoint)
