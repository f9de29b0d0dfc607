"""Segments many pictures: `python -m grounding PICTURES... --prompt "a dog, a cat" --out DIR`.

Every picture gets a folder in DIR with the files that `grounding/export.py` lists. The same command
goes on where it stopped; a picture is done anew when it, the prompt or a setting has changed, or
when demo weights had made its answer and the public ones are there now.
"""

import argparse
import glob
import json
import math
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar

from PIL import Image
from tqdm import tqdm

from common.devices import DEVICES, find_device
from common.images import MAX_SIDE, SUFFIXES, open_image
from grounding.export import Export, File, export_files, make_manifest, write_all
from grounding.filenames import free_name
from grounding.grounders import GROUNDERS
from grounding.pipeline import run
from grounding.prompt import parse_prompt
from grounding.segmenters import SEGMENTERS
from grounding.select import Result
from grounding.store import Models, ModelStore
from grounding.weights import BUNDLED, MODES, Origin, Weights, names

MAX_BYTES = 2**30  # of a picture on one's own disk
INTERRUPTED = 130

Asked = dict[str, Any]
Marks = tuple[str, int | None, int | None]  # name, bytes and time of a file
P = ParamSpec("P")
T = TypeVar("T")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; the names of the models are those of the menus afterwards."""
    parser = argparse.ArgumentParser(
        prog="python -m grounding",
        description="Find what a prompt names in many pictures; write masks, COCO and YOLO files. "
        f"They are in pixels of the picture.png beside them: turned upright, {MAX_SIDE} at most.",
    )
    add = parser.add_argument
    add("pictures", nargs="+", help="files, folders (with all below them, but not through "
        "links) or patterns like *.jpg")  # fmt: skip
    add("--prompt", required=True, help='phrases separated by commas: "a dog, the blue car"')
    add("--out", required=True, type=Path, metavar="DIR", help="a folder per picture is made here")
    for flag, menu in {"--grounder": GROUNDERS, "--segmenter": SEGMENTERS}.items():
        add(flag, type=_named(menu), default=next(iter(menu)), metavar="NAME",
            help=f"{', '.join(menu)}; default: %(default)s")  # fmt: skip
    add("--threshold", type=_share, metavar="X", help="lowest score of a region, 0 to 1; "
        "default: the grounder's own")  # fmt: skip
    add("--device", default="auto", help=DEVICES)
    add("--weights", choices=MODES, default="auto", help="as for app.py")
    add("--weights-folder", type=Path, metavar="DIR", help="public weights as DIR/OWNER/NAME")
    add("--offline", action="store_true", help="never ask the Hugging Face hub")
    args = parser.parse_args(argv)
    if args.threshold is None:
        args.threshold = GROUNDERS[args.grounder].threshold
    return args


def _named(menu: Mapping[str, Any]) -> Callable[[str], str]:
    """Return a reader of names on a menu that does not mind the case."""

    def read(text: str) -> str:
        found = {name.casefold(): name for name in menu}.get(text.casefold())
        if found is None:
            raise argparse.ArgumentTypeError(f"{text!r} is none of: {', '.join(menu)}")
        return found

    return read


def _share(text: str) -> float:
    """Read a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return value


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


def asked_of(path: Path, args: argparse.Namespace) -> Asked:
    """Return what decides the answer for a picture: beside a manifest of the same it is done."""
    folder = args.weights_folder
    own = {"weights_folder": str(folder.resolve())} if folder else {}
    return {
        "prompt": args.prompt,
        "settings": {
            "grounder": args.grounder,
            "segmenter": args.segmenter,
            "threshold": args.threshold,
            "weights": args.weights,
            **own,
        },
        "source": source_of(path),
    }


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

    Raises:
        ValueError: If the folder holds something that is no answer of this program.
    """
    if folder.exists() and not read_manifest(folder):
        raise ValueError(f"{folder} is there already and holds no results; it is left alone.")
    part, old = (folder.with_name(f".{folder.name}.{state}") for state in ("part", "old"))
    _remove(part, old)  # from a run that was killed
    try:
        write_all(part, files)
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    finally:
        _remove(part, old)


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def write_answer(
    folder: Path, picture: Image.Image, result: Result, asked: Asked, origin: Origin
) -> None:
    """Write the answer for one picture."""
    manifest = make_manifest(result, asked, origin)
    replace_folder(folder, export_files(Export(picture, result, manifest)))


def segment_files(
    pictures: Mapping[str, Path], models: Models, args: argparse.Namespace
) -> dict[Path, str]:
    """Write the answers for many pictures.

    While the models look at one, the next is opened and the answer before is written.

    Returns:
        What went wrong with each bad picture, in a sentence.
    """
    bad = {}
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:

        def read(path: Path) -> tuple[Asked, Image.Image]:
            return asked_of(path, args), open_image(path, MAX_BYTES)

        def answer(name: str, opened: Future[tuple[Asked, Image.Image]]) -> Future[None]:
            asked, picture = opened.result()
            result = run(models, picture, args.prompt, args.threshold)
            folder = args.out / name
            return writer.submit(write_answer, folder, picture, result, asked, models.origin)

        opened = ahead(reader.submit(read, path) for path in pictures.values())
        written = ahead(now(answer, *each) for each in zip(pictures, opened, strict=True))
        steps = zip(pictures.values(), written, strict=True)
        for path, step in tqdm(steps, total=len(pictures), unit="picture", disable=None):
            try:
                step.result().result()
            except ValueError as error:
                bad[path] = str(error)
            except Exception as error:  # a full memory or disk at one picture must not stop others
                bad[path] = f"{type(error).__name__}: {error}"
    return bad


def ahead(steps: Iterable[T]) -> Iterator[T]:
    """Yield steps that take place elsewhere; each time the next one has been started already.

    >>> steps = ahead(print("start", i) or i for i in range(3))
    >>> for step in steps:
    ...     print("use", step)
    start 0
    start 1
    use 0
    start 2
    use 1
    use 2
    """
    started = deque[T]()
    for step in steps:
        started.append(step)
        if len(started) > 1:
            yield started.popleft()
    yield from started


def now(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Call a function at once; the future holds what it returns, or the error."""
    done: Future[T] = Future()
    try:
        done.set_result(function(*args, **kwargs))
    except Exception as error:  # Ctrl-C goes on up
        done.set_exception(error)
    return done


def load_models(args: argparse.Namespace) -> Models:
    """Load the models of the command line and print which weights they got."""
    device = find_device(args.device)  # say at once that it is missing, not after a download
    weights = Weights(args.weights, args.offline, args.weights_folder)
    models = ModelStore(weights, device).get(args.grounder, args.segmenter)
    sources = models.origin.sources.values()
    print(f"Weights in use: {names(sources)}, on {device}.", flush=True)
    return models


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 1 if a picture was bad."""
    args = parse_args(argv)
    parse_prompt(args.prompt)
    pictures = find_pictures(args.pictures, args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    answers = {name: read_manifest(args.out / name) for name in pictures}
    asked = {name: asked_of(path, args) for name, path in pictures.items()}
    done = {name for name in pictures if asked[name].items() <= answers[name].items()}
    print(f"Pictures: {len(pictures)}, of which {len(done)} were done before.")
    demo = {name: demo_roles(answers[name]) for name in done if args.weights != "demo"}
    bad = {}
    if len(done) < len(pictures) or any(demo.values()):
        with TemporaryDirectory(prefix=".", dir=args.out):
            pass  # before the models look at anything: files can be written there
        models = load_models(args)
        public = {role for role, source in models.origin.sources.items() if not source.demo}
        if again := {name for name, roles in demo.items() if roles & public}:
            print(f"Done again, because demo weights had made them: {len(again)}.", flush=True)
        left = {n: path for n, path in pictures.items() if n in again or n not in done}
        bad = segment_files(left, models, args)
    for path, sentence in bad.items():
        print(f"{path}: {sentence}", file=sys.stderr)
    print(f"Done: {len(pictures) - len(bad)} of {len(pictures)}.")
    if noted := sum(bool(read_manifest(args.out / name).get("notes")) for name in pictures):
        print(f"Something was left out of {noted}; the “notes” in their manifest.json say what.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a file on Windows takes few letters
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.exit(f"python -m grounding: {error}")
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        sys.exit(INTERRUPTED)
