"""The files of pictures in a folder or an archive, one after the other."""

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.images import SUFFIXES

Name = PurePosixPath  # from the folder or archive on
File = tuple[Name, bytes]  # with what is in it
Member = tuple[Name, bool, Callable[[], bytes | None]]  # whether a folder; reads it


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
    raise ValueError(f"{path} is no folder and no whole .tar.* or .zip archive")


def _is_picture(name: Name) -> bool:
    return name.suffix.lower() in SUFFIXES and not _is_hidden(name)


def _is_hidden(name: Name) -> bool:
    # macOS adds hidden files that have a picture's suffix and are none, Jupyter hidden folders.
    return any(part.startswith(".") and part not in (".", "..") for part in name.parts)


def _refuse_empty(path: Path, filled: set[Name], others: Iterable[Name]) -> None:
    """Refuse folders in which there is no picture, beside those in which there are some."""
    around = {folder for name in filled for folder in (name, *name.parents)}
    beside = _around_classes(filled)
    if empty := sorted(str(name) for name in {*others} - around if name.parent in beside):
        raise ValueError(f"{path} has class folders without pictures: {empty}; fill or remove them")


def _around_classes(filled: set[Name]) -> set[Name]:
    return {folder.parent for folder in filled if folder.parts}  # a picture may lie at the top


def _names_in(root: Path) -> list[Name]:
    try:
        files = sorted(path for path in _walk(root) if path.is_file())
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read ({error.strerror})") from error
    names = [PurePosixPath(path.relative_to(root).as_posix()) for path in files]
    pictures = [name for name in names if _is_picture(name)]
    filled = {name.parent for name in pictures}
    _refuse_empty(root, filled, _folders_in(root, _around_classes(filled)))
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


def _folders_in(root: Path, places: set[Name]) -> Iterator[Name]:
    for place in places:
        for folder in (root / place).iterdir():
            if folder.is_dir() and not folder.name.startswith("."):
                yield PurePosixPath(folder.relative_to(root).as_posix())


def _folder_files(root: Path, names: list[Name]) -> Iterator[File]:
    for name in names:
        try:
            yield name, (root / name).read_bytes()
        except OSError as error:
            raise ValueError(f"{root / name} cannot be read ({error.strerror})") from error


def _pictures_of(path: Path, members: Iterable[Member]) -> Iterator[File]:
    """Yield the pictures in an archive.

    Raises:
        ValueError: At the end, if a folder beside those with pictures has none.
    """
    filled: set[Name] = set()
    others: set[Name] = set()
    for name, is_folder, read in members:
        content = None if is_folder or not _is_picture(name) else read()
        if content is not None:
            filled.add(name.parent)
            yield name, content
        elif not _is_hidden(name):
            others.add(name if is_folder else name.parent)
    _refuse_empty(path, filled, others)


def _tar_files(path: Path) -> Iterator[File]:
    def read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
        stream = archive.extractfile(member)  # None for what is no file
        return stream and stream.read()

    try:
        with tarfile.open(path) as archive:
            members = (
                (PurePosixPath(m.name), m.isdir(), partial(read, archive, m)) for m in archive
            )
            yield from _pictures_of(path, members)
    except (KeyError, RecursionError) as error:
        raise ValueError(
            f"{path} holds a link to what is not in it, or to itself; pack the files instead"
        ) from error
    except (tarfile.ReadError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise ValueError(f"{path} is damaged or cut off ({error}); get it again") from error


def _zip_files(path: Path) -> Iterator[File]:
    try:
        with zipfile.ZipFile(path) as archive:
            # Some programs on Windows write its own separators.
            members = (
                (PurePosixPath(m.filename.replace("\\", "/")), m.is_dir(), partial(archive.read, m))
                for m in archive.infolist()
            )
            yield from _pictures_of(path, members)
    # RuntimeError: it has a password, or is compressed in a rare way.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError,
            RuntimeError) as error:  # fmt: skip
        raise ValueError(f"{path} is damaged or cannot be unpacked ({error})") from error
