from pathlib import Path

import pytest

from vit.checkpoint import load_checkpoint
from vit.facts import read_facts


def test_facts_are_those_of_the_checkpoint(tiny_checkpoint: Path) -> None:
    facts, checkpoint = read_facts(tiny_checkpoint), load_checkpoint(tiny_checkpoint)
    assert facts is not None
    assert tuple(facts["classes"]) == checkpoint.classes
    assert facts["config"]["depth"] == checkpoint.model.config.depth
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
