import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from vit import convnet
from vit.augment import augment
from vit.checkpoint import Preprocessing
from vit.convnet import ConvNet, TrainedConvNet
from vit.data import ImageSet, Split
from vit.evaluation import predict
from vit.recipes import TrainConfig

CPU = torch.device("cpu")


def correlated_images() -> Tensor:
    """Return pictures whose neighbouring pixels and channels are nearly equal, as in photos."""
    rough = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(rough, scale_factor=4, mode="bilinear")
    return smooth + 0.2 * torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def test_the_first_layer_whitens() -> None:
    model = ConvNet(3)
    images = correlated_images()
    model.start_whitening(images)
    answers = model.whiten(images)[:, :12].transpose(0, 1).flatten(1)
    torch.testing.assert_close(answers.cov(), torch.eye(12), atol=0.05, rtol=0)
    # GELU loses one sign, so each filter is there with both.
    torch.testing.assert_close(model.whiten(images)[:, 12:], -model.whiten(images)[:, :12])
    assert not model.whiten.weight.requires_grad


@pytest.mark.parametrize("side", [9, 16, 32, 40])
def test_any_side(side: int) -> None:
    assert ConvNet(4).eval()(torch.randn(2, 3, side, side)).shape == (2, 4)


def larger(split: Split) -> Split:
    return Split(split.images.repeat_interleave(2, 2).repeat_interleave(2, 3), split.labels)


def test_it_learns_and_saves(
    tiny_set: ImageSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    data = replace(tiny_set, train=larger(tiny_set.train), test=larger(tiny_set.test))
    model = convnet.train(data, 30, CPU, tmp_path / "net.safetensors")
    assert torch.equal(predict(model, data.test, Preprocessing()), data.test.labels)
    assert not model.training
    saved = convnet.load(tmp_path / "net.safetensors")
    assert (saved.classes, saved.image_size) == (data.classes, 16)
    assert torch.equal(predict(saved.model, data.test, Preprocessing()), data.test.labels)
    assert "test accuracy: 100.00 %" in capsys.readouterr().out


def test_it_sees_what_a_student_will_be_shown(
    tiny_set: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watch(images: Tensor, targets: Tensor, config: TrainConfig, plain: bool) -> tuple:
        seen.append((config.augment, config.cutmix, plain))
        return augment(images, targets, config, plain)

    monkeypatch.setattr(convnet, "augment", watch)
    data = replace(tiny_set, train=larger(tiny_set.train), test=larger(tiny_set.test))
    convnet.train(data, 1, CPU, tmp_path / "net")
    assert set(seen) == {("trivial", 0.5, False)}


def test_pictures_that_are_too_small(tiny_set: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image size is 8; choose 9 pixels or more"):
        convnet.train(tiny_set, 1, CPU, tmp_path / "net.safetensors")


def test_saved_and_loaded(tmp_path: Path) -> None:
    model, images = ConvNet(2).eval(), torch.randn(2, 3, 16, 16)
    convnet.save(tmp_path / "net.safetensors", TrainedConvNet(model, ("dark", "bright"), 16))
    loaded = convnet.load(tmp_path / "net.safetensors")
    assert (loaded.classes, loaded.image_size) == (("dark", "bright"), 16)
    torch.testing.assert_close(loaded.model(images), model(images))
    assert not loaded.model.training


def test_other_files(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tiny_checkpoint} is not a network of")):
        convnet.load(tiny_checkpoint)
    with pytest.raises(ValueError, match="nowhere is not a checkpoint"):
        convnet.load(tmp_path / "nowhere")


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        for number, name in enumerate(("dark", "bright")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                tint = 200 * number + 10 * i
                _picture(folder / f"{i}.png", tint)
    out = tmp_path / "net.safetensors"
    arguments = ["--data", tmp_path / "data", "--out", out, "--epochs", 2, "--image-size", 16]
    convnet.main([*map(str, arguments), "--device", "cpu"])
    assert convnet.load(out).classes == ("bright", "dark")
    assert f"wrote {out}" in capsys.readouterr().out


def _picture(path: Path, tint: int) -> None:
    Image.new("RGB", (8, 8), (tint,) * 3).save(path)
