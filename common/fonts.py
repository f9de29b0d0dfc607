"""The letters on the pictures that the app draws, in one font that is bundled.

Pillow's own has no letters beyond ASCII; this one has those of European languages and, where
FriBiDi is installed, which puts them in their order, of Hebrew and Arabic.
"""

import unicodedata
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont, features

FILE = Path(__file__).parents[1] / "assets" / "fonts" / "DejaVuSansCondensed.ttf"
MISSING = "\U0010ffff"  # no font has it
RIGHT_TO_LEFT = ("R", "AL")


@lru_cache(maxsize=32)
def font(size: float, engine: ImageFont.Layout | None = None) -> ImageFont.FreeTypeFont:
    """Return the font in a size in pixels, laid out by the best engine there is or a given one."""
    return ImageFont.truetype(FILE, size, layout_engine=engine)


def drawable(text: str) -> str:
    """Return a text on one line without the letters that would be drawn as boxes or backwards.

    >>> drawable("1 犬 crème brûlée 🐕 0.53")
    '1 crème brûlée 0.53'
    """
    text = unicodedata.normalize("NFC", text)  # an accent of its own may lie beside its letter
    words = ("".join(filter(_is_there, word)) for word in text.split())
    return " ".join(filter(None, words))


@lru_cache(maxsize=4096)
def _is_there(letter: str) -> bool:
    if unicodedata.bidirectional(letter) in RIGHT_TO_LEFT and not features.check("raqm"):
        return False
    # The other engine draws more than a box where an accent has no letter below it.
    plain = font(10, ImageFont.Layout.BASIC)
    return bytes(plain.getmask(letter)) != bytes(plain.getmask(MISSING))
