"""Pictures in class folders, or CIFAR-10, as uint8 tensors, and their batched augmentation.

The whole set lives on the device as one tensor, so a batch is an index and augmentation is a few
tensor operations: no worker processes, no per-picture Python.
"""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SPLITS = ("train", "test")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def _is_picture(name: PurePosixPath) -> bool:
    # macOS adds hidden files that have a picture's suffix and are none.
    return name.suffix.lower() in SUFFIXES and not name.name.startswith(".")


@dataclass(frozen=True)
class Split:
    """Hold pictures and labels: images uint8 (N, 3, S, S) and labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Split":
        """Return the same split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageSet:
    """Hold a training and a test split, the class names in label order, and the set's own name."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    name: str


def _folder_files(root: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    for path in sorted(root.rglob("*")):
        if _is_picture(name := PurePosixPath(path.relative_to(root).as_posix())):
            yield name, path.read_bytes()


def _tar_files(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if _is_picture(name) and (stream := archive.extractfile(member)):
                yield name, stream.read()


def _zip_files(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in map(PurePosixPath, archive.namelist()):
            if _is_picture(name):
                yield name, archive.read(str(name))


def _files(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a folder or a .tar.* or .zip archive")
    if path.is_dir():
        return _folder_files(path)
    if tarfile.is_tarfile(path):
        return _tar_files(path)
    if zipfile.is_zipfile(path):
        return _zip_files(path)
    raise ValueError(f"{path} is neither a folder nor a .tar.* or .zip archive")


def _decode(name: PurePosixPath, data: bytes, image_size: int) -> np.ndarray:
    try:
        image = Image.open(io.BytesIO(data)).convert("RGB")
    except OSError as error:  # also what Pillow raises on damaged files
        raise ValueError(f"{name} cannot be read as a picture ({error})") from error
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def load_image_folder(path: Path, image_size: int) -> ImageSet:
    """Read `train/<class>/*` and `test/<class>/*` from a folder or archive.

    Args:
        path: The folder, or a `.tar`, `.tar.gz`, `.tar.xz` or `.zip` with the same layout inside.
        image_size: Side S to which other sizes are scaled, in pixels.

    Raises:
        ValueError: If the path is missing, a split has no pictures or the splits' classes differ.
    """
    found: dict[str, list[tuple[str, np.ndarray]]] = {split: [] for split in SPLITS}
    for name, data in _files(path):
        if len(name.parts) >= 3 and name.parts[-3] in found:
            found[name.parts[-3]].append((name.parts[-2], _decode(name, data, image_size)))
    for split in SPLITS:
        if not found[split]:
            raise ValueError(
                f"{path} holds no pictures in {split}/<class>/; expected train and test"
            )
    names = {split: sorted({name for name, _ in found[split]}) for split in SPLITS}
    if names["train"] != names["test"]:
        raise ValueError(
            f"{path}: classes differ: train has {names['train']}, test has {names['test']}"
        )
    index = {name: i for i, name in enumerate(names["train"])}

    def split(name: str) -> Split:
        images = np.stack([picture for _, picture in found[name]]).transpose(0, 3, 1, 2)
        labels = [index[label] for label, _ in found[name]]
        return Split(torch.from_numpy(np.ascontiguousarray(images)), torch.tensor(labels))

    return ImageSet(split("train"), split("test"), tuple(names["train"]), path.name)


def download_cifar10(root: Path) -> ImageSet:
    """Download CIFAR-10 through torchvision into `root` (170 MB, once) and return it."""
    from torchvision.datasets import CIFAR10

    def split(train: bool) -> tuple[Split, list[str]]:
        data = CIFAR10(str(root), train=train, download=True)
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.tensor(data.targets)), data.classes

    (train, classes), (test, _) = split(True), split(False)
    return ImageSet(train, test, tuple(classes), "CIFAR-10")


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Map uint8 images (B, 3, H, W) to float ones: (image / 255 - mean) / std per channel."""
    return (images.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def random_crop_flip(images: Tensor, padding: int) -> Tensor:
    """Shift each image by up to `padding` pixels and mirror half of them.

    Args:
        images: uint8 (B, 3, S, S).
        padding: Largest shift in pixels; the space left free is black.

    Returns:
        uint8 (B, 3, S, S).
    """
    b, _, side, _ = images.shape
    device = images.device
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    dy, dx = torch.randint(0, 2 * padding + 1, (2, b, 1), device=device)
    rows = dy + torch.arange(side, device=device)  # (B, S)
    columns = dx + torch.arange(side, device=device)
    flip = torch.rand(b, 1, device=device) < 0.5
    columns = torch.where(flip, columns.flip(1), columns)
    batch = torch.arange(b, device=device)
    return padded[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )
