"""Results as files: pictures, COCO, YOLO, a manifest; in a folder or a ZIP.

`export_files` makes them one at a time, `write_all` and `write_zip` put them on the disk:

    picture.png            the picture as the models saw it; all pixels below are pixels of it
    overlay.png            masks and boxes over the picture, at most 1280 pixels long
    masks/01-a-dog.png     a mask each, 0 or 255; the number is that of the row
    labels.png             16-bit label map: 0 = nothing, else the number of the row
    cutouts/01-a-dog.png   a transparent cut-out each, cropped to the mask
    coco.json              COCO annotations with RLE and polygons
    yolo.txt               YOLO-seg: a line each, class (place in the prompt, from 0) and polygon
    manifest.json          what was asked, what answered, the rows, and notes on what was left out
"""

import json
import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from grounding.core import mask_box
from grounding.filenames import safe_name
from grounding.outlines import join_rings, polygons, rle_string
from grounding.overlay import Style, annotations, draw_regions, paint, phrase_colours
from grounding.select import Result
from grounding.weights import Origin, Source

ARCHIVE = "segmentation.zip"  # of several files
CHANGES = Path(__file__).parent.parent / "CHANGES.md"
TO_BGR = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}

File = tuple[str, bytes]
Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Export:
    """Hold what files are made of.

    Attributes:
        picture: RGB, of the size of the masks.
        result: What was found; N = 0 gives valid files, too.
        manifest: What `make_manifest` returns.
        style: How masks are painted.
    """

    picture: Image.Image
    result: Result
    manifest: Manifest
    style: Style = field(default_factory=Style)


def overlay_picture(export: Export) -> Image.Image:
    """Paint masks, boxes, phrases and scores over the picture, as the page does, and as large."""
    picture, result = export.picture, export.result
    regions, colours = result.regions, phrase_colours(result.phrases)
    shown, pairs = annotations(picture, regions.labels, result.masks.masks, export.style)
    # Not one factor: what is a pixel wide stays so.
    x, y = shown.width / picture.width, shown.height / picture.height
    boxes = regions.boxes * np.array([x, y, x, y], np.float32)
    painted = paint(shown, pairs, colours)
    regions = replace(regions, boxes=boxes, heatmap=None)
    return draw_regions(painted, regions, result.numbers, colours)


def label_map(result: Result) -> np.ndarray:
    """Return uint16 (H, W): 0 = nothing, else the number of the row.

    Where masks overlap, the one of the higher grounder score wins; at equal scores the upper row.
    """
    masks, scores = result.masks.masks, result.regions.scores
    labels = np.zeros(masks.shape[1:], np.uint16)
    for i in sorted(range(len(masks)), key=lambda i: (scores[i], -i)):
        labels[masks[i]] = result.numbers[i]
    return labels


def cutout(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """Return the part of the picture under a non-empty bool mask (H, W), cropped, as RGBA.

    Transparent pixels are black, so that nothing from outside the mask is in the file.
    """
    box = x1, y1, x2, y2 = mask_box(mask)
    part = mask[y1:y2, x1:x2, None]
    return Image.fromarray(np.dstack([picture.crop(box), np.full_like(part, 255, np.uint8)]) * part)


def coco(result: Result) -> dict[str, Any]:
    """Return the result as a COCO data set of one picture.

    Categories are the phrases in the prompt's order, their ids count from 1; those of annotations
    are the numbers of the rows. `segmentation` is the RLE, which gives each mask back bit for bit;
    `polygons` beside it (one a part, holes bridged) are for tools that want outlines. Format:
    https://cocodataset.org/#format-data.
    """
    height, width = result.masks.masks.shape[1:]
    names = [{"id": i, "name": phrase} for i, phrase in enumerate(result.phrases, start=1)]
    return {
        "info": {"description": ", ".join(result.phrases)},
        "images": [{"id": 1, "file_name": "picture.png", "width": width, "height": height}],
        "categories": names,
        "annotations": [_annotation(result, i) for i in range(len(result.masks))],
    }


def _annotation(result: Result, row: int) -> dict[str, Any]:
    mask = result.masks.masks[row]
    x1, y1, x2, y2 = mask_box(mask)
    return {
        "id": result.numbers[row],
        "image_id": 1,
        "category_id": result.phrases.index(result.regions.labels[row]) + 1,
        "segmentation": _rle(mask),
        "polygons": [part.ravel().tolist() for part in polygons(mask)],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "score": _rounded(result.regions.scores[row]),
    }


def _rle(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": rle_string(mask)}


def yolo(result: Result) -> str:
    """Return a line per mask: class, then x and y of its polygon as shares of width and height.

    The class is the phrase's place in the prompt, from 0. All parts and holes of a mask are
    bridged into one polygon (see `join_rings`); an empty mask has no line. Format:
    https://docs.ultralytics.com/datasets/segment/.
    """
    size = result.masks.masks.shape[:0:-1]
    lines = []
    for mask, label in zip(result.masks.masks, result.regions.labels, strict=True):
        if mask.any():
            shares = (join_rings(polygons(mask)) / size).ravel()
            numbers = " ".join(f"{share:.6f}" for share in shares)
            lines.append(f"{result.phrases.index(label)} {numbers}\n")
    return "".join(lines)


def detections(result: Result) -> list[dict[str, Any]]:
    """Return what a program needs of each row: the manifest's facts and the mask as COCO's RLE."""
    return [_row(result, i) | {"rle": _rle(mask)} for i, mask in enumerate(result.masks.masks)]


def make_manifest(result: Result, asked: Manifest, origin: Origin) -> dict[str, Any]:
    """Return what makes a result understandable, and repeatable, a year later.

    Args:
        result: The answer.
        asked: What was asked, as JSON can hold it: `prompt`, `settings`, among which are the names
            of both models, and what else the caller knows of the picture.
        origin: The weights, and where the models ran.
    """
    height, width = result.masks.masks.shape[1:]
    return {
        **asked,
        "phrases": list(result.phrases),
        "models": {
            role: _model(asked["settings"][role], source) for role, source in origin.sources.items()
        },
        "device": origin.device,
        "versions": _versions(),
        "picture": {"width": width, "height": height},
        "seconds": {stage: _rounded(seconds) for stage, seconds in result.seconds.items()},
        "notes": result.notes,
        "rows": [_row(result, i) for i in range(len(result.masks))],
    }


def _model(name: str, source: Source) -> dict[str, str | None]:
    return {"name": name, "weights": source.name, "revision": source.revision}


def _row(result: Result, row: int) -> dict[str, Any]:
    return {
        "number": result.numbers[row],
        "phrase": result.regions.labels[row],
        "grounder_score": _rounded(result.regions.scores[row]),
        "mask_score": _rounded(result.masks.scores[row]),
        "box": [_rounded(side) for side in result.regions.boxes[row]],
        "area": int(result.masks.masks[row].sum()),
    }


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _versions() -> dict[str, str]:
    """Return the versions of the app, by the headings of its changes, and of what it stands on."""
    latest, *older = re.findall(r"^## (\S+)", CHANGES.read_text(encoding="utf-8"), re.MULTILINE)
    app = f"{older[0]}+unreleased" if latest == "Unreleased" else latest
    return {"app": app} | {name: version(name) for name in ("torch", "transformers", "sam2")}


def _png(pixels: Image.Image | np.ndarray) -> bytes:
    # OpenCV is several times faster than Pillow, and lets other threads work meanwhile.
    pixels = np.asarray(pixels)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, TO_BGR[pixels.shape[2]])
    return cv2.imencode(".png", pixels)[1].tobytes()


def _json(value: Manifest) -> bytes:
    # A file name that is no UTF-8 becomes \udcXX, which JSON reads back as the same name.
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")


def _masks(result: Result) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each mask with the name of its files."""
    masks = result.masks.masks
    for number, label, mask in zip(result.numbers, result.regions.labels, masks, strict=True):
        yield name_of_row(number, label), mask


def name_of_row(number: int, phrase: str) -> str:
    """Return the name of the files of a row, in a folder of masks or of cut-outs."""
    return f"{number:02d}-{safe_name(phrase)}.png"


def _mask_files(export: Export) -> Iterator[File]:
    masks = _masks(export.result)
    return ((f"masks/{name}", _png(mask * np.uint8(255))) for name, mask in masks)


def _cutout_files(export: Export) -> Iterator[File]:
    found = ((name, mask) for name, mask in _masks(export.result) if mask.any())
    return ((f"cutouts/{name}", _png(cutout(export.picture, mask))) for name, mask in found)


PARTS: dict[str, Callable[[Export], Iterable[File]]] = {
    "picture": lambda export: [("picture.png", _png(export.picture))],
    "overlay": lambda export: [("overlay.png", _png(overlay_picture(export)))],
    "masks": _mask_files,
    "labels": lambda export: [("labels.png", _png(label_map(export.result)))],
    "cutouts": _cutout_files,
    "coco": lambda export: [("coco.json", _json(coco(export.result)))],
    "yolo": lambda export: [("yolo.txt", yolo(export.result).encode())],
    "manifest": lambda export: [("manifest.json", _json(export.manifest))],
}


def export_files(export: Export, parts: Collection[str] = tuple(PARTS)) -> Iterator[File]:
    """Return names and contents of a result's files, each made when it is asked for.

    Args:
        export: What they are made of.
        parts: Which of `PARTS`; the manifest always comes last.

    Raises:
        ValueError: If there is no such part.
    """
    if unknown := set(parts) - set(PARTS):
        raise ValueError(
            f"There is no part {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}."
        )
    chosen = (make for part, make in PARTS.items() if part in parts)
    return chain.from_iterable(make(export) for make in chosen)


def write_all(folder: Path, files: Iterable[File]) -> None:
    """Write files into a folder, made if needed."""
    for name, content in files:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def write_zip(path: Path, files: Iterable[File]) -> None:
    """Write files into a ZIP; at `path` there is the whole of it or nothing new."""
    for _name in zip_files(path, files):
        pass


def zip_files(path: Path, files: Iterable[File]) -> Iterator[str]:
    """Write a ZIP as `write_zip`, and yield the name of each file that is in it."""
    part = path.with_name(f"{path.name}.part")
    try:
        with zipfile.ZipFile(part, "w") as archive:
            for name, content in files:
                # PNG is compressed already.
                kind = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
                archive.writestr(name, content, kind)
                yield name
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
