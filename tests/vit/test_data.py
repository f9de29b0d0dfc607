import io
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vit.data import ImageSet, load_image_folder, normalize, random_crop_flip

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


def assert_colours(data: ImageSet) -> None:
    for split in (data.train, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert tuple(image[:, 0, 0].tolist()) == COLOURS[data.classes[label]]


def test_other_sizes_are_scaled(tmp_path: Path) -> None:
    big = {name: png(COLOURS["cat"], (31, 17)) for name in files()}
    assert load_image_folder(write_folder(tmp_path, big), 8).train.images.shape == (4, 3, 8, 8)


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
        # a picture that is none
        (files() | {"set/test/cat/9.png": b"hello"}, "test/cat/9.png cannot be read as a picture"),
    ],
)
def test_bad_content(tmp_path: Path, content: dict[str, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_image_folder(write_zip(tmp_path, content), 8)


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere does not exist"):
        load_image_folder(tmp_path / "nowhere", 8)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.zip is neither a folder nor"):
        load_image_folder(tmp_path / "text.zip", 8)


def test_normalize() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    got = normalize(images, torch.tensor([0.5, 0.2, 0.0]), torch.tensor([0.5, 1.0, 2.0]))
    torch.testing.assert_close(got.flatten(), torch.tensor([-1.0, 0.0, 0.5]))


def views(image: Tensor, padding: int) -> list[bytes]:
    """Return all crops, plain and mirrored, that augmentation may give."""
    pad = np.pad(image.numpy(), ((0, 0), (padding, padding), (padding, padding)))
    side = image.shape[-1]
    crops = [
        pad[:, y : y + side, x : x + side]
        for y in range(2 * padding + 1)
        for x in range(2 * padding + 1)
    ]
    return [crop.tobytes() for crop in crops] + [crop[..., ::-1].tobytes() for crop in crops]


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_random_crop_flip_gives_every_view(padding: int) -> None:
    torch.manual_seed(5)
    image = torch.randint(1, 256, (3, 6, 6), dtype=torch.uint8)
    batch = random_crop_flip(image.expand(1500, -1, -1, -1), padding)
    assert batch.shape == (1500, 3, 6, 6)
    assert batch.dtype == torch.uint8
    assert {view.numpy().tobytes() for view in batch} == set(views(image, padding))


def test_random_crop_flip_keeps_the_order_of_the_batch() -> None:
    torch.manual_seed(6)
    images = torch.arange(1, 51, dtype=torch.uint8).view(50, 1, 1, 1).expand(-1, 3, 6, 6)
    assert torch.equal(random_crop_flip(images, 2).amax((1, 2, 3)), torch.arange(1, 51).byte())
