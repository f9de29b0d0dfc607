import base64
import io
import os
import struct
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from common import images
from common.images import decode_image, open_image

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3, (0,) * 3
LOSSY = 12  # JPEG, lossy WebP and AVIF come this close to the colour


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def plain(mode: str = "RGB", color: object = RED, size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new(mode, size, color)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    size: tuple[int, int], bits: int, color_type: int, rows: bytes, extra: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", *size, bits, color_type, 0, 0, 0)
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def png_of_zeros(width: int, height: int) -> bytes:
    """One black picture of 1 bit a pixel: a tiny file of any size."""
    row = bytes(1 + (width + 7) // 8)
    many = 1 + 2**20 // len(row)  # rows at a time
    counts = [*[many] * (height // many), height % many]
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(row * count) for count in counts) + packer.flush()
    return png((width, height), 1, 0, rows)


def corners(size: tuple[int, int] = (32, 16)) -> Image.Image:
    """Red at the upper left, green upper right, blue lower left, white lower right."""
    half_width, half_height = size[0] // 2, size[1] // 2
    image = Image.new("RGB", size, "white")
    image.paste(RED, (0, 0, half_width, half_height))
    image.paste(GREEN, (half_width, 0, size[0], half_height))
    image.paste(BLUE, (0, half_height, half_width, size[1]))
    return image


def message(data: bytes) -> str:
    with pytest.raises(ValueError) as caught:
        decode_image(data)
    return str(caught.value)


def assert_color(image: Image.Image, color: tuple[int, ...], tolerance: int = 0) -> None:
    worst = np.abs(np.asarray(image).astype(int) - color).max()
    assert worst <= tolerance, f"{image.getpixel((0, 0))} is not {color}"


def assert_plain(image: Image.Image) -> None:
    """What every caller may rely on."""
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    assert max(image.size) <= images.MAX_SIDE
    assert image.info == {}
    assert len(image.getexif()) == 0


def palette_with_alpha() -> bytes:
    image = plain("P", 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    return encode(image, "PNG", transparency=b"\xff\x00")


def palette() -> Image.Image:
    image = plain("P", 1)
    image.putpalette([0, 0, 0, *RED])
    return image


def ycck_jpeg() -> bytes:
    """A CMYK JPEG whose Adobe marker (the byte after two flags) says YCCK."""
    data = encode(plain("CMYK", (0, 0, 0, 0)), "JPEG")
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    return data[:at] + b"\x02" + data[at + 1 :]


def frames(file_format: str, mode: str = "RGB") -> bytes:
    return encode(
        plain(mode), file_format, save_all=True, append_images=[plain(mode, BLUE)], duration=50
    )


COLORS = [
    # what, bytes, color, tolerance
    ("1 bit, white", lambda: encode(plain("1", 1), "PNG"), WHITE, 0),
    ("1 bit, black", lambda: encode(plain("1", 0), "TIFF"), BLACK, 0),
    ("grey", lambda: encode(plain("L", 77), "PNG"), (77, 77, 77), 0),
    ("grey JPEG", lambda: encode(plain("L", 77), "JPEG"), (77, 77, 77), 2),
    ("grey, half transparent", lambda: encode(plain("LA", (0, 128)), "PNG"), (127,) * 3, 1),
    ("grey, transparent", lambda: encode(plain("LA", (0, 0)), "PNG"), WHITE, 0),
    ("palette", lambda: encode(palette(), "PNG"), RED, 0),
    ("palette, transparent", palette_with_alpha, WHITE, 0),
    ("palette GIF, transparent", lambda: encode(palette(), "GIF", transparency=1), WHITE, 0),
    ("palette and alpha", lambda: encode(plain("PA", (0, 0)), "TIFF"), WHITE, 0),
    ("color key", lambda: encode(plain(), "PNG", transparency=RED), WHITE, 0),
    ("rgb", lambda: encode(plain(), "PNG"), RED, 0),
    ("rgba, opaque", lambda: encode(plain("RGBA", (*RED, 255)), "PNG"), RED, 0),
    ("rgba, garbage under alpha", lambda: encode(plain("RGBA", (9, 8, 7, 0)), "PNG"), WHITE, 0),
    ("rgba WebP", lambda: encode(plain("RGBA", (9, 8, 7, 0)), "WEBP", exact=True), WHITE, 0),
    ("rgba AVIF", lambda: encode(plain("RGBA", (9, 8, 7, 0)), "AVIF"), WHITE, 0),
    ("rgba, half transparent", lambda: encode(plain("RGBA", (0, 0, 0, 128)), "PNG"), (127,) * 3, 1),
    ("rgb JPEG", lambda: encode(plain(), "JPEG"), RED, LOSSY),
    ("progressive JPEG", lambda: encode(plain(), "JPEG", progressive=True), RED, LOSSY),
    ("MPO", lambda: encode(plain(), "MPO", save_all=True, append_images=[plain()]), RED, LOSSY),
    ("WebP", lambda: encode(plain(), "WEBP"), RED, LOSSY),
    ("BMP", lambda: encode(plain(), "BMP"), RED, 0),
    ("TIFF", lambda: encode(plain(), "TIFF", compression="tiff_lzw"), RED, 0),
    ("AVIF", lambda: encode(plain(), "AVIF"), RED, LOSSY),
    ("CMYK JPEG", lambda: encode(plain("CMYK", (0, 255, 255, 0)), "JPEG"), RED, LOSSY),
    ("CMYK TIFF", lambda: encode(plain("CMYK", (0, 255, 255, 0)), "TIFF"), RED, 0),
    ("YCCK JPEG", ycck_jpeg, (0, 134, 0), LOSSY),  # inverted YCC (255, 255, 255) is this green
    ("YCC TIFF", lambda: encode(plain().convert("YCbCr"), "TIFF", compression="jpeg"), RED, LOSSY),
    ("16-bit RGB", lambda: png((1, 1), 16, 2, zlib.compress(b"\0\xff\xff" + bytes(4))), RED, 0),
    ("16-bit RGBA", lambda: png((1, 1), 16, 6, zlib.compress(bytes(9))), WHITE, 0),
    ("frames of a GIF", lambda: frames("GIF"), RED, 0),
    ("animated WebP", lambda: frames("WEBP"), RED, LOSSY),
    ("animated PNG", lambda: frames("PNG"), RED, 0),
    ("pages of a TIFF", lambda: frames("TIFF"), RED, 0),
    ("sequence AVIF", lambda: frames("AVIF"), RED, LOSSY),
]


@pytest.mark.parametrize(
    ("make", "color", "tolerance"), [row[1:] for row in COLORS], ids=[row[0] for row in COLORS]
)
def test_every_mode_and_format_keeps_its_color(
    make: Callable[[], bytes], color: tuple[int, ...], tolerance: int
) -> None:
    image = decode_image(make())
    assert_plain(image)
    assert_color(image, color, tolerance)


RAMP = np.linspace(0, 1, 256)
DEEP = [
    # what, values of a row of 256, expected greys
    ("16 bits are divided, not clipped", (RAMP * 65535).astype(np.uint16), np.arange(256)),
    ("16 bits keep their own black", np.full(256, 0x8000, np.uint16), np.full(256, 128)),
    ("32 bits", (RAMP * 1e6).astype(np.int32), np.arange(256)),
    ("32 bits, negative", (RAMP * 1e6 - 5e5).astype(np.int32), np.arange(256)),
    ("floats in 0..1", RAMP.astype(np.float32), np.arange(256)),
    ("floats far from 0..1", (RAMP * -1e6).astype(np.float32), np.arange(255, -1, -1)),
    ("not a number", np.array([np.nan, 0, 1] + 253 * [1], np.float32), [0, 0] + 254 * [255]),
    ("infinite", np.array([np.inf, -np.inf, 0] + 253 * [1], np.float32), [0] * 3 + 253 * [255]),
    ("nothing but NaN", np.full(256, np.nan, np.float32), np.zeros(256)),
    ("one value", np.full(256, 7, np.float32), np.zeros(256)),
    ("beyond float", np.array([-3e38, 3e38] * 128, np.float32), np.zeros(256)),
]


@pytest.mark.parametrize(
    ("values", "greys"), [row[1:] for row in DEEP], ids=[row[0] for row in DEEP]
)
def test_more_than_8_bits_are_scaled(values: np.ndarray, greys: np.ndarray) -> None:
    image = decode_image(encode(Image.fromarray(values[None, :]), "TIFF"))
    assert_plain(image)
    assert np.array_equal(np.asarray(image)[0, :, 0], greys)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bits_of_both_byte_orders(mode: str) -> None:
    values = struct.pack("<2H" if mode == "I;16" else ">2H", 0x1234, 0xFFFF)
    data = encode(Image.frombytes(mode, (2, 1), values), "TIFF")
    assert np.asarray(decode_image(data))[0, :, 1].tolist() == [0x12, 0xFF]


@pytest.mark.parametrize(
    ("nothing", "first"),
    [
        (None, 0),
        (0, 255),  # white, which is what shows through
        (0xFFFF, 0),  # white already
    ],
)
def test_a_16_bit_grey_png_may_have_a_transparent_value(nothing: int | None, first: int) -> None:
    ramp = Image.fromarray((RAMP * 65535).astype(np.uint16)[None, :])
    seen = np.asarray(decode_image(encode(ramp, "PNG", transparency=nothing)))[0, :, 0].tolist()
    assert seen == [first, *range(1, 256)]


# The corners of `corners()`, clockwise from the upper left, after what each orientation asks for.
UPRIGHT = [
    (1, (RED, GREEN, WHITE, BLUE)),
    (2, (GREEN, RED, BLUE, WHITE)),  # mirrored left to right
    (3, (WHITE, BLUE, RED, GREEN)),  # upside down
    (4, (BLUE, WHITE, GREEN, RED)),  # mirrored top to bottom
    (5, (RED, BLUE, WHITE, GREEN)),  # mirrored along the diagonal
    (6, (BLUE, RED, GREEN, WHITE)),  # a quarter clockwise
    (7, (WHITE, GREEN, RED, BLUE)),  # mirrored along the other diagonal
    (8, (GREEN, WHITE, BLUE, RED)),  # a quarter anticlockwise
]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize(("orientation", "clockwise"), UPRIGHT)
def test_pictures_stand_upright(
    orientation: int, clockwise: tuple[tuple[int, ...], ...], file_format: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(encode(corners((64, 32)), file_format, exif=exif))
    assert_plain(image)
    assert image.size == ((64, 32) if orientation < 5 else (32, 64))
    right, bottom = image.width - 5, image.height - 5
    for point, color in zip(
        [(4, 4), (right, 4), (right, bottom), (4, bottom)], clockwise, strict=True
    ):
        assert_color(image.crop((*point, point[0] + 1, point[1] + 1)), color, 40)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode_image(encode(plain(size=(3, 2)), "PNG", exif=exif)).size == (3, 2)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff"]
)
def test_damaged_exif_does_not_cost_the_picture(exif: bytes) -> None:
    assert_color(decode_image(encode(plain(), "PNG", exif=exif)), RED)


def test_metadata_is_gone_from_what_is_saved_again() -> None:
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8825)[1] = "N"
    data = encode(plain(), "JPEG", exif=exif, comment=b"SecretComment", icc_profile=b"SecretIcc")
    image = decode_image(data)
    assert_plain(image)
    for file_format in ("JPEG", "PNG", "WEBP"):
        assert b"Secret" in data and b"Secret" not in encode(image, file_format)


SIZES = [
    # size, size that it is shrunk to
    ((1, 1), (1, 1)),
    ((2048, 1), (2048, 1)),
    ((2049, 1), (2048, 1)),
    ((4096, 1024), (2048, 512)),
    ((1000, 5000), (410, 2048)),
    ((65535, 1), (2048, 1)),
    ((1, 65535), (1, 2048)),
]


@pytest.mark.parametrize(("size", "expected"), SIZES)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_the_longest_side_is_limited(
    size: tuple[int, int], expected: tuple[int, int], file_format: str
) -> None:
    image = decode_image(encode(plain(size=size), file_format))
    assert image.size == expected
    assert_color(image, RED)


def test_fine_stripes_become_grey(tmp_path: Path) -> None:
    """Where single pixels were taken instead, the picture would have other stripes, or none."""
    pixels = np.zeros((8, 2 * images.MAX_SIDE + 90, 3), np.uint8)
    pixels[:, ::2] = 255
    Image.fromarray(pixels).save(tmp_path / "stripes.png")
    opened = np.asarray(open_image(tmp_path / "stripes.png")).astype(int)
    assert opened.shape[1] == images.MAX_SIDE
    assert abs(opened[:, 9:-9] - 128).max() < 30


def test_a_large_jpeg_is_decoded_small(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[int, int]] = []
    load = ImageFile.ImageFile.load

    def spy(image: ImageFile.ImageFile) -> object:
        loaded.append(image.size)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", spy)
    image = decode_image(encode(corners((9000, 4500)), "JPEG"))
    assert loaded[0] == (4500, 2250)
    assert image.size == (2048, 1024)
    assert_color(image.crop((0, 0, 900, 400)), RED, LOSSY)


def test_a_jpeg_of_one_line_is_shrunk() -> None:
    image = decode_image(encode(plain(size=(65500, 1)), "JPEG"))
    assert image.size == (2048, 1)
    assert_color(image, RED, LOSSY)


def test_shrinking_does_not_bleed_what_is_transparent() -> None:
    pixels = np.zeros((1, 4096, 4), np.uint8)
    pixels[:, ::2] = (*RED, 255)
    image = decode_image(encode(Image.fromarray(pixels), "PNG"))
    assert np.asarray(image)[0, 10:-10, 0].min() >= 250  # black under alpha would halve the red


def test_a_picture_is_what_its_bytes_say_not_its_name(tmp_path: Path) -> None:
    path = tmp_path / "bus.png"
    path.write_bytes(encode(palette(), "GIF"))
    assert_color(open_image(path), RED)
    assert_color(open_image(str(path)), RED)


def test_what_follows_a_jpeg_is_ignored() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "a")
    polyglot = encode(plain(), "JPEG") + archive.getvalue() + 20_000 * b"\xff\xda\0\2"
    assert_color(decode_image(polyglot), RED, LOSSY)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("picture.png", encode(plain(), "PNG"))
    return buffer.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/"/></svg>'
REFUSED = [
    # bytes, what the message calls them
    (b"", "an empty file"),
    (b"<!DOCTYPE html><html><svg></svg></html>", "an HTML page"),
    (b"\xef\xbb\xbf\n <!-- page --> <HTML lang='de'>", "an HTML page"),
    (b"\n<head><title>Not found</title>", "an HTML page"),
    (SVG, "an SVG drawing"),
    (b'<?xml version="1.0"?>\n<!-- made by hand -->' + SVG, "an SVG drawing"),
    (b"<?xml version='1.0'?><note>svg</note>", "a text file"),
    (b'{"error": "no such picture"}', "a text file"),
    (b"\xc3\xa4 text of its own\r\n\twith umlauts", "a text file"),
    (b"BMW is a car, not a bitmap", "a text file"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC photo"),
    (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "a video"),
    (b"\x1aE\xdf\xa3\x01\0\0\0", "a video"),
    (b"RIFF\x10\0\0\0AVI LIST", "a video"),
    (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
    (b"8BPS\0\x01", "a Photoshop file"),
    (b"\0\0\x01\0\x01\0\x10\x10", "an icon file"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (b"\xff\x0a\xfa\x7f", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    (b"\x1f\x8b\x08\0", "a compressed archive"),
    (zipped(), "a ZIP archive or an Office document"),
    (b"SIMPLE  =   T" + bytes(80), "an unknown kind of file"),  # FITS, which Pillow would open
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a text file"),  # EPS, which Pillow would run Ghostscript on
    (b"P6 1 1 255 \1\2\3", "an unknown kind of file"),  # PPM, which Pillow would open
    (bytes(range(256)), "an unknown kind of file"),
    (bytes(5000), "an unknown kind of file"),
]


@pytest.mark.parametrize(("data", "kind"), REFUSED)
def test_other_files_are_named_and_refused(data: bytes, kind: str) -> None:
    assert message(data) == (
        f"This file cannot be opened as a picture: it looks like {kind}. "
        "Allowed are JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF."
    )


def bad_crc() -> bytes:
    data = encode(corners(), "PNG")
    at = data.index(b"IDAT") + 20
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
DAMAGED = [
    # what, bytes, name of the format
    *[
        (f"{name} cut at {share}", encode(NOISE, name.upper())[: -share or None], name)
        for name in ("JPEG", "PNG", "WebP", "TIFF", "AVIF", "BMP")
        for share in (40, 1500)
    ],
    ("GIF cut", encode(NOISE, "GIF")[:-1500], "GIF"),
    ("JPEG of 3 bytes", b"\xff\xd8\xff", "JPEG"),
    ("PNG of 8 bytes", b"\x89PNG\r\n\x1a\n", "PNG"),
    ("GIF of 6 bytes", b"GIF89a", "GIF"),
    ("TIFF of 4 bytes", b"II*\0", "TIFF"),
    ("WebP of 12 bytes", b"RIFF\0\0\0\0WEBP", "WebP"),
    ("AVIF of 12 bytes", b"\0\0\0\x0cftypavif", "AVIF"),
    ("PNG with a wrong checksum", bad_crc(), "PNG"),
    ("PNG of no width", png((0, 5), 8, 2, zlib.compress(b"")), "PNG"),
    ("PNG without pixels", png((5, 5), 8, 2, b""), "PNG"),
    ("script behind a GIF header", b"GIF89a/*" + 50 * b" " + b"*/=alert(1)", "GIF"),
]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # what Pillow tells the log about them
@pytest.mark.parametrize(
    ("data", "kind"), [row[1:] for row in DAMAGED], ids=[row[0] for row in DAMAGED]
)
def test_damaged_pictures_are_refused(data: bytes, kind: str) -> None:
    assert message(data) == (
        f"This {kind} picture is cut off or damaged, or of a kind that cannot be read. Please save "
        "it anew as PNG or JPEG, or take another one."
    )


TOO_MANY_PIXELS = (
    "This picture has too many pixels: the limit is 50 million, for JPEG 100 million, and 65,535 "
    "in a row or column. Please shrink it first."
)


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Record every attempt to decode pixels."""
    attempts: list[str] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: attempts.append(image.format))
    yield attempts


def resized_bmp(width: int, height: int) -> bytes:
    data = encode(plain(), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def tiff(tags: list[tuple[int, int, int, int | None]], content: bytes) -> bytes:
    """A grey TIFF of 16 x 16; a tag (number, type, count, value) without value names `content`."""
    sizes = [(number, 4, 1, 16) for number in (256, 257)]
    rest = [(258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]  # 8: deflate
    tags = [*sizes, *rest, *tags]
    place = 8 + 2 + 12 * len(tags) + 4
    rows = [
        struct.pack("<HHII", number, kind, count, place if value is None else value)
        for number, kind, count, value in tags
    ]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + b"".join(rows) + bytes(4) + content


def tiff_strips(count: int, named: int, tiles: bool = False) -> bytes:
    """A TIFF of strips, or tiles, that are the same bytes, and name more than they need.

    The order of bits (FillOrder) has libtiff copy all that they name.
    """
    side = 16 if tiles else 1
    content = zlib.compress(b"\x99" * 16 * side)
    content = content.translate(bytes(int(f"{i:08b}"[::-1], 2) for i in range(256)))
    tags = [(256, 4, 1, 16), (257, 4, 1, side * count), (258, 3, 1, 8), (259, 3, 1, 8),
            (262, 3, 1, 1), (266, 3, 1, 2)]  # fmt: skip
    if tiles:
        tags += [(277, 3, 1, 1), (322, 4, 1, 16), (323, 4, 1, 16)]
        tags += [(324, 4, count, None), (325, 4, count, -1)]
    else:
        tags += [(273, 4, count, None), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, count, -1)]
    head = 8 + 2 + 12 * len(tags) + 4
    places = {None: head, -1: head + 4 * count}
    rows = [struct.pack("<HHII", n, kind, c, places.get(v, v)) for n, kind, c, v in tags]
    start = head + 8 * count
    lists = struct.pack("<I", start) * count + struct.pack("<I", named or len(content)) * count
    first = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return first + b"".join(rows) + bytes(4) + lists + content.ljust(named, b"\0")


def tiff_tile(width: int, height: int) -> bytes:
    packer = zlib.compressobj(9)
    content = b"".join(packer.compress(b"\x4d" * width) for _ in range(height)) + packer.flush()
    place = [(322, 4, 1, width), (323, 4, 1, height), (324, 4, 1, None), (325, 4, 1, len(content))]
    return tiff(place, content)


def many_names(count: int, size: int) -> bytes:
    """A TIFF in which many tags name the same bytes."""
    content = zlib.compress(b"\x4d" * 16 * 16)
    strip = [(273, 4, 1, None), (278, 4, 1, 16), (279, 4, 1, len(content))]
    names = [(40_000 + i, 7, size, None) for i in range(count)]
    return tiff([*strip, *names], content.ljust(size, b"\0"))


BOMBS = [
    # what, bytes
    ("a tile larger than its TIFF", lambda: tiff_tile(12_000, 12_000)),
    ("8000 x 8000", lambda: png_of_zeros(8_000, 8_000)),
    ("12000 x 12000", lambda: png_of_zeros(12_000, 12_000)),
    ("20000 x 20000", lambda: png_of_zeros(20_000, 20_000)),  # beyond Pillow's own limit too
    ("1 x 50 million", lambda: png_of_zeros(1, 50_000_000)),
    ("65536 x 1", lambda: png_of_zeros(65_536, 1)),
    ("2^31 x 2^31", lambda: png((2**31 - 1, 2**31 - 1), 8, 2, b"")),
    (
        "GIF canvas",
        lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + encode(NOISE, "GIF")[10:],
    ),
    ("BMP, upside down", lambda: resized_bmp(30_000, -30_000)),
]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("make", [row[1] for row in BOMBS], ids=[row[0] for row in BOMBS])
def test_bombs_are_refused_before_decoding(
    make: Callable[[], bytes], no_decoding: list[str]
) -> None:
    data = make()
    assert len(data) < 300_000
    assert message(data) == TOO_MANY_PIXELS
    assert no_decoding == []


def test_the_limit_of_pixels_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 12)
    monkeypatch.setattr(images, "MAX_JPEG_PIXELS", 24)
    for name, limit in (("PNG", 12), ("WEBP", 12), ("JPEG", 24)):
        assert decode_image(encode(plain(size=(limit, 1)), name)).size == (limit, 1)
        assert "too many pixels" in message(encode(plain(size=(limit + 1, 1)), name))


def test_the_limit_of_bytes_is_exact(tmp_path: Path) -> None:
    data = encode(plain(), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert_color(open_image(path, len(data)), RED)
    path.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match="larger than"):
        open_image(path, len(data))


def test_a_file_without_end_is_read_up_to_the_limit() -> None:
    with pytest.raises(ValueError, match="larger than 20 MB, which is the limit"):
        open_image("/dev/zero")


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are so many."""
    data = encode(plain("L", 128, (16, 16)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + (count - data.count(b"\xff\xda")) * last + data[-2:]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_scans_of_a_progressive_jpeg_are_limited() -> None:
    assert_color(decode_image(scans(images.MAX_SCANS)), (128,) * 3, 1)
    assert "damaged" in message(scans(images.MAX_SCANS + 1))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_large_pictures_may_have_fewer_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_SCANNED", 20 * 16 * 16)
    assert_color(decode_image(scans(20)), (128,) * 3, 1)
    assert "damaged" in message(scans(21))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("marker", [b"\xff\x01", b"\xff\xd0"])
def test_scans_do_not_hide_behind_a_marker_without_length(marker: bytes) -> None:
    """Read as a length, what follows the marker would skip 65498 bytes."""

    def hidden(count: int) -> bytes:
        data = scans(count)
        second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 1)
        return data[:second] + marker + data[second:]

    assert_color(decode_image(hidden(images.MAX_SCANS)), (128,) * 3, 1)
    assert "damaged" in message(hidden(images.MAX_SCANS + 1))


@pytest.mark.parametrize("segment", [b"\xff\xda\0\0", b"\xff\xfe\0\0"], ids=["scans", "comments"])
def test_endless_segments_are_not_walked(segment: bytes) -> None:
    """20 MB of them would hold up everybody's pictures for seconds."""
    data, seen = encode(plain(), "JPEG"), []
    data = data[:2] + segment * 1_000_000 + data[2:]

    class Watched(bytes):
        def __getitem__(self, key: Any) -> Any:
            seen.append(key)
            return super().__getitem__(key)

    with pytest.raises(ValueError, match="too many segments"):
        images._count_scans(Watched(data))
    assert len(seen) <= images.MAX_SEGMENTS


def test_tiles_may_be_larger_than_the_picture() -> None:
    assert_color(decode_image(tiff_tile(32, 48)), (0x4D,) * 3)


def test_bytes_are_not_copied_for_each_of_their_names() -> None:
    assert_color(decode_image(many_names(3, 100_000)), (0x4D,) * 3)
    tracemalloc.start()
    assert "This TIFF picture is cut off or damaged" in message(many_names(3_000, 1_000_000))
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("tiles", [False, True])
def test_strips_do_not_name_the_same_bytes_again_and_again(tiles: bool) -> None:
    """60,000 strips of a megabyte would take libtiff two minutes."""
    assert_color(decode_image(tiff_strips(2_000, 0, tiles)), (0x99,) * 3)
    assert "This TIFF picture is cut off or damaged" in message(tiff_strips(2_000, 100_000, tiles))


def with_comment(block: bytes, count: int) -> bytes:
    """A GIF with a comment in so many blocks, all of them with the same bytes."""
    data = encode(plain(), "GIF")
    colours = 13 + 3 * (2 << (data[10] & 7))
    comment = b"\x21\xfe" + count * (bytes([len(block)]) + block) + b"\0"
    return data[:colours] + comment + data[colours:]


def test_comments_are_not_joined_for_hours() -> None:
    assert_color(decode_image(with_comment(255 * b"A", 4_000)), RED)  # a megabyte
    for block, count in ((b"A", 1_000_000), (255 * b"A", 80_000)):  # 25 s and two minutes
        assert "This GIF picture is cut off or damaged" in message(with_comment(block, count))


def with_exif(segments: int, size: int) -> bytes:
    """A JPEG with EXIF in several segments, which belongs together."""
    data = encode(plain(), "JPEG")
    exif = (b"Exif\0\0II*\0\x08" + bytes(5)).ljust(size - 2, b"\0")
    return data[:2] + segments * (b"\xff\xe1" + struct.pack(">H", size) + exif) + data[2:]


@pytest.mark.parametrize(
    ("segments", "size", "taken"),
    [
        (1, 65_535, True),  # as long as a segment can be
        (3, 20_000, True),
        (2, 40_000, False),
        (5_000, 20, False),
    ],
)
def test_exif_of_a_jpeg_is_limited(segments: int, size: int, taken: bool) -> None:
    data = with_exif(segments, size)
    if taken:
        assert_color(decode_image(data), RED, LOSSY)
    else:
        assert "This JPEG picture is cut off or damaged" in message(data)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
@pytest.mark.parametrize(("more", "size"), [(0, (2, 3)), (images.MAX_EXIF, (3, 2))])
def test_long_exif_is_not_read(file_format: str, more: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(plain(size=(3, 2)), file_format, exif=exif.tobytes() + bytes(more))
    assert decode_image(data).size == size


def test_long_exif_in_hexadecimal_is_not_read() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for more, size in ((0, (2, 3)), (2 * images.MAX_EXIF, (3, 2))):
        text = PngInfo()
        lines = ["", "exif", "", (exif.tobytes() + bytes(more)).hex()]
        text.add_text("Raw profile type exif", "\n".join(lines), zip=True)
        assert decode_image(encode(plain(size=(3, 2)), "PNG", pnginfo=text)).size == size


def test_what_looks_like_scans_in_metadata_does_not_count() -> None:
    comment = (images.MAX_SCANS + 1) * b"\xff\xda"
    assert_color(decode_image(encode(plain(), "JPEG", comment=comment)), RED, LOSSY)


def test_a_data_url_is_a_picture() -> None:
    url = f"data:image/png;base64,{base64.b64encode(encode(plain(), 'GIF')).decode()}"
    assert_color(open_image(url), RED)
    assert_color(open_image(url.replace("image/png", "text/html")), RED)
    lines = base64.encodebytes(encode(plain(size=(90, 90)), "PNG")).decode()  # as in a mail
    assert lines.count("\n") > 1
    assert_color(open_image(f"data:image/png;base64,{lines}"), RED)


@pytest.mark.parametrize("url", ["data:", "data:,", "data:image/png;base64,", "data:;base64,AAAA"])
def test_a_data_url_of_something_else(url: str) -> None:
    with pytest.raises(ValueError, match=r"looks like an (empty|unknown)"):
        open_image(url)


@pytest.mark.parametrize("url", ["data:image/png;base64,!!!", "data:,%89PNG", "data:;base64,A"])
def test_a_damaged_data_url_is_not_told(url: str) -> None:
    with pytest.raises(ValueError, match="could not be read"):
        open_image(url)


@pytest.mark.parametrize("path", ["missing.png", ".", "", "nul\0.png", "http://example.com/a.png"])
def test_an_unreadable_path_is_not_told(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        open_image(f"{tmp_path}/{path}")
    assert str(caught.value) == ("This file could not be read. Please choose it again.")


@pytest.mark.filterwarnings("ignore")
def test_random_damage_ends_in_a_picture_or_a_sentence() -> None:
    random = np.random.default_rng(1)
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        whole = np.frombuffer(encode(corners(), name), np.uint8)
        for _ in range(100):
            data = whole.copy()
            data[random.integers(0, len(data), 4)] = random.integers(0, 256, 4)
            try:
                assert_plain(decode_image(data.tobytes()))
            except ValueError as error:
                assert str(error).startswith("This ") and str(error).endswith(".")


def limited(megabytes: int, threads: int, data: bytes) -> bytes:
    """Decode a picture in several threads of a process that may take so much more memory."""
    program = f"""
        import concurrent.futures, resource, sys
        from common.images import decode_image
        data = sys.stdin.buffer.read()
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * resource.getpagesize() + {megabytes}_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        with concurrent.futures.ThreadPoolExecutor({threads}) as pool:
            sizes = {{image.size for image in pool.map(decode_image, [data] * {threads})}}
        print(sizes)
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        input=data,
        capture_output=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},  # each thread's own is address space, too
        check=False,
    ).stdout


def png_with_alpha(side: int) -> bytes:
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + 4 * side)) for _ in range(side)) + packer.flush()
    return png((side, side), 8, 6, rows)


def webp_with_alpha(side: int) -> bytes:
    return encode(plain("RGBA", (9, 9, 9, 90), (side, side)), "WEBP", lossless=True, method=0)


LIMITED = [
    # megabytes, threads, bytes, picture
    (350, 1, lambda: png_with_alpha(5_000)),  # 14 bytes for each of 25 million pixels
    (550, 1, lambda: webp_with_alpha(5_000)),  # 22 bytes
    (400, 4, lambda: webp_with_alpha(3_000)),  # 44 bytes; all at once would take 80
]


@pytest.mark.parametrize(("megabytes", "threads", "make"), LIMITED)
def test_memory_stays_bounded(megabytes: int, threads: int, make: Callable[[], bytes]) -> None:
    assert limited(megabytes, threads, make()) == b"{(2048, 2048)}\n"


def test_too_little_memory_is_noticed_by_these_tests() -> None:
    assert limited(100, 1, png_with_alpha(5_000)) == b""


def test_no_memory_left_is_not_called_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    assert message(encode(plain(), "PNG")) == TOO_MANY_PIXELS


def test_text_behind_a_long_comment_is_called_what_it_is() -> None:
    assert "an HTML page" in message(b"<!--" + 300 * b"-" + b"--><html>")
    assert "an SVG drawing" in message(b"<?xml version='1.0'?><!--" + 300 * b"-" + b"--><svg>")


def test_a_16_bit_picture_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.zeros((2, 4), np.uint16))
    assert decode_image(encode(deep, "PNG", exif=exif)).size == (2, 4)
