"""The answers of the folder command in a folder: a folder each, known by its manifest.

Which picture has which, under which name a new one comes, and how one replaces another.
"""

import glob
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from common.images import SUFFIXES
from grounding.export import File, name_of_row, write_all
from grounding.filenames import free_name
from grounding.weights import BUNDLED

OF_ROWS = ("masks", "cutouts")  # folders with a file for each row
Asked = dict[str, Any]
Marks = tuple[str, int | None, int | None]  # name, bytes and time of a file


def find_pictures(arguments: Iterable[str], out: Path) -> dict[str, Path]:
    """Return the pictures that files, folders and patterns stand for, each under its own name.

    A folder stands for the pictures below it, in order of their paths, but not for hidden ones;
    neither a folder nor a pattern stands for an answer of this program. A name in use in the folder
    `out` stays with the picture that has it, also if that has moved.

    Raises:
        ValueError: If an argument stands for nothing.
    """
    pictures: dict[Path, str] = {}
    named, gone, taken = _present(out)
    for argument in arguments:
        found = list(_expand(argument))
        if not found:
            raise ValueError(f"There is no picture at {argument!r}, as file, folder or pattern.")
        for path, relative in found:
            if (place := path.resolve()) not in pictures:
                name = named.get(place) or gone.pop(_marks(source_of(place)), None)
                pictures[place] = name or free_name(relative, taken)
    return {name: path for path, name in pictures.items()}


def _present(out: Path) -> tuple[dict[Path, str], dict[Marks, str], set[str]]:
    """Return what there is in a folder.

    Returns:
        The name of each answer by its picture; those whose picture is gone by the marks by which it
        is known again elsewhere; and all names in lower case.
    """
    folders = sorted(out.glob("[!.]*"), reverse=True)
    manifests = {folder.name: read_manifest(folder) for folder in folders}
    sources = {name: manifest["source"] for name, manifest in manifests.items() if manifest}
    named = {Path(source["path"]): name for name, source in sources.items()}
    # Path.exists raises an error where it may not look.
    gone = {
        _marks(source): name
        for name, source in sources.items()
        if not os.path.exists(source["path"])  # noqa: PTH110
    }
    return named, gone, {name.casefold() for name in manifests}


def _marks(source: Asked) -> Marks:
    return Path(source["path"]).name, source.get("bytes"), source.get("mtime_ns")


def _expand(argument: str) -> Iterator[tuple[Path, Path]]:
    """Yield each picture with the path to name it by, which is relative to a given folder."""
    # Not every shell expands patterns (and Path.glob takes none that is absolute), but a file may
    # be called [1].png.
    patterns = () if Path(argument).exists() else glob.glob(argument, recursive=True)  # noqa: PTH207
    for place in map(Path, sorted(patterns) or [argument]):
        # As below: Path's own functions raise errors where a folder may not be entered.
        if os.path.isfile(place) and not (patterns and _is_answer(place)):  # noqa: PTH113
            yield place, Path(place.name)
        for path in sorted(place.rglob("*")) if os.path.isdir(place) else ():  # noqa: PTH112
            if path.suffix.lower() in SUFFIXES and _is_input(path, path.relative_to(place)):
                yield path, path.relative_to(place)


def _is_input(path: Path, relative: Path) -> bool:
    """Return whether a picture is neither hidden, like macOS's ._photo.jpg, nor an answer."""
    hidden = any(part.startswith(".") for part in relative.parts)
    # Path.is_file raises an error where a folder may be listed and not entered.
    return not hidden and os.path.isfile(path) and not _is_answer(path)  # noqa: PTH113


def _is_answer(path: Path) -> bool:
    return any(map(read_manifest, path.parents[:2]))


def source_of(path: Path) -> Asked:
    """Return where a picture is, and by what a change of it is seen."""
    stat = path.stat()
    return {
        "path": str(path.resolve()),
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
    }


def read_manifest(folder: Path) -> Asked:
    """Return the manifest in a folder; empty if there is none, or it is not ours."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        Path(manifest["source"]["path"])
        demo_roles(manifest)
        return manifest if {"prompt", "rows"} <= manifest.keys() else {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # or of somebody else
        return {}


def demo_roles(manifest: Asked) -> set[str]:
    """Return which of the models that made an answer had the bundled weights."""
    return {role for role, model in manifest["models"].items() if model["weights"] == BUNDLED}


def replace_folder(folder: Path, files: Iterable[File]) -> None:
    """Write files into a folder that appears, or replaces an older answer, only as a whole.

    What somebody has put beside the older answer stays there.

    Raises:
        ValueError: If the folder holds something that is no answer of this program.
    """
    if folder.exists() and not read_manifest(folder):
        raise ValueError(f"{folder} is there already and holds no results; it is left alone.")
    part, old = (folder.with_name(f".{folder.name}.{state}") for state in ("part", "old"))
    _settle(folder, part, old)  # after a run that was killed
    try:
        write_all(part, files)
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    finally:
        _settle(folder, part, old)


def _settle(folder: Path, part: Path, old: Path) -> None:
    """Take away what is left of a new answer that did not come, or of an older one before it."""
    shutil.rmtree(part, ignore_errors=True)
    if old.exists() and not folder.exists():
        old.rename(folder)
    elif old.exists():
        _take_over(old, folder)
        shutil.rmtree(old, ignore_errors=True)


def _take_over(old: Path, folder: Path) -> None:
    """Move what somebody has put into the folder of an older answer to that of the new one."""
    rows = read_manifest(old).get("rows", [])
    names = [name_of_row(row["number"], row["phrase"]) for row in rows]
    made = {*OF_ROWS, *(f"{place}/{name}" for place in OF_ROWS for name in names)}
    for path in chain(old.glob("*"), *(old.glob(f"{place}/*") for place in OF_ROWS)):
        name = path.relative_to(old)
        if name.as_posix() not in made and not (folder / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            path.rename(folder / name)
