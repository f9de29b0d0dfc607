"""Folders that programs write into."""

from pathlib import Path
from tempfile import TemporaryDirectory


def make_writable(folder: Path) -> None:
    """Make the folder of an --out if it is not there, and try it: before hours of work, not after.

    Raises:
        ValueError: If it cannot be made, or no file can be written in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"the folder {folder} of --out cannot be written ({error.strerror})"
        ) from error
