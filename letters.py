"""The letters on the pictures that the app draws, in one font that is bundled.

Pillow's own has no letters beyond ASCII; this one has those of European languages, Hebrew and
Arabic.
"""

import unicodedata
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

FILE = Path(__file__).parent / "assets" / "fonts" / "DejaVuSansCondensed.ttf"
MISSING = "\U0010ffff"  # no font has it


@lru_cache(maxsize=32)
def font(size: float) -> ImageFont.FreeTypeFont:
    """Return the font in a size in pixels."""
    return ImageFont.truetype(FILE, size)


def drawable(text: str) -> str:
    """Return a line without the letters that the font lacks, which it would draw as boxes.

    >>> drawable("1 犬 crème brûlée 🐕 0.53")
    '1 crème brûlée 0.53'
    """
    letters = unicodedata.normalize("NFC", text)  # an accent of its own may lie beside its letter
    return " ".join("".join(filter(_is_there, letters)).split())


@lru_cache(maxsize=4096)
def _is_there(letter: str) -> bool:
    return bytes(font(10).getmask(letter)) != bytes(font(10).getmask(MISSING))
