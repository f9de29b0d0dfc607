import io
import re
import runpy
import shlex
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

import app
import train_vit
from vit import report
from vit.ablation import PARTS, SHORT, STUDIES
from vit.checkpoint import Checkpoint, Preprocessing, load_checkpoint, save_checkpoint
from vit.data import ImageSet, load_image_folder
from vit.evaluation import accuracy, confusion_matrix
from vit.model import ViT
from vit.recipes import RECIPES, TrainConfig

ROOT = Path(__file__).parents[2]
SIZES = ["--image-size", "8", "--embed-dim", "16", "--depth", "1", "--num-heads", "2"]
BRIEF = ["--epochs", "1", "--plain-epochs", "0", "--batch-size", "4", "--device", "cpu"]

Write = Callable[[str, tuple[str, ...]], Path]


@pytest.fixture(autouse=True)
def nothing_to_draw_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_is_installed", lambda _: False)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes three pictures a class, the first class black."""

    def pictures(place: str, classes: tuple[str, ...]) -> Path:
        for i, name in enumerate(classes):
            (tmp_path / place / name).mkdir(parents=True)
            for number in range(3):
                picture = Image.new("RGB", (8, 8), (200 * i, 90, number))
                picture.save(tmp_path / place / name / f"{number}.png")
        return tmp_path / place

    return pictures


@pytest.fixture
def folder(write: Write) -> Path:
    write("data/train", ("cat", "dog"))
    return write("data/test", ("cat", "dog")).parent


def test_a_terminal_of_few_letters_is_no_end(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows a file that takes the output has few."""
    folder, taken = write("собаки", ("cat", "dog")), io.BytesIO()
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run"), *SIZES, *BRIEF]
    monkeypatch.setattr(sys, "argv", ["train_vit.py", *arguments])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(taken, "cp1252", write_through=True))
    runpy.run_path(str(ROOT / "train_vit.py"), run_name="__main__")
    assert rb"\u0441\u043e\u0431\u0430\u043a\u0438" in taken.getvalue()


def test_trains_and_resumes(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run"), *SIZES, *BRIEF]
    train_vit.main(arguments)
    checkpoint = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert checkpoint.classes == ("cat", "dog")
    assert checkpoint.model.config.num_classes == 2
    assert (checkpoint.recipe["epochs"], checkpoint.recipe["batch_size"]) == (1, 4)
    said = capsys.readouterr().out
    assert "Epochs: 1, steps in each: 1, pictures in each step: 4\n2 of 6 pictures fill no" in said
    command = said.splitlines()[-1].removeprefix("python app.py ")
    assert app.parse_args(shlex.split(command)).checkpoints == tmp_path / "run"
    train_vit.main([*arguments, "--resume"])
    assert "This run is at its end" in capsys.readouterr().out
    (tmp_path / "run" / "model.safetensors").unlink()
    train_vit.main([*arguments, "--resume"])  # the weights are in the state, too
    again = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert again.metrics["confusion"] == checkpoint.metrics["confusion"]
    assert torch.equal(again.model.head.weight, checkpoint.model.head.weight)
    train_vit.main([*arguments[:4], "--resume", "--epochs", "2"])  # the rest as the run was begun
    longer = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert (longer.recipe["epochs"], longer.recipe["batch_size"]) == (2, 4)
    assert longer.model.config == checkpoint.model.config
    another = ["--data", "nowhere", *arguments[2:4], "--resume", "--recipe", "best"]
    with pytest.raises(ValueError, match="run of 2 epochs, and best has 100; leave --recipe out"):
        train_vit.main(another)
    with pytest.raises(ValueError, match="was trained with"):  # said before pictures are read
        train_vit.main([*another, "--epochs", "100"])
    shorter = ["--epochs", "1", "--recipe", "best"]  # of which plain epochs alone are more
    with pytest.raises(ValueError, match="run of 2 epochs; to resume give as many or more, not 1"):
        train_vit.main([*arguments[:4], "--resume", *shorter])
    before = (tmp_path / "run" / "state.safetensors").read_bytes()
    with pytest.raises(ValueError, match="run holds a run; go on with --resume, or choose another"):
        train_vit.main(arguments)
    assert (tmp_path / "run" / "state.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            [],
            r"Stopped at step 1 of 1\. Weights in model\.safetensors: none yet\. Go on",
        ),
        (["--ablate", "--image-size", "16"], "The same command goes on from here"),
    ],
)
def test_what_comes_after_a_stopped_training_sees_that_it_was_stopped(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    words: str,
) -> None:
    """As `coarse && fine` would begin `fine` with half a `coarse`."""
    monkeypatch.setattr("vit.training.Trainer.run", lambda trainer: trainer.train_step() is None)
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run"), *SIZES, *BRIEF]
    with pytest.raises(SystemExit) as ended:
        train_vit.main([*arguments, *flags])
    said = f"{capsys.readouterr().err}{ended.value.code}"  # Python prints a text, and ends with 1
    assert re.search(words, said) and ended.value.code


@pytest.mark.parametrize(
    ("flags", "recipe", "model"),
    [
        (["--recipe", "fine"], {"optimizer": "muon", "epochs": 1}, {"dropout": 0.0}),
        (["--recipe", "fine", "--dropout", "0.25"], {"dropout": 0.25}, {"dropout": 0.25}),
        (["--recipe", "best"], {"augment": "trivial"}, {"pool": "mean", "dropout": 0.0}),
        (["--recipe", "best", "--pool", "seq"], {"pool": "seq"}, {"pool": "seq"}),
        (["--stem", "conv", "--optimizer", "adam"], {"optimizer": "adam"}, {"stem": "conv"}),
        (["--patch-size", "2", "--cutmix", "0.5"], {"cutmix": 0.5}, {"patch_size": 2}),
    ],
)
def test_a_flag_replaces_the_recipe(
    tmp_path: Path,
    folder: Path,
    flags: list[str],
    recipe: dict[str, object],
    model: dict[str, object],
) -> None:
    train_vit.main(["--data", str(folder), "--out", str(tmp_path), *SIZES, *BRIEF, *flags])
    checkpoint = load_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint.recipe.items() >= recipe.items()
    assert vars(checkpoint.model.config).items() >= model.items()


@pytest.mark.parametrize(
    ("flags", "differs"),
    [
        ([], SHORT),  # short, where nothing is said of it
        (["--epochs", "2", "--patch-size", "4"], SHORT | {"epochs": 2, "patch_size": 4}),
        (["--recipe", "reference"], {}),  # a recipe that is named is varied as it is
        (["--recipe", "best"], asdict(RECIPES["best"])),
    ],
)
def test_which_recipe_is_ablated(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    differs: dict[str, object],
) -> None:
    asked = []
    monkeypatch.setattr(train_vit, "ablate", lambda *given: asked.append(given) or True)
    given = ["--ablate", "--data", str(folder), "--out", str(tmp_path), "--image-size", "16"]
    train_vit.main([*given, *flags])
    [(studies, config, sizes, *_)] = asked
    assert studies is (PARTS if "best" in flags else STUDIES)
    expected = asdict(TrainConfig()) | {"image_size": 16} | differs
    assert asdict(config) | sizes == expected


def test_two_stages(tmp_path: Path, folder: Path) -> None:
    """Coarse patches first, fine ones then, which begin with what the coarse ones learned."""
    given = ["--data", str(folder), *SIZES, *BRIEF]
    coarse, fine = tmp_path / "coarse", tmp_path / "fine"
    train_vit.main([*given, "--recipe", "coarse", "--patch-size", "4", "--out", str(coarse)])
    start = ["--start", str(coarse / "model.safetensors"), "--patch-size", "2"]
    train_vit.main([*given, "--recipe", "fine", *start, "--lr", "1e-9", "--out", str(fine)])
    first, second = (load_checkpoint(path / "model.safetensors") for path in (coarse, fine))
    assert second.recipe["started_from"]["recipe"] == first.recipe
    assert second.model.config.patch_size == 2
    # With so small a learning rate the vectors stay as they were.
    torch.testing.assert_close(second.model.norm.weight, first.model.norm.weight)


def test_without_data_cifar10_is_downloaded(
    tmp_path: Path, tiny_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("vit.data.CIFAR_SIDE", 8)
    monkeypatch.setattr("vit.data.download_cifar10", lambda root: asked.append(root) or tiny_set)
    train_vit.main(["--out", str(tmp_path), *SIZES, *BRIEF])
    assert asked == [Path("data")]
    assert load_checkpoint(tmp_path / "model.safetensors").classes == tiny_set.classes


def test_own_pictures_in_plain_class_folders(
    tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    pets = write("pets", ("bird", "cat", "dog"))
    train_vit.main(["--data", str(pets), "--out", str(tmp_path / "run"), *SIZES, *BRIEF])
    assert capsys.readouterr().out.startswith(
        "pets (about every 5th picture of a class held out): 6 training and 3 test pictures of 3"
    )
    assert load_checkpoint(tmp_path / "run/model.safetensors").classes == ("bird", "cat", "dog")


@pytest.mark.parametrize("form", ["folder", "zip", "xztar"])
def test_evaluate(
    tmp_path: Path, tiny_model: ViT, write: Write, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = ("blue", "green", "red")
    write("set/train", classes)
    data = write("set/test", classes).parent
    if form != "folder":
        data = Path(shutil.make_archive(str(tmp_path / "packed"), form, data))
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, Checkpoint(tiny_model, classes, Preprocessing(), {}, {}))
    train_vit.main(["--evaluate", str(path), "--data", str(data), "--device", "cpu"])
    confusion = confusion_matrix(tiny_model, load_image_folder(data, 8).test, Preprocessing())
    expected = accuracy(confusion)
    assert 0 < expected < 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"test accuracy: {100 * round(expected, 4):.2f} %"
    assert re.fullmatch(r"test accuracy: \d\d\.\d\d %", line)
    assert load_checkpoint(path).metrics == {}
    train_vit.main(["--evaluate", str(path), "--data", str(data), "--device", "cpu", "--save"])
    kept = load_checkpoint(path)
    assert kept.metrics == {
        "test_accuracy": expected,
        "test_images": 9,
        "data": data.name,
        "confusion": confusion.tolist(),
    }
    assert kept.classes == classes
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(kept.model.state_dict()[name], tensor)


def test_evaluate_without_data_downloads_cifar10(
    tiny_checkpoint: Path,
    tiny_set: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("vit.data.CIFAR_SIDE", 8)
    monkeypatch.setattr("vit.data.download_cifar10", lambda _: tiny_set)
    monkeypatch.setattr(train_vit, "CIFAR_CLASSES", tiny_set.classes)
    counts = torch.tensor([[56254, 43746], [0, 0]])
    monkeypatch.setattr(train_vit, "confusion_matrix", lambda *_: counts)
    train_vit.main(["--evaluate", str(tiny_checkpoint), "--device", "cpu"])
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "right: 56,254 of 100,000",
        "test accuracy: 56.25 %",
    ]


def test_evaluate_without_a_path_takes_the_shipped_checkpoint() -> None:
    path = train_vit.parse_args(["--evaluate"]).evaluate
    assert load_checkpoint(path).classes == train_vit.CIFAR_CLASSES


def test_evaluate_takes_the_checkpoint_that_export_would(
    tiny_checkpoint: Path,
    tiny_set: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(train_vit, "load_data", lambda *_: tiny_set)
    given = ["--checkpoint", str(tiny_checkpoint), "--data", "some", "--device", "cpu"]
    train_vit.main(["--evaluate", *given])
    assert f"checkpoint: {tiny_checkpoint}\n" in capsys.readouterr().out


@pytest.mark.parametrize("action", [["--evaluate"], ["--export", "onnx", "--out", "a.onnx"]])
def test_of_several_processes_the_first_does_what_only_one_need(
    action: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    monkeypatch.setattr(train_vit, "evaluate", lambda *_: done.append("evaluated"))
    monkeypatch.setattr("vit.export.export_onnx", lambda *_: done.append("exported"))
    # Some schedulers say a rank to a process that is alone.
    for variables, runs in ({"LOCAL_RANK": "1", "RANK": "1"}, 0), ({"RANK": "1"}, 1), ({}, 1):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            done.clear()
            train_vit.main(action)
            assert len(done) == runs


def test_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    module = types.ModuleType("vit.export")
    module.export_onnx = lambda checkpoint, out: asked.append((checkpoint, out))
    monkeypatch.setitem(sys.modules, "vit.export", module)
    train_vit.main(["--export", "onnx", "--checkpoint", "a/b.safetensors"])
    train_vit.main(["--export", "onnx", "--out", str(tmp_path / "c.onnx")])
    assert asked == [
        (Path("a/b.safetensors"), Path("b.onnx")),
        (train_vit.SHIPPED, tmp_path / "c.onnx"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "train_vit.py: nowhere does not exist"),
        (["--patch-size", "5"], "train_vit.py: patch_size 5 does not divide image_size 32"),
        (["--epochs", "0"], "train_vit.py: epochs is 0; it must be above 0"),
        # These before the data, which may take long to read.
        (["--data", "nowhere", "--teacher", "a"], "train_vit.py: teacher a cannot be loaded: a is"),
        (["--data", "nowhere", "--start", "b"], "train_vit.py: b is not a checkpoint"),
        (
            ["--data", "nowhere", "--start", "{checkpoint}"],
            "train_vit.py: start is of a model with {{'embed_dim': ",
        ),
        (
            ["--data", "nowhere", "--ablate", "--image-size", "24"],
            "train_vit.py: patch_size 16 does not divide image_size 24",
        ),
        (["--device", "gpu"], "train_vit.py: The device gpu is not on this machine"),
        (["--device", "cuda:99"], "train_vit.py: The device cuda:99 is not on this"),
        (["--evaluate", "--device", "mps:9"], "train_vit.py: The device mps:9 is not"),
        (
            ["--out", "{checkpoint}"],
            "train_vit.py: the folder {checkpoint} of --out cannot be written",
        ),
        (["--out", "typo", "--resume"], "train_vit.py: typo holds no run to go on with; --out is"),
        (
            ["--image-size", "64"],
            "train_vit.py: the model takes pictures of 64 pixels, and those of CIFAR-10 have 32",
        ),
        (["--out", "/proc"], "train_vit.py: the folder /proc of --out cannot be written"),
        (
            ["--out", "{checkpoint}/run"],
            "train_vit.py: the folder {checkpoint}/run of --out",
        ),
        (
            ["--data", "{folder}", "--image-size", "8", "--patch-size", "4", "--crop-padding", "8"],
            "train_vit.py: crop_padding is 8; it must be below the image size, 8",
        ),
        (["--evaluate", "{folder}"], "train_vit.py: {folder} is not a checkpoint of train_vit.py"),
        *(
            (
                ["--data", "{folder}", "--mlp-dim", size],
                "train_vit.py: this takes more memory than there is",
            )
            for size in ("1000000000000", "100000000000000000")
        ),
        # What would not be obeyed.
        (
            ["--evaluate", "--epochs", "5", "--patch-size", "8"],
            "train_vit.py: --epochs, --patch-size would not be obeyed beside --evaluate; leave",
        ),
        (["--evaluate", "--recipe", "best"], "train_vit.py: --recipe would not be obeyed beside"),
        (["--evaluate", "--out", "a"], "train_vit.py: --out would not be obeyed beside --evaluate"),
        (
            ["--evaluate", "a", "--checkpoint", "b"],
            "train_vit.py: --evaluate CHECKPOINT and --checkpoint both say which; give one of them",
        ),
        (
            ["--export", "onnx", "--seed", "0", "--data", "a", "--save"],
            "train_vit.py: --save, --data, --seed would not be obeyed beside --export; leave that",
        ),
        (["--export", "onnx", "--device", "cpu"], "train_vit.py: --device would not be obeyed"),
        (["--save"], "train_vit.py: --save would not be obeyed in training; leave that out"),
        (["--resume", "--checkpoint", "a"], "train_vit.py: --checkpoint would not be obeyed in"),
        (
            ["--evaluate", "{checkpoint}"],
            "train_vit.py: {checkpoint} knows ['red', 'green', 'blue'], which are not the classes "
            "of CIFAR-10; give --data PATH (it was trained on colours)",
        ),
        (["--evaluate", "nowhere"], "train_vit.py: nowhere is not a checkpoint of train_vit.py"),
        (
            ["--evaluate", "{checkpoint}", "--data", "{folder}"],
            "train_vit.py: {checkpoint} knows the classes ['red', 'green', 'blue'], the data has "
            "['cat', 'dog']; they must be the same",
        ),
    ],
)
def test_mistakes_are_a_sentence(
    tiny_checkpoint: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    names = {"checkpoint": tiny_checkpoint, "folder": folder}
    filled = [argument.format(**names) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["train_vit.py", *filled])
    monkeypatch.chdir(tiny_checkpoint.parent)  # where the default --out is made
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "train_vit.py"), run_name="__main__")
    assert str(caught.value).startswith(message.format(**names))


def test_help_names_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_vit.parse_args(["--help"])
    text = capsys.readouterr().out
    assert "--recipe {reference,best,taught,coarse,fine}" in text
    assert "--label-smoothing float" in text
    assert "--embed-dim int" in text
