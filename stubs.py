"""Keeps Gradio from writing stub files for editors, which takes half of the time of its import."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def no_stubs() -> Iterator[None]:
    """Import Gradio inside: it writes no stubs for components whose source it does not find.

    They would go into its own folder, and every import compares them anew (gradio 6.31).
    """
    find = inspect.getfile

    def find_all_but_components(thing: Any) -> str:
        if type(thing).__name__ in ("ComponentMeta", "BlocksMeta"):
            raise OSError("no stub is wanted")
        return find(thing)

    inspect.getfile = find_all_but_components
    try:
        yield
    finally:
        inspect.getfile = find
