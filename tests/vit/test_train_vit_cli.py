import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

import train_vit
from vit.checkpoint import load_checkpoint
from vit.data import ImageSet

ROOT = Path(__file__).parents[2]
SIZES = ["--image-size", "8", "--embed-dim", "16", "--depth", "1", "--num-heads", "2"]
SHORT = ["--epochs", "1", "--batch-size", "4", "--device", "cpu"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for i, name in enumerate(("cat", "dog")):
            place = tmp_path / "data" / split / name
            place.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (8, 8), (200 * i, 90, number)).save(place / f"{number}.png")
    return tmp_path / "data"


def test_trains_and_resumes(tmp_path: Path, folder: Path) -> None:
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run"), *SIZES, *SHORT]
    train_vit.main(arguments)
    checkpoint = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert checkpoint.classes == ("cat", "dog")
    assert checkpoint.model.config.num_classes == 2
    assert (checkpoint.recipe["epochs"], checkpoint.recipe["batch_size"]) == (1, 4)
    train_vit.main([*arguments, "--resume"])  # nothing is left to do


def test_a_flag_replaces_the_recipe(tmp_path: Path, folder: Path) -> None:
    arguments = ["--data", str(folder), "--out", str(tmp_path), "--recipe", "short"]
    train_vit.main([*arguments, *SIZES, *SHORT, "--dropout", "0.25"])
    checkpoint = load_checkpoint(tmp_path / "best.safetensors")
    assert checkpoint.recipe["optimizer"] == "muon"
    assert checkpoint.recipe["epochs"] == 1
    assert checkpoint.model.config.dropout == checkpoint.recipe["dropout"] == 0.25


def test_without_data_cifar10_is_downloaded(
    tmp_path: Path, tiny_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(train_vit, "download_cifar10", lambda root: asked.append(root) or tiny_set)
    train_vit.main(["--out", str(tmp_path), *SIZES, *SHORT])
    assert asked == [Path("data")]
    assert load_checkpoint(tmp_path / "best.safetensors").classes == tiny_set.classes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "train_vit.py: nowhere does not exist"),
        (["--patch-size", "5"], "train_vit.py: patch_size 5 does not divide image_size 32"),
        (["--epochs", "0"], "train_vit.py: epochs is 0; it must be above 0"),
    ],
)
def test_mistakes_are_a_sentence(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_vit.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "train_vit.py"), run_name="__main__")
    assert str(caught.value).startswith(message)


def test_help_names_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_vit.parse_args(["--help"])
    text = capsys.readouterr().out
    assert "--recipe {reference,short}" in text
    assert "--label-smoothing float" in text
    assert "--embed-dim int" in text
