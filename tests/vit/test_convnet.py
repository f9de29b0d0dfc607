import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from vit import convnet
from vit.augment import augment
from vit.checkpoint import Preprocessing
from vit.convnet import TrainedConvNet
from vit.data import ImageSet, hold_out, load_image_folder, random_split
from vit.evaluation import predict
from vit.recipes import TrainConfig, rate_factor

CPU = torch.device("cpu")


@pytest.mark.parametrize("side", [1, 8, 32, 45])
def test_any_side(side: int) -> None:
    assert convnet.build(4).eval()(torch.randn(2, 3, side, side)).shape == (2, 4)


def test_small_pictures_stay_as_large_as_they_are() -> None:
    model, seen = convnet.build(4).eval(), []
    model.layer1.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape))
    model(torch.randn(1, 3, 32, 32))
    assert seen == [(1, 64, 32, 32)]


def test_it_learns_and_saves(
    tiny_set: ImageSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four of nine test pictures have a wrong label, so that no other accuracy is the right one."""
    torch.manual_seed(0)
    right = tiny_set.test.labels.clone()
    tiny_set.test.labels[:4] = (right[:4] + 1) % 3
    model = convnet.train(tiny_set, 60, CPU, tmp_path / "net.safetensors")
    assert torch.equal(predict(model, tiny_set.test, Preprocessing()), right)
    assert not model.training
    saved = convnet.load(tmp_path / "net.safetensors")
    assert (saved.classes, saved.image_size) == (tiny_set.classes, 8)
    assert torch.equal(predict(saved.model, tiny_set.test, Preprocessing()), right)
    assert "test accuracy: 55.56 %" in capsys.readouterr().out


def test_the_rate_falls_where_the_progress_bar_is_switched_off(
    tiny_set: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    monkeypatch.setattr(convnet, "tqdm", partial(tqdm, disable=True))
    monkeypatch.setattr(convnet, "scale_learning_rates", lambda _, rate: rates.append(rate))
    convnet.train(tiny_set, 4, CPU, tmp_path / "net.safetensors")
    assert rates == [rate_factor(step, 4, convnet.RECIPE) for step in range(4)]
    assert rates[0] > rates[-1]


def test_a_training_that_is_stopped_leaves_no_network(
    tiny_set: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "net-0.1"
    monkeypatch.setattr(convnet, "RECIPE", replace(convnet.RECIPE, test_every=2))
    seen = iter(range(3))

    def stop(*_: object) -> None:
        if next(seen, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(convnet, "scale_learning_rates", stop)
    with pytest.raises(KeyboardInterrupt):
        convnet.train(tiny_set, 4, CPU, out, holdout=2)
    assert not out.exists() and convnet.load(tmp_path / "net-0.1.unfinished").holdout == 2


def test_it_sees_what_a_student_will_be_shown(
    tiny_set: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watch(images: Tensor, targets: Tensor, config: TrainConfig, plain: bool) -> tuple:
        seen.append((config.augment, config.cutmix, plain))
        return augment(images, targets, config, plain)

    monkeypatch.setattr(convnet, "augment", watch)
    convnet.train(tiny_set, 1, CPU, tmp_path / "net")
    assert set(seen) == {("trivial", 0.5, False)}


def test_saved_and_loaded(tmp_path: Path) -> None:
    model, images = convnet.build(2).eval(), torch.randn(2, 3, 16, 16)
    convnet.save(tmp_path / "net.safetensors", TrainedConvNet(model, ("dark", "bright"), 16, 5))
    loaded = convnet.load(tmp_path / "net.safetensors")
    assert (loaded.classes, loaded.image_size, loaded.holdout) == (("dark", "bright"), 16, 5)
    torch.testing.assert_close(loaded.model(images), model(images))
    assert not loaded.model.training


def test_other_files(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tiny_checkpoint} is not a network of")):
        convnet.load(tiny_checkpoint)
    with pytest.raises(ValueError, match="nowhere is not a checkpoint"):
        convnet.load(tmp_path / "nowhere")


def make_folder(root: Path) -> Path:
    """Write three dark and three bright pictures to train on, and as many to test on."""
    for split in ("train", "test"):
        for number, name in enumerate(("dark", "bright")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (8, 8), (200 * number + 10 * i,) * 3).save(folder / f"{i}.png")
    return root


def run(data: Path, out: Path, *flags: str) -> None:
    given = ["--data", str(data), "--out", str(out), "--epochs", "2", "--image-size", "16"]
    convnet.main([*given, "--device", "cpu", *flags])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.safetensors"
    run(make_folder(tmp_path / "data"), out)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]
    assert convnet.load(out).classes == ("bright", "dark")
    assert f"wrote {out}" in capsys.readouterr().out
    torch.rand(1)  # the same command makes the same network, whatever was done before
    run(tmp_path / "data", tmp_path / "again" / "net.safetensors")
    first, again = (convnet.load(path).model.state_dict().values()
                    for path in (out, tmp_path / "again" / "net.safetensors"))  # fmt: skip
    assert all(map(torch.equal, first, again))
    with pytest.raises(ValueError, match="is there already; choose another --out"):
        run(tmp_path / "data", out)


def test_without_data_it_downloads_cifar10(
    tmp_path: Path, tiny_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr("vit.data.download_cifar10", lambda _: tiny_set)
    monkeypatch.setattr(convnet, "train", lambda data, *_: given.append(data))
    convnet.main(["--out", str(tmp_path / "net.safetensors"), "--device", "cpu"])
    assert given == [tiny_set]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "epochs is 0; it must be at least 1"),
        (["--holdout", "-1"], "holdout is -1; it must be at least 0"),
        (["--device", "gpu"], "device"),
        (["--out", "{folder}/a-file/net.safetensors"], "folder .*a-file of --out cannot be"),
        (["--out", "/proc/net.safetensors"], "folder /proc of --out"),  # that is there
    ],
)
def test_refused_before_the_data_are_read(tmp_path: Path, flags: list[str], message: str) -> None:
    (tmp_path / "a-file").touch()
    flags = [flag.format(folder=tmp_path) for flag in flags]
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "no data", tmp_path / "net.safetensors", *flags)


def test_the_command_trains_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setattr(convnet, "train", lambda _, *how: given.extend(how))
    run(make_folder(tmp_path / "data"), tmp_path / "net.safetensors")
    assert given == [2, torch.device("cpu"), tmp_path / "net.safetensors", 0]


def test_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, counts = [], []

    def train(data: ImageSet, _epochs: int, _device: torch.device, _path: Path, count: int) -> None:
        given.append(data)
        counts.append(count)

    monkeypatch.setattr(convnet, "train", train)
    run(make_folder(tmp_path / "data"), tmp_path / "net.safetensors", "--holdout", "2")
    everything = load_image_folder(tmp_path / "data", 16)
    assert counts == [2]
    # A student that holds out as many must not have them from its teacher.
    expected = hold_out(everything, 2)
    assert given[0].train.fingerprint() == expected.train.fingerprint()
    assert given[0].test.fingerprint() == expected.test.fingerprint()


def test_the_rest_of_an_epoch_is_left_out(
    tiny_set: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rest of one picture, here the thirteenth, cannot be normalised."""
    monkeypatch.setattr(convnet, "RECIPE", replace(convnet.RECIPE, batch_size=6))
    convnet.train(tiny_set, 1, CPU, tmp_path / "net.safetensors")


def test_one_picture_is_too_few(tiny_set: ImageSet, tmp_path: Path) -> None:
    single = replace(tiny_set, train=random_split(tiny_set.train, 1)[0])
    with pytest.raises(ValueError, match="1 training picture; at least 2"):
        convnet.train(single, 1, CPU, tmp_path / "net.safetensors")


def test_weights_decay() -> None:
    decay = convnet._build_optimizer(convnet.build(2), CPU).defaults["weight_decay"]
    assert decay == convnet.RECIPE.weight_decay > 0
