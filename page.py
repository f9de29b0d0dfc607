"""What both tabs share: how inputs are read, and how an error reaches the person at the page."""

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape, unescape
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
from gradio.data_classes import ImageData
from gradio.events import Dependency
from gradio.utils import get_upload_folder, is_in_or_equal

from used_up import disk_full, out_of_memory

QUIET = {"api_visibility": "private", "show_progress": "hidden"}  # of most events
# What comes while something else is looked at must not be lost, nor a step after a step.
LATEST = QUIET | {"trigger_mode": "always_last"}
CHECK = "Please check"
NO_UPLOAD = "A picture must be uploaded first; a path on the server is not accepted."
NO_MEMORY = (
    "This needs more memory than the server has left. "
    "Try a smaller model or a smaller picture, or try again in a moment."
)
NO_ROOM = "The server's disk is full, so that nothing could be written. Please try again later."


def hand_over_files() -> None:
    """Make image components pass on an uploaded file's path as it is, or a program's data: URL.

    Left alone, Gradio opens the file first, and fails without a word that helps the user, clips
    16-bit pictures and drops transparency; and it writes data: URLs to files that nobody deletes.
    (A component that an event changes, as a click on an example does, is another object from then
    on, so what changes is the class; a subclass would get a .pyi file beside its source.)
    """
    gr.Image.preprocess = _path


def _path(_: gr.Image, payload: ImageData | None) -> str | None:
    if payload is None or not payload.path:
        url = payload and payload.url
        return url if url and url.startswith("data:") else None
    # Gradio looks only at paths that come with its own mark (gradio 6.31).
    if not is_in_or_equal(payload.path, get_upload_folder()):
        raise gr.Error(NO_UPLOAD, title=CHECK, print_exception=False)
    return payload.path


def forgive_sliders() -> None:
    """Make sliders take for a number what their field becomes when it is left.

    Left alone, Gradio raises an error for each key of a number that is typed, as for 0 and 0. on
    the way to 0.45, and fails where the field is empty. (By class for the same reason.)
    """
    gr.Slider.preprocess = _within


class Clamped(float):
    """A number that a slider took in the place of one beyond its ends, or of none."""

    given: object = None


def _within(slider: gr.Slider, payload: object) -> float:
    number = slider.minimum if payload is None else payload
    if not isinstance(number, int | float) or number != number:  # the latter: NaN
        text = f"“{slider.label}” is {payload}; it must be a number."
        raise gr.Error(escape(text, quote=False), title=CHECK, print_exception=False)
    number = min(max(number, slider.minimum), slider.maximum)
    if float(slider.step).is_integer():
        return round(number)
    if number == payload:
        return number
    taken = Clamped(number)
    taken.given = payload
    return taken


def choice_of(count: int, value: int, **options: Any) -> gr.Slider:
    """Return a slider that chooses one of `count` things, from 1; hidden where there is but one."""
    # Gradio takes no slider whose ends are the same.
    more = {"step": 1, "buttons": [], "visible": count > 1}
    return gr.Slider(1, max(2, count), value, **more, **options)


def show_picture(label: str, **options: Any) -> gr.Image:
    """Return a component that only shows pictures, and is called by its label."""
    usual = {"alt_text": label, "format": "png", "buttons": ["fullscreen", "download"]}
    return gr.Image(label=label, interactive=False, **(usual | options))


def new_folder() -> Path:
    """Make a folder for what somebody takes home, and no other file, so that names do not meet."""
    folder = Path(get_upload_folder()) / uuid4().hex  # inside Gradio's own, which it cleans
    folder.mkdir(parents=True)
    return folder


def refuse_clamped(**numbers: float) -> None:
    """Say to a program what the page puts right while somebody types.

    Raises:
        ValueError: If a slider took one of the numbers in the place of another.
    """
    for name, number in numbers.items():
        if isinstance(number, Clamped):
            raise ValueError(f"{name} is {number.given}; the nearest allowed is {number:g}.")


def announce(elem_id: str) -> str:
    """Return a script that lets screen readers say what changes in a component."""
    return f"() => {{ document.getElementById('{elem_id}').ariaLive = 'polite' }}"


def hand_over_download(packed: Dependency, file: gr.DownloadButton) -> None:
    """Press a hidden download button once `packed` has put a file behind it."""
    # The file arrives on the page a moment after the event that brings it.
    press = f"setTimeout(() => document.getElementById('{file.elem_id}').click(), 300)"
    packed.success(None, js=f"() => {{ {press} }}")


def explain(error: Exception) -> tuple[str, str]:
    """Return the title and the words of the message for an error; raise it if it is a bug of ours.

    Memory or a disk that is used up gets a message, too, though it is nobody's mistake.
    """
    if isinstance(error, gr.Error):  # said already, where ZeroGPU lets nothing else out
        return error.title, unescape(error.message)
    if isinstance(error, ValueError):
        return CHECK, str(error)
    if out_of_memory(error):
        return "Out of memory", NO_MEMORY
    if disk_full(error):
        return "Disk full", NO_ROOM
    raise error


@contextmanager
def page_errors() -> Iterator[None]:
    """Turn an error that `explain` knows into a message on the page, as text and never as HTML."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        title, text = explain(error)
        raise gr.Error(
            escape(text, quote=False), title=title, print_exception=title != CHECK
        ) from error
