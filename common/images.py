"""The one way in for every picture: a file, a data: URL, or bytes.

Whatever comes in leaves as the same thing: a plain 8-bit RGB picture, upright, on white, without
metadata, no longer than `MAX_SIDE`. Whatever cannot is a `ValueError` with a sentence to show to
the user as it is. A file is what its first bytes say, never what its name or its server say.
"""

import base64
import io
import re
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import ExifTags, Image

MAX_BYTES = 20 * 1024 * 1024
# WebP takes 20 bytes for a pixel while it is decoded, JPEG at most 12 and, from 67 million pixels
# on, half: with these limits, and one picture at a time, decoding takes 1 GB at most.
MAX_PIXELS = 50_000_000
MAX_JPEG_PIXELS = 100_000_000
MAX_SIDE = 2048
# As in libtiff. Each scan of a progressive JPEG walks over all pixels again, a nanosecond for each,
# and needs no more than 150 bytes: 20 MB of them would keep the decoder busy for hours.
MAX_SCANS = 100
MAX_SCANNED = 2_000_000_000  # pixels times scans
MAX_SEGMENTS = 10_000  # of a JPEG; a long colour profile takes a hundred
MAX_EXIF = 65_536  # bytes, as a segment of a JPEG; each of 5,000 entries may name all of them
READ_BYTES = 100  # on average, that a decoder takes in one piece
MAX_LENGTH = 65_535  # of a side: what most formats allow, and a longer one takes seconds to shrink

_TURN = Lock()

FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "AVIF")
# By which a picture is found in a folder; HEIC photos, too, so that they are named as bad.
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
SUFFIXES |= {".avif", ".heic", ".heif"}
HTML = "an HTML page"

# What the first bytes say, first match wins. HEIC and AVIF share a container, hence their order.
_SIGNATURES = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("WebP", rb"RIFF.{4}WEBP"),
    ("GIF", rb"GIF8[79]a"),
    ("BMP", rb"BM.{12}[\x0c-\x7c]\0\0\0"),
    ("TIFF", rb"II[*+]\0|MM\0[*+]"),
    ("AVIF", rb".{4}ftyp(?:.{4}){0,16}?avi[fs]"),
    ("a HEIC photo", rb".{4}ftyp(?:hei|hev|mif1|msf1)"),
    ("a JPEG XL picture", rb"\xff\x0a|\0\0\0\x0cJXL "),
    ("a JPEG 2000 picture", rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  "),
    ("a Photoshop file", rb"8BPS"),
    ("an icon file", rb"\0\0[\x01\x02]\0"),
    ("a video", rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI "),
    ("a PDF document", rb"%PDF"),
    ("a ZIP archive or an Office document", rb"PK\x03\x04|PK\x05\x06"),
    ("a compressed archive", rb"\x1f\x8b|7z\xbc\xaf|Rar!|BZh"),
    (HTML, rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|body)\b"),
    ("an SVG drawing", rb"(?i)(?:\xef\xbb\xbf)?\s*<(?:.*?<)?svg\b"),
    ("an empty file", rb"\Z"),
    ("a text file", rb"[^\x00-\x08\x0e-\x1f]+\Z"),
    ("an unknown kind of file", rb""),
)

# How to turn a picture upright; the key is the EXIF tag Orientation (CIPA DC-008, 4.6.4).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(path: str | Path, max_bytes: int = MAX_BYTES) -> Image.Image:
    """Open a picture file or a data: URL, as `decode_image` does with bytes.

    Raises:
        ValueError: with a sentence for the user.
    """
    try:
        data = _read(str(path), max_bytes)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or no base64
        raise ValueError("This file could not be read. Please choose it again.") from error
    return decode_image(data, max_bytes)


def _read(path: str, max_bytes: int) -> bytes:
    if path.startswith("data:"):  # data:image/png;base64,iVBOR…, maybe in lines
        return base64.b64decode("".join(path.partition(",")[2].split()), validate=True)
    with Path(path).open("rb") as file:
        return file.read(max_bytes + 1)


def decode_image(data: bytes, max_bytes: int = MAX_BYTES) -> Image.Image:
    """Decode the bytes of a picture file into the form that the whole app works on.

    Args:
        data: In one of the `FORMATS`; of an animation or of several pages the first picture is
            taken.
        max_bytes: How many bytes it may be.

    Returns:
        A picture of mode RGB, longest side at most `MAX_SIDE` pixels: turned upright, transparent
        parts white, 16-bit grey divided by 256, floats and 32-bit integers stretched from
        smallest to largest. Without metadata.

    Raises:
        ValueError: with a sentence for the user.
    """
    if len(data) > max_bytes:
        raise ValueError(f"This file is larger than {max_bytes // 2**20} MB, which is the limit.")
    kind = kind_of(data)
    if kind not in FORMATS:
        raise ValueError(
            f"This file cannot be opened as a picture: it looks like {kind}. "
            f"Allowed are {', '.join(FORMATS[:-1])} and {FORMATS[-1]}."
        )
    try:
        with _TURN:
            return _decode(data, kind)
    except (Image.DecompressionBombError, MemoryError) as error:
        raise ValueError(
            f"This picture has too many pixels: the limit is {MAX_PIXELS // 10**6} million, for "
            f"JPEG {MAX_JPEG_PIXELS // 10**6} million, and {MAX_LENGTH:,} in a row or column. "
            "Please shrink it first."
        ) from error
    except Exception as error:  # on damaged files the decoders raise almost anything
        raise ValueError(
            f"This {kind} picture is cut off or damaged, or of a kind that cannot be read. Please "
            "save it anew as PNG or JPEG, or take another one."
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a picture of any mode as 8-bit RGB, as `decode_image` does; RGB is not copied."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    return _on_white(_to_8_bit(image))


def kind_of(data: bytes) -> str:
    """Name what the bytes look like, as it stands in `_SIGNATURES`."""
    head = data[:1024]
    return next(kind for kind, start in _SIGNATURES if re.match(start, head, re.DOTALL))


def _decode(data: bytes, kind: str) -> Image.Image:
    scans = _count_scans(data) if kind == "JPEG" else 0
    file = _Metered(data)
    image: Image.Image = Image.open(file, formats=[kind.upper()])  # header only
    file.reads += len(data) // READ_BYTES  # for the pixels
    pixels = max(image.width * image.height, _tiled_pixels(image))
    if pixels > (MAX_JPEG_PIXELS if kind == "JPEG" else MAX_PIXELS) or max(image.size) > MAX_LENGTH:
        raise Image.DecompressionBombError
    if _named_bytes(image) > 4 * len(data):
        raise ValueError("the same bytes again and again")
    if scans > min(MAX_SCANS, MAX_SCANNED // pixels):
        raise ValueError("too many scans")
    shrink = max(1, max(image.size) // (2 * MAX_SIDE))  # while decoding, which only JPEG can do
    image.draft(None, (max(1, image.width // shrink), max(1, image.height // shrink)))
    image.load()
    turn = _turn(image)
    image = _to_8_bit(image)
    # Nearly as sharp as Lanczos, in half of its time.
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.HAMMING)
    image = _on_white(image)
    return image if turn is None else image.transpose(turn)


class _Metered(io.BytesIO):
    """Bytes that are read a few times at most, and not in crumbs.

    The directory of a TIFF may name the same 20 MB thousands of times, and Pillow copies them each
    time; the comments of a GIF it joins one by one, for hours if there are millions.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.left = 4 * len(data) + 2**20
        self.reads = 2 * MAX_SEGMENTS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does.

        Raises:
            ValueError: If that is too much of it.
        """
        found = super().read(size)
        self.left -= len(found)
        self.reads -= 1
        if min(self.left, self.reads) < 0:
            raise ValueError("the same bytes again and again, or crumbs")
        return found


def _tiled_pixels(image: Image.Image) -> int:
    """Return the pixels of all tiles of a TIFF, which may be larger than the picture; 0 without."""
    tags = getattr(image, "tag_v2", {})  # TileWidth, TileLength (TIFF 6.0, section 15)
    width, height = tags.get(322, 0), tags.get(323, 0)
    if not width or not height:
        return 0
    return -(-image.width // width) * width * -(-image.height // height) * height


def _named_bytes(image: Image.Image) -> int:
    """Return how many bytes all strips or tiles of a TIFF have, of which libtiff copies each."""
    tags = getattr(image, "tag_v2", {})  # StripByteCounts, TileByteCounts (TIFF 6.0)
    return sum(sum(tags.get(number, ())) for number in (279, 325))


def _count_scans(data: bytes) -> int:
    """Return how many scans the first JPEG in the bytes has; what follows its end does not count.

    Raises:
        ValueError: If its segments do not end, or it has more EXIF than fits into one.
    """
    # A marker with a length (ITU-T T.81, B.1.1): all but padding, stuffing, TEM and restarts.
    marker = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
    scans, exif, position = 0, 0, 2
    for _ in range(MAX_SEGMENTS):
        found = marker.search(data, position)
        if not found or found[1] == b"\xd9":  # end of image
            return scans
        begin = found.end()
        position = begin + int.from_bytes(data[begin : begin + 2], "big")
        scans += found[1] == b"\xda"  # start of scan
        if found[1] == b"\xe1" and data[begin + 2 : begin + 8] == b"Exif\0\0":
            exif += position - begin  # Pillow joins them
        if exif > MAX_EXIF:
            break
    raise ValueError("too many segments, or too much EXIF")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Look up what EXIF asks for. ImageOps.exif_transpose is no help: it fails on damaged EXIF."""
    # In a PNG it may be text in hexadecimal.
    sizes = {"exif": MAX_EXIF, "Raw profile type exif": 3 * MAX_EXIF}
    if any(len(image.info.get(name) or "") > size for name, size in sizes.items()):
        return None
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the pixels are fine all the same
        return None


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Convert to L, RGB or RGBA; Pillow's own conversion clips at 255 what has more than 8 bits."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = Image.fromarray((values >> 8).astype(np.uint8))
        if (nothing := image.info.get("transparency")) is None:
            return grey
        return Image.merge("RGBA", [grey] * 3 + [Image.fromarray(values != nothing).convert("L")])
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.array(image, dtype=np.float32)))
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _stretch(values: np.ndarray) -> np.ndarray:
    """Map floats (H, W), overwritten, from smallest..largest to 0..255; what is not finite to 0."""
    finite = np.isfinite(values)
    low = values.min(where=finite, initial=np.inf)
    high = values.max(where=finite, initial=-np.inf)
    with np.errstate(all="ignore"):  # one value everywhere, or none finite: all NaN, so all 0
        values -= low
        values *= 255 / (high - low)
    values[~np.isfinite(values)] = 0
    np.rint(values, out=values)
    return values.astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    """Copy the pixels, and nothing else, onto a white RGB canvas."""
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image if image.mode == "RGBA" else None)
    return canvas
