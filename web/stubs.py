"""Keeps Gradio from writing stub files for editors, which takes half of the time of its import."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def no_stubs() -> Iterator[None]:
    """Import Gradio inside: it writes no stubs for classes whose source it does not find.

    They would go into its own folder, and every import compares them anew (gradio 6.31).
    """
    find = inspect.getfile

    def find_all_but_gradio(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("no stub is wanted")
        return find(thing)

    inspect.getfile = find_all_but_gradio
    try:
        yield
    finally:
        inspect.getfile = find
