"""Folders that programs write into."""

from pathlib import Path
from tempfile import TemporaryDirectory


def make_writable(folder: Path) -> None:
    """Make a folder if it is not there, and try it: before hours of work, not after them.

    Raises:
        OSError: If it cannot be made, or no file can be written in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=folder):
        pass
