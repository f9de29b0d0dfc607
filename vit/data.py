"""Pictures in class folders, or CIFAR-10, as uint8 tensors.

The whole set lives on the device as one tensor, so a batch is an index and augmentation is a few
tensor operations (`vit/augment.py`): no worker processes, no per-picture Python.
"""

import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from common.images import SUFFIXES, decode_image
from vit.checkpoint import Preprocessing
from vit.crop import Crop, cut
from vit.describe import count_classes
from vit.distributed import first_alone, rank

SPLITS = ("train", "test")
CIFAR_SIDE = 32  # pixels
HOLD_OUT_EVERY = 5
Labelled = list[tuple[str, np.ndarray]]  # class names and pictures (S, S, 3)


def _is_picture(name: PurePosixPath) -> bool:
    # macOS adds hidden files that have a picture's suffix and are none, Jupyter hidden folders.
    hidden = any(part.startswith(".") and part not in (".", "..") for part in name.parts)
    return name.suffix.lower() in SUFFIXES and not hidden


@dataclass(frozen=True)
class Split:
    """Hold pictures and labels: images uint8 (N, 3, S, S) and labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Split":
        """Return the same split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the pictures and their labels, in their order; on a CPU only."""
        digest = hashlib.sha256(self.images.numpy())
        digest.update(self.labels.numpy())
        return digest.hexdigest()


@dataclass(frozen=True)
class ImageSet:
    """Hold a training and a test split, the class names in label order, and the set's own name."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    name: str


def _folder_files(root: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    try:
        files = sorted(path for path in _walk(root) if path.is_file())
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read ({error.strerror})") from error
    names = [PurePosixPath(path.relative_to(root).as_posix()) for path in files]
    pictures = [name for name in names if _is_picture(name)]
    if empty := _empty_class_folders(root, pictures):
        raise ValueError(f"{root} has class folders without pictures: {empty}; fill or remove them")
    for name in pictures:
        try:
            yield name, (root / name).read_bytes()
        except OSError as error:
            raise ValueError(f"{root / name} cannot be read ({error.strerror})") from error


def _walk(folder: Path, around: frozenset[str] = frozenset(), links: int = 2) -> Iterator[Path]:
    """Yield all files below a folder, also behind links, but for those back to a folder around.

    Behind two links, of a split and a class in it, no more are followed: where folders link to each
    other there would be no end.
    """
    around |= {os.path.realpath(folder)}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        left = links - entry.is_symlink()
        if not entry.is_dir():
            yield Path(entry.path)
        elif left >= 0 and os.path.realpath(entry.path) not in around:
            yield from _walk(Path(entry.path), around, left)


def _empty_class_folders(root: Path, pictures: list[PurePosixPath]) -> list[str]:
    filled = {folder for name in pictures for folder in name.parents}
    beside = {name.parents[1] for name in pictures if len(name.parts) > 1}
    return sorted(
        folder.relative_to(root).as_posix()
        for place in beside
        for folder in (root / place).iterdir()
        if folder.is_dir()
        and not folder.name.startswith(".")
        and PurePosixPath(folder.relative_to(root).as_posix()) not in filled
    )


def _tar_files(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if _is_picture(name) and (stream := archive.extractfile(member)):
                    yield name, stream.read()
    except (KeyError, RecursionError) as error:
        raise ValueError(
            f"{path} holds a link to what is not in it, or to itself; pack the files instead"
        ) from error
    except (tarfile.ReadError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise ValueError(f"{path} is damaged or cut off ({error}); get it again") from error


def _zip_files(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                # Some programs on Windows write its own separators.
                name = PurePosixPath(member.filename.replace("\\", "/"))
                if _is_picture(name) and not member.is_dir():
                    yield name, archive.read(member)
    # RuntimeError: it has a password, or is compressed in a rare way.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError,
            RuntimeError) as error:  # fmt: skip
        raise ValueError(f"{path} is damaged or cannot be unpacked ({error})") from error


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
        image = decode_image(data)  # as on the page: 16 bits, transparency, damaged files
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return np.asarray(cut(image, Crop().box(image.size), image_size))  # the middle


def _pictures(path: Path, image_size: int) -> dict[str, Labelled]:
    """Read class names and pictures by split; "" for those below neither train/ nor test/."""
    found: dict[str, Labelled] = {"train": [], "test": [], "": []}
    plain: list[tuple[str, ...]] = []
    has_splits = False
    for name, data in _files(path):
        split, place = _place(name)
        if len(place) >= 2 and (split or not has_splits):
            if split:
                has_splits = True
                _check_depth(path, [place], f"{split}/")
            else:
                plain.append(place)
            if any("\ud800" <= letter <= "\udfff" for letter in name.parts[-2]):
                raise ValueError(f"the class folder {name.parts[-2]!a} in {path} has no UTF-8 name")
            found[split].append((name.parts[-2], _decode(name, data, image_size)))
    if not has_splits:
        _check_depth(path, _inside(plain))
    # In the order of the files' names, whichever the archive has: what is held out must not change.
    order = sorted(range(len(plain)), key=plain.__getitem__)
    return found | {"": [found[""][i] for i in order]}


def _place(name: PurePosixPath) -> tuple[str, tuple[str, ...]]:
    """Return the split that a picture belongs to, or "", and its path from there on."""
    for i in reversed(range(len(name.parts) - 2)):
        if (split := name.parts[i].lower()) in SPLITS:
            return split, name.parts[i + 1 :]
    return "", name.parts


def _inside(places: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Leave out the folders around all classes."""
    while len({place[0] for place in places}) == 1 and min(map(len, places)) > 2:
        places = [place[1:] for place in places]
    return places


def _check_depth(path: Path, places: list[tuple[str, ...]], split: str = "") -> None:
    """Refuse folders inside class folders, where no one can say which of them is the class."""
    if deep := next((place for place in places if len(place) > 2), None):
        raise ValueError(
            f"{split}{'/'.join(deep)} in {path} lies in a folder inside a class folder; pictures "
            "must lie in the class folders themselves"
        )


def _hold_out_every(path: Path, pictures: Labelled) -> dict[str, Labelled]:
    counts = Counter(label for label, _ in pictures)
    if few := sorted(label for label, count in counts.items() if count < 2):
        raise ValueError(f"{path} has one picture only of {few}; at least 2 a class are needed")
    splits: dict[str, Labelled] = {"train": [], "test": []}
    seen: Counter[str] = Counter()
    for label, picture in pictures:
        splits["train" if seen[label] % HOLD_OUT_EVERY else "test"].append((label, picture))
        seen[label] += 1
    return splits


def load_image_folder(path: Path, image_size: int) -> ImageSet:
    """Read `train|test/<class>/*` or plain `<class>/*` from a folder or archive.

    Without train/ and test/, the first picture of a class and every fifth after it, in the order of
    the files' names, are the test split; the name of the set then says so.

    Args:
        path: The folder, or a `.tar`, `.tar.gz`, `.tar.xz` or `.zip` with the same layout inside.
        image_size: Side S to which the middle square of other sizes is scaled, in pixels.

    Raises:
        ValueError: If the path is missing or damaged, a split or a class folder has no pictures or
            the splits' classes differ.
    """
    found, name = _pictures(path, image_size), (Path.cwd() / path).name
    if found[""] and not (found["train"] or found["test"]):
        found = _hold_out_every(path, found[""])
        name = f"{name} (every {HOLD_OUT_EVERY}th picture of a class held out)"
    for split in SPLITS:
        if not found[split]:
            raise ValueError(
                f"{path} holds no pictures in {split}/<class>/; expected train and test, or "
                "class folders only"
            )
    names = {split: sorted({name for name, _ in found[split]}) for split in SPLITS}
    if names["train"] != names["test"]:
        raise ValueError(
            f"{path}: classes differ: train has {names['train']}, test has {names['test']}"
        )
    train, test = (_to_split(found[split], names["train"]) for split in SPLITS)
    return ImageSet(train, test, tuple(names["train"]), name)


def _to_split(pictures: Labelled, classes: list[str]) -> Split:
    images = np.stack([picture for _, picture in pictures]).transpose(0, 3, 1, 2)
    labels = [classes.index(label) for label, _ in pictures]
    return Split(torch.from_numpy(np.ascontiguousarray(images)), torch.tensor(labels))


def download_cifar10(root: Path) -> ImageSet:
    """Download CIFAR-10 through torchvision into `root` (170 MB, once) and return it.

    Raises:
        ValueError: If it cannot be had.
    """
    from torchvision.datasets import CIFAR10

    def split(train: bool) -> tuple[Split, list[str]]:
        data = CIFAR10(str(root), train=train, download=True)
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.tensor(data.targets)), data.classes

    try:
        (train, classes), (test, _) = split(True), split(False)
    except (OSError, RuntimeError) as error:  # no internet, a full disk; half a file
        raise ValueError(f"CIFAR-10 cannot be downloaded ({error}); give --data PATH") from error
    return ImageSet(train, test, tuple(classes), "CIFAR-10")


def load_data(path: Path | None, image_size: int) -> ImageSet:
    """Read the pictures at `path`, or download CIFAR-10 if it is None, and say what was found.

    Raises:
        ValueError: If they cannot be had, or CIFAR-10 not in that size.
    """
    if not path and image_size != CIFAR_SIDE:
        raise ValueError(
            f"the model takes pictures of {image_size} pixels, and those of CIFAR-10 have "
            f"{CIFAR_SIDE}; give --data PATH, whose pictures are scaled"
        )
    data = first_alone(
        lambda: load_image_folder(path, image_size) if path else download_cifar10(Path("data"))
    )
    if rank() == 0:
        print(f"{data.name}: {len(data.train.labels):,} training and {len(data.test.labels):,} "
              f"test pictures of {count_classes(data.classes)}")  # fmt: skip
    return data


def hold_out(data: ImageSet, count: int) -> ImageSet:
    """Return `data` with `count` training pictures, always the same, as its test split.

    Raises:
        ValueError: If no training picture would be left.
    """
    images = len(data.train.labels)
    if count >= images:
        raise ValueError(f"holdout is {count}; it must be below the {images} training pictures")
    held, kept = random_split(data.train, count)
    return replace(data, train=kept, test=held, name=f"{data.name} (held-out training pictures)")


def take(data: ImageSet, count: int) -> ImageSet:
    """Return `data` with `count` of its training pictures, always the same ones.

    Raises:
        ValueError: If there are not that many.
    """
    images = len(data.train.labels)
    if count > images:
        raise ValueError(f"train_images is {count}; there are {images} training pictures")
    name = f"{data.name} (trained on {count:,} of {images:,})"
    return replace(data, train=random_split(data.train, count)[0], name=name)


def random_split(split: Split, count: int) -> tuple[Split, Split]:
    """Return `count` pictures, or all if there are fewer, and the others; always the same ones."""
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))
    order = order.to(split.labels.device)
    first, rest = (
        Split(split.images[chosen], split.labels[chosen])
        for chosen in (order[:count], order[count:])
    )
    return first, rest


def statistics(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the mean (3,) and standard deviation (3,), float32 on `device`, for `normalize`."""
    mean, std = torch.tensor([preprocessing.mean, preprocessing.std], device=device)
    return mean, std


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Map uint8 images (B, 3, H, W) to float ones: (image / 255 - mean) / std per channel."""
    return (images.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
