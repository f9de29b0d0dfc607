"""The files of pictures in a folder or an archive, one after the other."""

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.images import SUFFIXES

File = tuple[PurePosixPath, bytes]  # its name from the folder or archive on, and what is in it


class Files(NamedTuple):
    """Hold an iterator over files, and how many there are if that can be known beforehand."""

    each: Iterator[File]
    count: int | None


def find_files(path: Path) -> Files:
    """Return the files in a folder or archive whose names are those of pictures.

    Args:
        path: The folder, or a `.tar`, `.tar.gz`, `.tar.xz` or `.zip`.

    Raises:
        ValueError: If it is missing or damaged, or a class folder has no pictures; in part only
            once the files are read.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a folder or a .tar.* or .zip archive")
    if path.is_dir():
        names = _names_in(path)
        return Files(_folder_files(path, names), len(names))
    if tarfile.is_tarfile(path):
        return Files(_tar_files(path), None)
    if zipfile.is_zipfile(path):
        return Files(_zip_files(path), None)
    raise ValueError(f"{path} is neither a folder nor a .tar.* or .zip archive")


def _is_picture(name: PurePosixPath) -> bool:
    # macOS adds hidden files that have a picture's suffix and are none, Jupyter hidden folders.
    hidden = any(part.startswith(".") and part not in (".", "..") for part in name.parts)
    return name.suffix.lower() in SUFFIXES and not hidden


def _names_in(root: Path) -> list[PurePosixPath]:
    try:
        files = sorted(path for path in _walk(root) if path.is_file())
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read ({error.strerror})") from error
    names = [PurePosixPath(path.relative_to(root).as_posix()) for path in files]
    pictures = [name for name in names if _is_picture(name)]
    if empty := _empty_class_folders(root, pictures):
        raise ValueError(f"{root} has class folders without pictures: {empty}; fill or remove them")
    return pictures


def _walk(folder: Path, around: frozenset[str] = frozenset(), links: int = 2) -> Iterator[Path]:
    """Yield all files below a folder, also behind links, but for those back to a folder around.

    Behind two links, of a split and a class in it, no more are followed: where folders link to each
    other there would be no end.
    """
    around |= {os.path.realpath(folder)}
    for entry in os.scandir(folder):
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


def _folder_files(root: Path, names: list[PurePosixPath]) -> Iterator[File]:
    for name in names:
        try:
            yield name, (root / name).read_bytes()
        except OSError as error:
            raise ValueError(f"{root / name} cannot be read ({error.strerror})") from error


def _tar_files(path: Path) -> Iterator[File]:
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


def _zip_files(path: Path) -> Iterator[File]:
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
