"""What both tabs share: the picture input, and how an error reaches the person at the page."""

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr
from gradio.data_classes import ImageData


class PictureFile(gr.Image):
    """A `gr.Image` that hands over the file as it was uploaded.

    Gradio's own opens the file first: it fails without a word the user could use, clips 16-bit
    pictures and ignores transparency.
    """

    is_template = True  # to the browser it is a gr.Image

    def preprocess(self, payload: ImageData | None) -> str | None:
        """Return the path of the uploaded file, or None if there is no picture."""
        if payload is not None and payload.path:
            return payload.path
        return super().preprocess(payload)


@contextmanager
def page_errors() -> Iterator[None]:
    """Turn a `ValueError` into a message on the page, as text and never as HTML."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(escape(str(error)), title="Please check", print_exception=False) from error
