"""Pictures in class folders, or CIFAR-10, as uint8 tensors.

The whole set lives on the device as one tensor, so a batch is an index and augmentation is a few
tensor operations (`vit/augment.py`): no worker processes, no per-picture Python.
"""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.images import decode_image
from vit.checkpoint import Preprocessing
from vit.crop import Crop, cut
from vit.describe import count_classes
from vit.distributed import first_alone, rank
from vit.files import File, Files, find_files

SPLITS = ("train", "test")
CIFAR_SIDE = 32  # pixels
CIFAR_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
HELD_OUT = 5  # one in so many
PATIENCE = 2.0  # seconds of reading that nobody needs to see
NAMED = 10  # of the files that are no pictures
Place = tuple[str, ...]  # of a picture below its split: ..., class folder, file
Placed = tuple[Place, np.ndarray]  # with the picture, (S, S, 3)


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


def _decode(data: bytes, image_size: int) -> np.ndarray:
    image = decode_image(data)  # as on the page: 16 bits, transparency, damaged files
    return np.asarray(cut(image, Crop().box(image.size), image_size))  # the middle


def _watched(files: Files, name: str) -> Iterator[File]:
    """Show how far the reading is once it takes a while, as large photos do."""
    return tqdm(
        files.each,
        f"Reading {name}",
        files.count,
        leave=False,
        unit=" pictures",
        delay=PATIENCE,
        disable=rank() > 0,
    )


def _pictures(path: Path, image_size: int, splits: Sequence[str]) -> dict[str, list[Placed]]:
    """Read pictures by split, of those asked for; "" for those below neither train/ nor test/.

    All are tried, so that whoever has to mend some gets to know all of them at once.
    """
    found: dict[str, list[Placed]] = {"train": [], "test": [], "": []}
    broken: dict[str, list[str]] = {"train": [], "test": [], "": []}
    has_splits = False
    for name, data in _watched(find_files(path), (Path.cwd() / path).name):
        split, place = _place(name)
        if len(place) < 2 or (has_splits and not split):
            continue
        if split:
            has_splits = True
            _check_depth(path, [place], f"{split}/")
        _check_class(path, place[-2])
        if split and split not in splits:
            continue
        try:
            found[split].append((place, _decode(data, image_size)))
        except ValueError as error:
            broken[split].append(f"{name}: {error}")
    _refuse_broken(path, broken["train"] + broken["test"] if has_splits else broken[""])
    if has_splits:
        found[""] = []
    _check_depth(path, _inside([place for place, _ in found[""]]))
    # In the order of the files' names, whichever the archive has: what is held out must not change.
    return {split: sorted(pictures, key=itemgetter(0)) for split, pictures in found.items()}


def _refuse_broken(path: Path, broken: list[str]) -> None:
    if not broken:
        return
    lines = [f"{path} holds files that are no pictures ({len(broken)}); mend or remove them:"]
    lines += broken[:NAMED]
    lines += ["..."] if len(broken) > NAMED else []
    raise ValueError("\n".join(lines))


def _place(name: PurePosixPath) -> tuple[str, Place]:
    """Return the split that a picture belongs to, or "", and its path from there on."""
    for i in reversed(range(len(name.parts) - 2)):
        if (split := name.parts[i].lower()) in SPLITS:
            return split, name.parts[i + 1 :]
    return "", name.parts


def _inside(places: list[Place]) -> list[Place]:
    """Leave out the folders around all classes."""
    while len({place[0] for place in places}) == 1 and min(map(len, places)) > 2:
        places = [place[1:] for place in places]
    return places


def _check_depth(path: Path, places: list[Place], split: str = "") -> None:
    """Refuse folders inside class folders, where no one can say which of them is the class."""
    if deep := next((place for place in places if len(place) > 2), None):
        raise ValueError(
            f"{split}{'/'.join(deep)} in {path} lies in a folder inside a class folder; pictures "
            "must lie in the class folders themselves"
        )


def _check_class(path: Path, name: str) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ValueError(f"the class folder {name!a} in {path} has no UTF-8 name")


def _hold_out_some(path: Path, pictures: list[Placed]) -> dict[str, list[Placed]]:
    """Hold out about one in five of each class, at least one and at most half, by their names.

    Names and not places decide, as in TensorFlow's retrain.py (https://github.com/tensorflow/hub):
    pictures that are added later do not move those that have been learnt into the test.
    """
    classes: dict[str, list[Place]] = defaultdict(list)
    for place, _ in pictures:
        classes[_class(place)].append(place)
    if few := sorted(label for label, places in classes.items() if len(places) < 2):
        raise ValueError(f"{path} has one picture only of {few}; at least 2 a class are needed")
    held: set[Place] = set()
    for places in classes.values():
        places.sort(key=_draw)
        count = sum(_draw(place) < 1 / HELD_OUT for place in places)
        held.update(places[: min(max(1, count), len(places) // 2)])
    splits: dict[str, list[Placed]] = {"train": [], "test": []}
    for place, picture in pictures:
        splits["test" if place in held else "train"].append((place, picture))
    return splits


def _draw(place: Place) -> float:
    """Return a number in [0, 1) that depends on the names of class and file alone."""
    name = unicodedata.normalize("NFC", "/".join(place[-2:])).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(name).digest()[:6]) / 2**48


def _class(place: Place) -> str:
    return unicodedata.normalize("NFC", place[-2])  # Macs may write é as two characters


def load_image_folder(path: Path, image_size: int, splits: Sequence[str] = SPLITS) -> ImageSet:
    """Read `train|test/<class>/*` or plain `<class>/*` from a folder or archive.

    Without train/ and test/, about every fifth picture of a class, chosen by its file's name, is in
    the test split; the name of the set then says so.

    Args:
        path: The folder, or a `.tar`, `.tar.gz`, `.tar.xz` or `.zip` with the same layout inside.
        image_size: Side S to which the middle square of other sizes is scaled, in pixels.
        splits: Which are needed. What lies in the other's folder is not looked at; it is empty.

    Raises:
        ValueError: If the path is missing or damaged, a split or a class folder has no pictures or
            the splits' classes differ.
    """
    found, name = _pictures(path, image_size, splits), (Path.cwd() / path).name
    if found[""]:
        found = _hold_out_some(path, found[""])
        name = f"{name} (about every {HELD_OUT}th picture of a class held out)"
    for split in splits:
        if not found[split]:
            raise ValueError(
                f"{path} holds no pictures in {split}/<class>/; expected {' and '.join(splits)}, "
                "or class folders only"
            )
    names = {split: sorted({_class(place) for place, _ in found[split]}) for split in splits}
    classes = names["test"]
    if differ := [split for split in splits if names[split] != classes]:
        raise ValueError(
            f"{path}: classes differ: {differ[0]} has {names[differ[0]]}, test has {classes}"
        )
    if len(classes) == 1:
        raise ValueError(f"{path} has pictures of {classes} only; two classes are needed")
    train, test = (_to_split(found[split], classes, image_size) for split in SPLITS)
    return ImageSet(train, test, tuple(classes), name)


def _to_split(pictures: list[Placed], classes: list[str], image_size: int) -> Split:
    images = np.empty((len(pictures), 3, image_size, image_size), np.uint8)
    for image, (_, picture) in zip(images, pictures, strict=True):
        image[:] = picture.transpose(2, 0, 1)
    labels = [classes.index(_class(place)) for place, _ in pictures]
    return Split(torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64))


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


def load_data(path: Path | None, image_size: int, splits: Sequence[str] = SPLITS) -> ImageSet:
    """Read the pictures at `path`, or download CIFAR-10 if it is None, and say what was found.

    Args:
        path: As for `load_image_folder`.
        image_size: Side of the pictures, in pixels.
        splits: Which are needed; with "test" alone the training pictures may be missing.

    Raises:
        ValueError: If they cannot be had, or CIFAR-10 not in that size.
    """
    if not path and image_size != CIFAR_SIDE:
        raise ValueError(
            f"the model takes pictures of {image_size} pixels, and those of CIFAR-10 have "
            f"{CIFAR_SIDE}; give --data PATH, whose pictures are scaled"
        )
    data = first_alone(
        lambda: (
            load_image_folder(path, image_size, splits) if path else download_cifar10(Path("data"))
        )
    )
    if rank() == 0:
        trained = f"{len(data.train.labels):,} training and " if "train" in splits else ""
        print(f"{data.name}: {trained}{len(data.test.labels):,} test pictures of "
              f"{count_classes(data.classes)}")  # fmt: skip
        print(describe_commonest(data))
    return data


def describe_commonest(data: ImageSet) -> str:
    """Say how often it would be right to give always the same answer."""
    most, share = always_the_same(data)
    return (
        f"Always answering {data.classes[most]} would be right on {100 * share:.1f} % of the "
        f"{len(data.test.labels):,}"
    )


def always_the_same(data: ImageSet) -> tuple[int, float]:
    """Return the commonest label in training, and its share of the test pictures.

    An accuracy means little that is not well above this one. Without training pictures it is the
    commonest of the others.
    """
    labels = data.train.labels if len(data.train.labels) else data.test.labels
    most = int(labels.bincount().argmax())
    return most, float((data.test.labels == most).float().mean())


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
    """Return `data` with `count` of its training pictures, always the same ones, or with all."""
    images = len(data.train.labels)
    if count >= images:
        return data
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
