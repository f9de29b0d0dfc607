import io
import re
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from common.images import decode_image
from vit.data import (
    SPLITS,
    ImageSet,
    Split,
    always_the_same,
    download_cifar10,
    hold_out,
    load_data,
    load_image_folder,
    normalize,
    random_split,
    take,
)
from vit.predictor import Predictor

COLOURS = {"cat": (200, 10, 20), "dog": (10, 200, 20)}


def png(colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def files() -> dict[str, bytes]:
    """Two training pictures and one test picture a class, below a folder of some name."""
    return {
        f"set/{split}/{name}/{i}.png": png(colour)
        for split, count in (("train", 2), ("test", 1))
        for name, colour in COLOURS.items()
        for i in range(count)
    }


def write_folder(root: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / name).write_bytes(data)
    return root / "data"


def write_tar(root: Path, content: dict[str, bytes]) -> Path:
    with tarfile.open(root / "data.tar.xz", "w:xz") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return root / "data.tar.xz"


def write_zip(root: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(root / "data.zip", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return root / "data.zip"


@pytest.mark.parametrize("write", [write_folder, write_tar, write_zip])
def test_layouts(tmp_path: Path, write: type(write_zip)) -> None:
    other = {"set/readme.txt": b"x", "set/train/cat/._0.png": b"of macOS", "cover.png": b"none"}
    data = load_image_folder(write(tmp_path, files() | other), 8)
    assert data.classes == ("cat", "dog")
    assert data.train.images.shape == (4, 3, 8, 8)
    assert data.train.images.dtype == torch.uint8
    assert sorted(data.train.labels.tolist()) == [0, 0, 1, 1]
    assert sorted(data.test.labels.tolist()) == [0, 1]
    assert_colours(data)


def test_the_middle_square_is_taken(tmp_path: Path) -> None:
    picture = Image.new("RGB", (32, 16), COLOURS["cat"])
    picture.paste(COLOURS["dog"], (8, 0, 24, 16))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = load_image_folder(write_folder(tmp_path, dict.fromkeys(files(), buffer.getvalue())), 8)
    pixels = data.train.images.permute(0, 2, 3, 1).reshape(-1, 3)
    assert pixels.unique(dim=0).tolist() == [list(COLOURS["dog"])]


@pytest.mark.parametrize(
    "train",
    [
        {},  # no training pictures
        {"train/cat/1.png": b"damaged", "train/cow/1.png": b"damaged"},  # they do not matter
    ],
)
def test_of_the_test_pictures_alone(
    tmp_path: Path, train: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    content = {f"test/{name}/1.png": png(colour) for name, colour in COLOURS.items()}
    stray = {"docs/cat/1.png": png(COLOURS["cat"]), "docs/dog/1.png": png(COLOURS["dog"])}
    path = write_zip(tmp_path, stray | train | content)
    data = load_data(path, 8, ("test",))
    assert (len(data.train.labels), data.train.images.shape) == (0, (0, 3, 8, 8))
    assert data.test.labels.tolist() == [0, 1] and data.classes == ("cat", "dog")
    said = capsys.readouterr().out
    assert "data.zip: 2 test pictures of" in said and "right on 50.0 % of the 2" in said
    with pytest.raises(ValueError, match="no pictures in test/<class>/; expected test, or class"):
        load_data(write_zip(tmp_path, stray | {"train/cat/1.png": b"damaged"}), 8, ("test",))


def test_a_class_may_be_written_in_two_ways(tmp_path: Path) -> None:
    """é may be one character or, as on a Mac, two."""
    content = {"train/caf\u00e9/1.png": png(COLOURS["cat"]), "train/dog/1.png": png((0, 0, 0))}
    content |= {"test/cafe\u0301/1.png": png(COLOURS["cat"]), "test/dog/1.png": png((0, 0, 0))}
    assert load_image_folder(write_zip(tmp_path, content), 8).classes == ("caf\u00e9", "dog")


@pytest.mark.parametrize("write", [write_folder, write_tar, write_zip])
def test_plain_class_folders(tmp_path: Path, write: type(write_zip)) -> None:
    content = {
        f"pets/{name}/{number:02}.png": png((*colour[:2], number))
        for number in (3, 1, 5, 0, 6, 2, 4)  # an archive has any order
        for name, colour in COLOURS.items()
    }
    data = load_image_folder(write(tmp_path, content), 8)
    assert data.classes == ("cat", "dog")
    for label in (0, 1):  # blue numbers the pictures
        train, test = (
            split.images[split.labels == label][:, 2, 0, 0].tolist()
            for split in (data.train, data.test)
        )
        assert 1 <= len(test) <= 3 and sorted(train + test) == [*range(7)]
        assert (train, test) == (sorted(train), sorted(test)), "in the order of their names"
    assert "(about every 5th picture of a class held out)" in data.name


def test_pictures_that_are_added_move_no_others(tmp_path: Path) -> None:
    """What has been learnt must not come into the test."""

    def colours(numbers: Sequence[int]) -> list[set[tuple[int, ...]]]:
        content = {
            f"{name}/{number:02}.png": png((*colour[:2], number))
            for number in numbers
            for name, colour in COLOURS.items()
        }
        data = load_image_folder(write_zip(tmp_path, content), 8)
        splits = data.train.images, data.test.images
        return [{*map(tuple, images[:, :, 0, 0].tolist())} for images in splits]

    train, test = colours(range(20, 70))
    assert 10 <= len(test) <= 30
    more_train, more_test = colours(range(90))
    assert train < more_train and test < more_test


def test_every_class_is_trained_and_tested(tmp_path: Path) -> None:
    """Also by two pictures, whatever their names."""
    for number in range(12):
        content = {f"{name}/{number + i}.png": png((0, 0, 0)) for name in "ab" for i in (0, 1)}
        data = load_image_folder(write_zip(tmp_path, content), 8)
        assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 1]


def test_an_archive_of_splits_has_any_order(tmp_path: Path) -> None:
    """Pictures that `hold_out` takes are the same whatever the data are packed in."""
    content = {f"{split}/cat/{i}.png": png((0, 0, i)) for split in SPLITS for i in (3, 1, 2)}
    content |= {f"{split}/bus/{i}.png": png((0, 0, i)) for split in SPLITS for i in (6, 4, 5)}
    data = load_image_folder(write_zip(tmp_path, content), 8)
    assert data.train.images[:, 2, 0, 0].tolist() == [4, 5, 6, 1, 2, 3]


@pytest.mark.parametrize(
    "place",
    [
        "pets/{}/2023/1.png",  # of which the class could be either
        "{}/2023/1.png",
        "train/{}/2023/1.png",
        "set/Test/{}/a/b/1.png",
    ],
)
@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_folders_inside_class_folders(tmp_path: Path, write: type(write_zip), place: str) -> None:
    content = {place.format(name): png(colour) for name, colour in COLOURS.items()}
    with pytest.raises(ValueError, match=r"1\.png in .* lies in a folder inside a class folder"):
        load_image_folder(write(tmp_path, content), 8)


def test_a_folder_inside_a_class_folder_is_refused_before_the_rest_is_read(tmp_path: Path) -> None:
    content = {"train/cat/2023/1.png": png(COLOURS["cat"]), "train/cat/late.png": b"damaged"}
    with pytest.raises(ValueError, match=r"train/cat/2023/1\.png in .* lies in a folder"):
        load_image_folder(write_zip(tmp_path, content), 8)


def test_classes_may_be_called_like_the_splits(tmp_path: Path) -> None:
    content = {f"train/{name}": png(COLOURS["cat"]) for name in ("1.png", "2.png")}
    content |= {f"bus/{name}": png(COLOURS["dog"]) for name in ("1.jfif", "2.JPE")}
    assert load_image_folder(write_zip(tmp_path, content), 8).classes == ("bus", "train")


@pytest.mark.parametrize(
    ("count", "drawn"),
    [
        (1, 1),
        (40, 40),  # of pictures that come class by class
        (80, 80),  # all of them
        (90, 80),  # more than there are
    ],
)
def test_random_split(count: int, drawn: int) -> None:
    images = torch.arange(80, dtype=torch.uint8).view(80, 1, 1, 1)
    first, rest = random_split(Split(images, images.flatten().long() // 20), count)
    assert (len(first.labels), len(rest.labels)) == (drawn, 80 - drawn)
    assert torch.cat((first.images, rest.images)).flatten().sort().values.tolist() == [*range(80)]
    for split in (first, rest):
        assert torch.equal(split.images.flatten().long() // 20, split.labels)
        assert len(split.labels) < 40 or len(split.labels.unique()) == 4


def test_hold_out(tiny_set: ImageSet) -> None:
    data = hold_out(tiny_set, 4)
    again = hold_out(tiny_set, 4)
    assert torch.equal(data.test.images, again.test.images)
    assert (len(data.train.labels), len(data.test.labels)) == (9, 4)
    both = torch.cat((data.train.images, data.test.images)).flatten(1)
    everything = tiny_set.train.images.flatten(1)
    assert sorted(both.tolist()) == sorted(everything.tolist())
    for split in (data.train, data.test):
        assert torch.equal(split.images.amax((2, 3)).argmax(1), split.labels)
    assert data.name == "colours (held-out training pictures)"
    with pytest.raises(ValueError, match="holdout is 13; it must be below the 13 training"):
        hold_out(tiny_set, 13)


@pytest.mark.parametrize("count", [1, 5, 12])
def test_take(tiny_set: ImageSet, count: int) -> None:
    data = take(tiny_set, count)
    assert torch.equal(data.train.images, take(tiny_set, count).train.images)
    assert data.train.images.flatten(1).unique(dim=0).shape[0] == count
    assert torch.equal(data.train.images.amax((2, 3)).argmax(1), data.train.labels)
    assert data.test is tiny_set.test
    assert data.name == f"colours (trained on {count} of 13)"


@pytest.mark.parametrize("count", [13, 14])
def test_no_more_can_be_taken_than_there_are(tiny_set: ImageSet, count: int) -> None:
    assert take(tiny_set, count) is tiny_set


def assert_colours(data: ImageSet) -> None:
    for split in (data.train, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert tuple(image[:, 0, 0].tolist()) == COLOURS[data.classes[label]]


def test_other_sizes_are_scaled_as_on_the_page(tmp_path: Path, tiny_checkpoint: Path) -> None:
    buffer, picture = io.BytesIO(), Image.effect_noise((31, 17), 90).convert("RGB")
    picture.save(buffer, "PNG")
    big = dict.fromkeys(files(), buffer.getvalue())
    images = load_image_folder(write_folder(tmp_path, big), 8).train.images
    seen = np.asarray(Predictor(tiny_checkpoint).predict(picture).seen).transpose(2, 0, 1)
    assert images.shape == (4, 3, 8, 8) and all(np.array_equal(image, seen) for image in images)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # no test pictures
        ({"train/cat/0.png": png(COLOURS["cat"])}, "holds no pictures in test/<class>/"),
        # no pictures at all
        ({"notes.txt": b"hello"}, "holds no pictures in train/<class>/"),
        # a class that only one split has
        (
            files() | {"set/test/cow/0.png": png(COLOURS["cat"])},
            "train has ['cat', 'dog'], test has ['cat', 'cow', 'dog']",
        ),
        # plain class folders with too little in one
        (
            {
                "cat/0.png": png(COLOURS["cat"]),
                "dog/0.png": png(COLOURS["dog"]),
                "dog/1.png": png(COLOURS["dog"]),
            },
            "has one picture only of ['cat']; at least 2 a class are needed",
        ),
        # a picture that is none
        (
            files() | {"set/test/cat/9.png": b"hello"},
            "test/cat/9.png: This file cannot be opened as a picture",
        ),
        # one class only
        (
            {name: data for name, data in files().items() if "/cat/" in name},
            "has pictures of ['cat'] only; two classes are needed",
        ),
    ],
)
def test_bad_content(tmp_path: Path, content: dict[str, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_image_folder(write_zip(tmp_path, content), 8)


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (2, 2),
        (10, 10),
        (13, 10),  # more than anybody wants to read
    ],
)
def test_all_that_are_no_pictures_are_named_at_once(
    tmp_path: Path, broken: int, named: int
) -> None:
    names = [f"set/train/cat/{i:02}.jpg" for i in range(90, 90 + broken)]
    with pytest.raises(ValueError, match=rf"files that are no pictures \({broken}\)") as raised:
        load_image_folder(write_zip(tmp_path, files() | dict.fromkeys(names, b"hello")), 8)
    lines = str(raised.value).splitlines()[1:]
    said = [line.split(":")[0] for line in lines if ":" in line]
    assert said == names[:named]
    assert ("..." in lines) == (named < broken)


def test_a_damaged_one_of_plain_class_folders_is_named(tmp_path: Path) -> None:
    content = {f"{name}/{i}.png": png(COLOURS[name]) for name in COLOURS for i in range(4)}
    path = write_zip(tmp_path, content | {"cat/9.png": b"hello"})
    with pytest.raises(ValueError, match=r"files that are no pictures \(1\)"):
        load_image_folder(path, 8)


def test_what_lies_outside_of_the_splits_may_be_broken(tmp_path: Path) -> None:
    content = {"extra/cat/0.png": b"hello"} | files()  # read before there is known to be a split
    assert len(load_image_folder(write_zip(tmp_path, content), 8).train.labels) == 4


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, True), (60.0, False)])
def test_reading_that_takes_a_while_is_seen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float,
    shown: bool,
) -> None:
    monkeypatch.setattr("vit.data.PATIENCE", seconds)
    load_image_folder(write_folder(tmp_path, files()), 8)
    assert ("Reading data" in capsys.readouterr().err) == shown


def test_what_always_the_same_answer_would_have_right() -> None:
    """The commonest class of the training pictures, whichever that of the test pictures is."""
    images = torch.zeros(5, 3, 1, 1, dtype=torch.uint8)
    train, test = Split(images, torch.tensor([0, 1, 1, 2, 1])), torch.tensor([0, 0, 0, 1])
    data = ImageSet(train, Split(images[:4], test), ("a", "b", "c"), "set")
    assert always_the_same(data) == (1, 0.25)


def test_other_spellings_of_the_splits_and_hidden_folders(tmp_path: Path) -> None:
    content = {
        name.replace("train", "Train").replace("test", "TEST"): data
        for name, data in files().items()
    }
    hidden = {"set/Train/.ipynb_checkpoints/0.png": png(COLOURS["cat"])}
    data = load_image_folder(write_folder(tmp_path, content | hidden), 8)
    assert data.classes == ("cat", "dog")
    assert (len(data.train.labels), len(data.test.labels)) == (4, 2)


def test_a_class_whose_name_is_no_text(tmp_path: Path) -> None:
    root = write_folder(tmp_path, files())
    for split in ("train", "test"):
        (root / "set" / split / "cat").rename(root / "set" / split / "c\udce4t")
    with pytest.raises(ValueError, match=r"class folder 'c\\udce4t' in .* has no UTF-8 name"):
        load_image_folder(root, 8)


def test_the_folder_that_one_is_in_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_folder(tmp_path, files()))
    assert load_image_folder(Path(), 8).name == "data"


def special(mode: str) -> bytes:
    """A picture that Pillow's own conversion to RGB spoils."""
    if mode == "I;16":
        picture = Image.fromarray(np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16))
    else:
        picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))  # transparent black is white
        picture.paste((200, 10, 20, 255), (2, 2, 6, 6))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["I;16", "RGBA"])
def test_training_sees_what_the_page_sees(tmp_path: Path, mode: str) -> None:
    data = load_image_folder(
        write_folder(tmp_path, files() | {"set/test/cat/0.png": special(mode)}), 8
    )
    shown = np.asarray(decode_image(special(mode)))
    assert np.array_equal(data.test.images[0].permute(1, 2, 0).numpy(), shown)
    assert len(np.unique(shown)) > 3 if mode == "I;16" else shown[0, 0].tolist() == [255] * 3


def test_a_download_that_fails_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("no internet")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fail)
    with pytest.raises(ValueError, match=r"cannot be downloaded .*no internet.*; give --data PATH"):
        download_cifar10(tmp_path)


def test_the_download_is_the_pictures_of_both_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torchvision has them: the rows of a picture, then its columns, then its colours."""
    rng = np.random.default_rng(0)

    def dataset(root: str, train: bool, download: bool) -> SimpleNamespace:
        assert root == str(tmp_path) and download
        pixels = rng.integers(0, 256, (3 if train else 2, 32, 32, 3), np.uint8)
        found[train] = SimpleNamespace(
            data=pixels, targets=[1, 0, 1] if train else [0, 1], classes=["cat", "dog"]
        )
        return found[train]

    found: dict[bool, SimpleNamespace] = {}
    monkeypatch.setattr("torchvision.datasets.CIFAR10", dataset)
    data = download_cifar10(tmp_path)
    assert (data.classes, data.name) == (("cat", "dog"), "CIFAR-10")
    for train, split in ((True, data.train), (False, data.test)):
        assert split.labels.tolist() == found[train].targets
        assert np.array_equal(split.images.permute(0, 2, 3, 1).numpy(), found[train].data)


def test_normalize() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    got = normalize(images, torch.tensor([0.5, 0.2, 0.0]), torch.tensor([0.5, 1.0, 2.0]))
    torch.testing.assert_close(got.flatten(), torch.tensor([-1.0, 0.0, 0.5]))


def test_the_fingerprint_is_of_pictures_labels_and_order() -> None:
    images, labels = torch.arange(36, dtype=torch.uint8).view(3, 3, 2, 2), torch.tensor([0, 1, 1])
    splits = [
        Split(images, labels),
        Split(images.flip(0), labels),  # another order of pictures
        Split(images, labels.flip(0)),
        Split(images[:2], labels[:2]),
        Split(images + torch.eye(2, dtype=torch.uint8), labels),
    ]
    assert len({split.fingerprint() for split in splits}) == len(splits)
    assert Split(images.clone(), labels.clone()).fingerprint() == splits[0].fingerprint()


def test_the_folders_nearest_to_the_pictures_are_the_splits(tmp_path: Path) -> None:
    content = {name.replace("set/", "test/"): file for name, file in files().items()}
    made = load_image_folder(write_zip(tmp_path, content), 8)
    assert (len(made.train.labels), len(made.test.labels)) == (4, 2)


def test_other_folders_beside_the_splits_are_left_out(tmp_path: Path) -> None:
    more = {f"extra/{name}/{i}.png": png((0, 0, 0)) for name in COLOURS for i in range(2)}
    made = load_image_folder(write_zip(tmp_path, more | files()), 8)
    assert len(made.train.labels) == 4 and made.train.images.amax() > 0


def test_what_is_held_out_is_the_same_in_every_version() -> None:
    """A teacher that an earlier version trained must not have seen it."""
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    first, _ = random_split(Split(images, torch.zeros(20)), 4)
    assert first.images.flatten().tolist() == order[:4].tolist()
