import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from common.images import open_image
from vit import export
from vit.checkpoint import Preprocessing, load_checkpoint
from vit.export import export_onnx
from vit.predictor import Predictor


@pytest.mark.parametrize("options", [{"depth": 1}, {"depth": 1, "pool": "mean"}], ids=str)
def test_onnxruntime_agrees(
    tmp_path: Path, make_checkpoint: Callable[..., Path], options: dict[str, Any]
) -> None:
    checkpoint, out = make_checkpoint(**options), tmp_path / "new folder" / "vit.onnx"
    export_onnx(checkpoint, out)
    assert [path.name for path in out.parent.iterdir()] == ["vit.onnx"]  # weights inside
    session = onnxruntime.InferenceSession(out)
    for batch in (1, 3):
        x = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(3))
        got = session.run(["logits", "attentions"], {"image": x.numpy()})
        expected = load_checkpoint(checkpoint).model.forward_with_attention(x)
        for ours, torchs in zip(got, expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(ours), torchs, rtol=1e-4, atol=1e-5)
    facts = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert facts["classes"] == ["red", "green", "blue"]
    assert facts["mean"] == list(Preprocessing().mean)
    assert facts["std"] == list(Preprocessing().std)
    assert "divided by 255" in facts["preparation"]


def test_the_example_says_what_the_page_says(
    tmp_path: Path,
    make_checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As it stands in the module, without torch and without this repository."""
    checkpoint = make_checkpoint(tuple("abcdefgh"), depth=1)
    export_onnx(checkpoint, tmp_path / "vit.onnx")
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # as of a phone held upright
    Image.fromarray(pixels).resize((500, 300)).save("photo.jpg", exif=exif)
    lines = [line[4:] for line in export.__doc__.splitlines() if line.startswith("    ")]
    names = {"json": json, "np": np, "onnxruntime": onnxruntime, "Image": Image}
    names |= {"ImageOps": ImageOps}
    exec("\n".join(lines), names)
    expected = Predictor(checkpoint).predict(open_image("photo.jpg")).probabilities
    got = torch.from_numpy(names["logits"]).softmax(1)[0]
    # The two ways to cut out the square round its edges differently.
    torch.testing.assert_close(got, torch.tensor([*expected.values()]), rtol=0, atol=2e-4)
    assert capsys.readouterr().out.strip() == max(expected, key=expected.get)


def test_a_folder_is_no_place_for_it(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path.name} cannot be written"):
        export_onnx(tiny_checkpoint, tmp_path)


def test_the_checkpoint_itself_is_no_place_for_it(tiny_checkpoint: Path) -> None:
    before = tiny_checkpoint.read_bytes()
    with pytest.raises(ValueError, match="is the checkpoint itself; choose another --out"):
        export_onnx(tiny_checkpoint, tiny_checkpoint.parent / "." / tiny_checkpoint.name)
    assert tiny_checkpoint.read_bytes() == before


def test_a_missing_package_is_named(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"onnxscript.*pip install onnx onnxscript onnxruntime"):
        export_onnx(tiny_checkpoint, tmp_path / "vit.onnx")


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a checkpoint"):
        export_onnx(tmp_path / "none.safetensors", tmp_path / "vit.onnx")
