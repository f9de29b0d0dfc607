"""Names of files and folders that every system accepts."""

import re
import unicodedata
from itertools import count
from pathlib import Path

MAX_NAME = 48
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED = re.compile(r"(con|prn|aux|nul|conin|conout|com\d|lpt\d)", re.IGNORECASE)


def safe_name(text: str) -> str:
    """Return a file name, without suffix, that every system accepts and that still reads as `text`.

    Letters, digits and marks of all scripts stay; anything else becomes a hyphen. The name has 1
    to 48 characters, fewer than 255 bytes.

    >>> safe_name("../a dog"), safe_name("CON"), safe_name("🐕")
    ('a-dog', '_CON', 'unnamed')
    """
    plain = unicodedata.normalize("NFKC", text)
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in plain).split()
    name = "-".join(words)[:MAX_NAME].rstrip("-") or "unnamed"
    return f"_{name}" if RESERVED.fullmatch(name) else name


def free_name(path: Path, taken: set[str]) -> str:
    """Return a name for the folder of a picture's files, and note it as taken.

    Names that differ in case only count as the same, as some file systems have it.

    >>> taken = set()
    >>> [free_name(Path(name), taken) for name in ("a/b.png", "a-b.jpg", "A-B.gif")]
    ['a-b', 'a-b-2', 'A-B-3']
    """
    name = safe_name(str(path.with_suffix(""))[-MAX_NAME:])
    names = (name if i == 1 else f"{name}-{i}" for i in count(1))
    free = next(free for free in names if free.casefold() not in taken)
    taken.add(free.casefold())
    return free
