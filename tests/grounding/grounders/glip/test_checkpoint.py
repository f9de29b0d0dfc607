import gzip
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from grounding.grounders import GROUNDERS
from grounding.grounders.glip.checkpoint import (
    IGNORED,
    RELEASED,
    find_weights,
    load_weights,
    official_weights,
    read_model,
)
from grounding.grounders.glip.config import GlipConfig
from grounding.grounders.glip.model import Glip

TINY = GlipConfig(
    embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=4, channels=16,
    head_blocks=1, fusion_dim=16, fusion_heads=2, vocab_size=40, text_dim=16, text_layers=1,
    text_heads=2, text_mlp_dim=32, text_positions=32, max_tokens=32, short_side=64, long_side=96,
)  # fmt: skip


@pytest.fixture
def model() -> Glip:
    torch.manual_seed(0)
    return Glip(TINY)


@pytest.fixture
def folder(tmp_path: Path, model: Glip) -> Path:
    save_file(official_weights(model), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(asdict(TINY)))
    return tmp_path


def test_glip_t_has_the_weights_of_the_release() -> None:
    """Names and shapes of all 728 parameters, and nothing is ignored that the network has."""
    with gzip.open(Path(__file__).parent / "glip-t-keys.tsv.gz", "rt") as file:
        rows = [line.split() for line in file.read().replace(", ", ",").splitlines()]
    release = {name.removeprefix("module."): json.loads(shape) for name, shape, _ in rows}
    with torch.device("meta"):
        ours = {name: list(t.shape) for name, t in official_weights(Glip(GlipConfig())).items()}
    assert ours == {name: shape for name, shape in release.items() if not IGNORED.search(name)}
    assert {name for name in release if IGNORED.search(name)} == {
        name for name, _, kind in rows_of(rows) if kind == "buffer" or "cls_logits" in name
    }


def rows_of(rows: list[list[str]]) -> list[tuple[str, str, str]]:
    return [(name.removeprefix("module."), shape, kind) for name, shape, kind in rows]


def test_saved_and_loaded_is_the_same(folder: Path, model: Glip) -> None:
    loaded = read_model(folder)
    assert not loaded.training
    for (name, ours), (_, theirs) in zip(
        model.named_parameters(), loaded.named_parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    assert loaded.config == TINY


def test_half_precision_on_disk_is_single_in_use(folder: Path, model: Glip) -> None:
    half = {name: tensor.half() for name, tensor in official_weights(model).items()}
    save_file(half, folder / "model.safetensors")
    assert {p.dtype for p in read_model(folder).parameters()} == {torch.float32}


def without(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # one is missing
        (lambda w: without(w, "rpn.head.bias0"), "weights missing: rpn.head.bias0"),
        # one is not ours
        (lambda w: w | {"a.b": torch.zeros(1)}, "weights unknown: a.b"),
        # both
        (
            lambda w: without(w, "rpn.head.bias0") | {"a.b": torch.zeros(1)},
            "weights missing: rpn.head.bias0; unknown: a.b",
        ),
        # another model altogether: five names and a count will do
        (lambda w: {"a.b": torch.zeros(1)}, "more; unknown: a.b"),
        # another size
        (
            lambda w: w | {"rpn.head.bias_lang": torch.zeros(3)},
            "weights of another shape: rpn.head.bias_lang",
        ),
    ],
)
def test_weights_that_do_not_fit(folder: Path, model: Glip, change: object, message: str) -> None:
    assert callable(change)
    with pytest.raises(ValueError, match="does not fit this GLIP") as error:
        load_weights(model, change(official_weights(model)), folder / "x.pth")
    assert message in str(error.value)
    assert str(folder / "x.pth") in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "backbone.body.layers.0.blocks.0.attn.relative_position_index",
        "language_backbone.body.model.embeddings.position_ids",
        "language_backbone.body.model.pooler.dense.weight",
        "rpn.anchor_generator.cell_anchors.0",
        "rpn.head.cls_logits.weight",
        "rpn.head.mlm_head.bias",
        "rpn.resizer.fc.weight",
        "rpn.tunable_linear.weight",
    ],
)
def test_what_other_versions_save_is_ignored(model: Glip, name: str) -> None:
    weights = official_weights(model)
    wanted = {key: tensor.clone() for key, tensor in weights.items()}
    load_weights(model, wanted | {name: torch.zeros(2)}, Path("x.pth"))


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "none"),  # an empty folder
        (["config.json"], "none"),  # a download that was cut off
        (["a.pth", "b.pth"], "a.pth, b.pth"),  # which one?
    ],
)
def test_folder_without_weights(tmp_path: Path, files: list[str], found: str) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=f"it has: {found}"):
        find_weights(tmp_path)


def test_the_release_is_found_among_other_files(tmp_path: Path) -> None:
    """As in a copy of the whole repository."""
    for name in (RELEASED, "glip_large_model.pth", "model.safetensors"):
        (tmp_path / name).touch()
    assert find_weights(tmp_path) == tmp_path / RELEASED
    assert GROUNDERS["GLIP-T"].files == (RELEASED,)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", "oops", "is damaged"),
        ("config.json", "oops", "is no config of a GLIP"),
        ("config.json", '{"embed_width": 3}', "it may hold embed_dim, depths"),
        ("config.json", "[]", "is no config of a GLIP"),
    ],
)
def test_damaged_files(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_model(folder)
    assert str(folder / name) in str(error.value)
