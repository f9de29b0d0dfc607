"""Through `load_image_folder`, as that is what people call."""

import io
import itertools
import os
import random
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vit.test_data import COLOURS, files, png, write_folder, write_tar, write_zip
from vit.data import load_image_folder
from vit.files import find_files


def test_a_folder_that_cannot_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    root = write_folder(tmp_path, files())
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"cannot be read \(Permission denied\)"):
        load_image_folder(root, 8)


@pytest.mark.parametrize("folder", ["set/train/cow", "set/test/cow"])
def test_folders_without_pictures(tmp_path: Path, folder: str) -> None:
    """An extraction that stopped half-way leaves empty folders."""
    content = {name: data for name, data in files().items() if not name.startswith(f"{folder}/")}
    root = write_folder(tmp_path, content)
    (root / folder / ".hidden").mkdir(parents=True)
    (root / folder / "notes.txt").write_text("hello")
    with pytest.raises(
        ValueError, match=re.escape(f"class folders without pictures: ['{folder}']")
    ):
        load_image_folder(root, 8)


def test_linked_folders(tmp_path: Path) -> None:
    """A class may lie elsewhere; a link upwards is no way round and round."""
    root = write_folder(tmp_path, files())
    (root / "set/train/dog").rename(tmp_path / "dogs")
    (root / "set/train/dog").symlink_to(tmp_path / "dogs")
    (root / "set/train/cat/up").symlink_to(root)
    (root / "set/train/cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "set/train/cat/album.png").mkdir()
    data = load_image_folder(root, 8)
    assert data.classes == ("cat", "dog") and len(data.train.labels) == 4


def test_folders_that_are_linked_twice(tmp_path: Path) -> None:
    """Each link is a class of its own, also where it stands before the folder itself."""
    root = write_folder(tmp_path, files()) / "set/train"
    (root / "a").symlink_to("cat")
    assert load_image_folder(root, 8).classes == ("a", "cat", "dog")
    for split in ("train", "test"):
        (tmp_path / "linked" / split).mkdir(parents=True)
        for name in COLOURS:
            (tmp_path / "linked" / split / name).symlink_to(root / name)
    data = load_image_folder(tmp_path / "linked", 8)
    assert (len(data.train.labels), len(data.test.labels)) == (4, 4)


def test_folders_that_link_to_each_other(tmp_path: Path) -> None:
    places = [tmp_path / "set" / str(i) for i in range(9)]
    for place in places:
        place.mkdir(parents=True)
        (place / "0.png").write_bytes(png((1, 2, 3)))
    for place, other in itertools.permutations(places, 2):
        (place / f"to{other.name}").symlink_to(other)
    with pytest.raises(ValueError, match="class folders without pictures"):
        load_image_folder(tmp_path / "set", 8)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["nowhere.png", "0.png"])  # what is not there; itself
def test_links_in_an_archive_that_lead_nowhere(tmp_path: Path, kind: bytes, target: str) -> None:
    path = tmp_path / "data.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("train/cat/0.png")
        member.type = kind
        member.linkname = target if kind == tarfile.SYMTYPE else f"train/cat/{target}"
        archive.addfile(member)
    with pytest.raises(ValueError, match=r"data\.tar holds a link to what is not in it"):
        load_image_folder(path, 8)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_damage_under_other_compressions(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w", method) as archive:
        archive.writestr("train/cat/0.png", random.Random(0).randbytes(5000))
    data = bytearray((tmp_path / "data.zip").read_bytes())
    data[60:400] = bytes(340)
    (tmp_path / "data.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"data\.zip is damaged or cannot be unpacked"):
        load_image_folder(tmp_path / "data.zip", 8)


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere does not exist"):
        load_image_folder(tmp_path / "nowhere", 8)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.zip is no folder and no whole"):
        load_image_folder(tmp_path / "text.zip", 8)


@pytest.mark.parametrize("kind", ["xz", "gz", "bz2"])
def test_cut_off_archive(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"data.tar.{kind}"
    noise = random.Random(0).randbytes(300_000)  # stays as large when compressed
    with tarfile.open(path, f"w:{kind}") as archive:
        for name, data in (files() | {"set/readme.txt": noise}).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    path.write_bytes(path.read_bytes()[:150_000])
    with pytest.raises(ValueError, match=r"data\.tar\.\w+ is (damaged or cut off|no folder)"):
        load_image_folder(path, 8)


@pytest.mark.parametrize(
    ("member", "word"),
    [
        (b"PK", "damaged"),  # bytes of a picture that are others now
        (b"password", "password"),
    ],
)
def test_a_zip_that_cannot_be_unpacked(tmp_path: Path, member: bytes, word: str) -> None:
    path = write_zip(tmp_path, files())
    data = bytearray(path.read_bytes())
    if member == b"password":
        for start in (b"PK\x03\x04", b"PK\x01\x02"):  # the flag is 6 and 8 bytes behind
            data[data.find(start) + (6 if start.endswith(b"\x04") else 8)] |= 1
    else:
        data[data.find(b"IHDR") + 20] ^= 255
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=rf"data\.zip is damaged or cannot be unpacked.*{word}|CRC"
    ):
        load_image_folder(path, 8)


@pytest.mark.parametrize("write", [write_tar, write_zip])
@pytest.mark.parametrize("other", ["set/train/cow/0.ppm", "set/test/cow/notes.txt"])
def test_a_class_without_pictures_in_an_archive(
    tmp_path: Path, write: type(write_zip), other: str
) -> None:
    folder = other.rpartition("/")[0]
    with pytest.raises(ValueError, match=re.escape(f"folders without pictures: ['{folder}']")):
        load_image_folder(write(tmp_path, files() | {other: b"P6"}), 8)
    beside = {"set/train/list.csv": b"", "set/readme.txt": b"", "set/train/.cache/x.ppm": b""}
    beside |= {"cover.png": png((0, 0, 0)), "docs/readme.txt": b""}  # at the top are no classes
    assert len(load_image_folder(write(tmp_path, files() | beside), 8).train.labels) == 4


def test_names_in_a_zip_may_start_with_a_dot(tmp_path: Path) -> None:
    """As Python's and other tools write them: ./train/cat/0.png."""
    data = load_image_folder(write_zip(tmp_path, {f"./{n}": f for n, f in files().items()}), 8)
    assert len(data.train.labels) == 4


def test_names_in_a_zip_of_some_windows_programs(tmp_path: Path) -> None:
    content = {name.replace("/", "\\"): data for name, data in files().items()}
    assert len(load_image_folder(write_zip(tmp_path, content), 8).train.labels) == 4


def test_a_folder_in_a_zip_is_no_picture_whatever_its_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path, files())
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("set/train/cat/album.png")
    assert len(load_image_folder(path, 8).train.labels) == 4


def test_the_order_of_a_folder_is_that_of_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_folder(tmp_path, {name: png((i, 0, 0)) for i, name in enumerate(files())})
    expected, scandir = load_image_folder(root, 8).train.fingerprint(), os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: [*scandir(folder)][::-1])
    assert load_image_folder(root, 8).train.fingerprint() == expected


@pytest.mark.parametrize(
    ("write", "count"),
    [
        (write_folder, 6),
        (write_zip, None),
        (write_tar, None),  # only reading to its end would tell
    ],
)
def test_how_many_there_will_be(
    tmp_path: Path, write: Callable[..., Path], count: int | None
) -> None:
    found = find_files(write(tmp_path, files() | {"set/notes.txt": b"hello"}))
    assert found.count == count
    assert {str(name): data for name, data in found.each} == files()
