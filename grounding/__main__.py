"""Segments many pictures: `python -m grounding PICTURES... --prompt "a dog, a cat" --out DIR`.

Every picture gets a folder in DIR with the files that `grounding/export.py` lists. The same command
goes on where it stopped; a picture is done anew when it, the prompt or a setting has changed, or
when demo weights had made its answer and the public ones are there now.
"""

import argparse
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from tqdm import tqdm

from common.devices import DEVICES, find_device
from common.folders import make_writable
from common.images import MAX_SIDE, open_image
from grounding.answers import (
    Asked,
    demo_roles,
    find_pictures,
    read_manifest,
    replace_folder,
    source_of,
)
from grounding.export import Export, export_files, make_manifest
from grounding.grounders import GROUNDERS
from grounding.pipeline import run
from grounding.prompt import parse_prompt
from grounding.segmenters import SEGMENTERS
from grounding.select import Result
from grounding.store import Models, ModelStore
from grounding.weights import MODES, Origin, Weights, names

MAX_BYTES = 2**30  # of a picture on one's own disk
INTERRUPTED = 130

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


def now(function: Callable[..., T], *args: Any) -> Future[T]:
    """Call a function at once; the future holds what it returns, or the error."""
    done: Future[T] = Future()
    try:
        done.set_result(function(*args))
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
    answers = {name: read_manifest(args.out / name) for name in pictures}
    asked = {name: asked_of(path, args) for name, path in pictures.items()}
    done = {name for name in pictures if asked[name].items() <= answers[name].items()}
    print(f"Pictures: {len(pictures)}, of which {len(done)} were done before.")
    demo = {name: demo_roles(answers[name]) for name in done if args.weights != "demo"}
    bad = {}
    if len(done) < len(pictures) or any(demo.values()):
        make_writable(args.out)  # before the models look at anything
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
