"""Every picture through every door of the real page: upload, address, API; only models are fake."""

import base64
import io
from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.images import decode_image
from grounding.core import mask_box
from tests.common.test_images import (
    BOMBS,
    COLORS,
    DAMAGED,
    RED,
    REFUSED,
    encode,
    plain,
    scans,
    zipped,
)
from tests.grounding.test_fetch import answer
from tests.site import Site

PROMPT = "a red patch"
FILE = {"_type": "gradio.FileData"}
# Upright, this is what a person sees: a red patch on white, in no corner and not in the middle.
PATCH = (20, 8, 44, 20)
SIZE = (64, 32)


def upload(site: Site, data: bytes, name: str = "a.png") -> dict[str, Any]:
    [path] = site.client.post("/gradio_api/upload", files={"files": (name, data)}).json()
    return {"path": path, "orig_name": name, "meta": FILE}


def by_upload(site: Site, data: bytes, name: str) -> dict[str, Any]:
    return site.call("segment", image=upload(site, data, name), prompt=PROMPT)


def by_url(site: Site, data: bytes, _name: str) -> dict[str, Any]:
    site.elsewhere.answers["/a.png"] = answer(data)
    return site.call("segment", image=None, url=site.elsewhere.url(), prompt=PROMPT)


def by_api(site: Site, data: bytes, name: str) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return site.call("segment", image={"url": url, "orig_name": name, "meta": FILE}, prompt=PROMPT)


SAMPLE = str(Path(__file__).parents[1] / "assets" / "samples" / "segmentation" / "street.png")
DOORS = [by_upload, by_url, by_api]
# What a file calls itself, in turn; nothing depends on it.
NAMES = ["a.png", "a.svg", "a.html", "A.JPG", "../../etc/x.png", "a.heic", "ä 🐕.webp", "-rf", "a"]
FILES: list[tuple[str, Callable[[], bytes]]] = [
    *((what, make) for what, make, *_ in COLORS),
    *((what, make) for what, make in BOMBS),
    *((f"{kind}, {data[:6]!r}", partial(bytes, data)) for data, kind in REFUSED if data),
    *((what, partial(bytes, data)) for what, data, _ in DAMAGED),
    ("polyglot of JPEG and ZIP", lambda: encode(plain(), "JPEG") + zipped()),
    ("polyglot of GIF and JavaScript", lambda: encode(plain(), "GIF") + b"=1;alert(1)"),
    ("1 x 1", lambda: encode(plain(size=(1, 1)), "PNG")),
    ("65535 x 1", lambda: encode(plain(size=(65535, 1)), "PNG")),
    ("1 x 65535", lambda: encode(plain(size=(1, 65535)), "PNG")),
    ("4200 x 2100", lambda: encode(plain(size=(4200, 2100)), "JPEG")),
    ("too many scans", lambda: scans(101)),
]


def expected(data: bytes) -> np.ndarray | str:
    """Return the pixels or the sentence that `decode_image` gives, which has its own tests."""
    try:
        return np.asarray(decode_image(data))
    except ValueError as error:
        return str(error)


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 60


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("number", "make"), list(enumerate(make for _, make in FILES)), ids=[what for what, _ in FILES]
)
def test_right_pixels_or_one_sentence(site: Site, number: int, make: Callable[[], bytes]) -> None:
    data = make()
    right = expected(data)
    for door in DOORS:
        result, seen = door(site, data, NAMES[number % len(NAMES)]), site.take_seen()
        if not isinstance(right, str):
            assert "error" not in result and np.array_equal(seen, right)
        elif door is by_url and "HTML page" in right:
            assert "This address is a web page" in result["error"] and seen is None
        else:
            assert result["error"] == escape(right) and seen is None


def test_an_empty_upload(site: Site) -> None:
    assert "an empty file" in by_upload(site, b"", "a.png")["error"]


@pytest.mark.parametrize(
    ("picture", "error"),
    [
        (None, "Choose a picture first"),  # nothing
        ({"path": "/etc/passwd", "meta": FILE}, None),  # a file of the server
        ({"path": SAMPLE, "meta": FILE}, None),  # a picture of the server
        ({"path": "../../etc/passwd", "meta": FILE}, None),
        ({"path": "/dev/zero", "meta": FILE}, None),
        ({"path": "", "meta": FILE}, None),  # a path that is none
        ({"path": "a\0b", "meta": FILE}, None),
        ({"path": "x" * 5000, "meta": FILE}, None),
        ({"path": 7, "meta": FILE}, None),
        ({"path": "/etc/passwd"}, "must be uploaded first"),  # without the mark of a file
        ({"path": SAMPLE}, "must be uploaded first"),
        ({"path": SAMPLE, "meta": {"_type": "x"}}, "must be uploaded first"),
        ({"url": "data:image/png;base64,!!!", "meta": FILE}, "could not be read"),  # no base64
        ({"url": "data:", "meta": FILE}, "an empty file"),
        ({"url": "file:///etc/passwd", "meta": FILE}, "Choose a picture first"),
        ({"url": "http://127.0.0.1/a.png", "meta": FILE}, "Choose a picture first"),
        ({"url": SAMPLE, "meta": FILE}, "Choose a picture first"),
        ("/etc/passwd", None),  # other types
        ([1, 2], None),
        (float(10**300), None),
    ],
)
def test_what_is_no_picture_at_all(site: Site, picture: Any, error: str | None) -> None:
    result = site.call("segment", image=picture, prompt=PROMPT)
    said = result["error"]
    assert said is None if error is None else error in said
    assert "root:" not in str(result) and "Traceback" not in str(result)


def upright() -> Image.Image:
    image = Image.new("RGB", SIZE, "white")
    image.paste(RED, PATCH)
    return image


# What a camera held like that stores, so that it is upright again once EXIF is obeyed.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("orientation", "turn"), list(STORED.items()))
def test_boxes_and_masks_fit_what_is_seen(
    site: Site,
    door: Callable[[Site, bytes, str], dict[str, Any]],
    orientation: int,
    turn: Image.Transpose | None,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright() if turn is None else upright().transpose(turn)
    shown, *_ = door(site, encode(stored, "PNG", exif=exif), "a.png")["data"]
    shown = shown.get("value", shown)
    assert np.array_equal(site.take_seen(), np.asarray(upright()))
    picture = _open(shown["image"]).astype(int)  # lossy
    assert picture.shape == (SIZE[1], SIZE[0], 3)
    assert np.abs(picture[14, 32] - RED).max() < 60 and picture[2, 2].min() > 200
    [found] = shown["annotations"]
    mask = _open(found["image"])[..., 3] > 0
    assert mask_box(mask) == PATCH


def _open(file: dict[str, Any]) -> np.ndarray:
    with Image.open(io.BytesIO(Path(file["path"]).read_bytes())) as image:
        return np.array(image)
