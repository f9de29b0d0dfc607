"""What both tabs share: how inputs are read, and how an error reaches the person at the page."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape, unescape
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
from gradio.events import Dependency
from gradio.utils import get_upload_folder

from common.exhausted import disk_full, out_of_memory

# Of most events.
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# What comes while something else is looked at must not be lost, nor a step after a step.
LATEST = QUIET | {"trigger_mode": "always_last"}
# How to scroll: at once where the system is asked to move less.
MOTION = 'matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth"'
CHECK = "Please check"
NO_MEMORY = (
    "This needs more memory than the server has left. "
    "Try a smaller model or a smaller picture, or try again in a moment."
)
UNEXPECTED = "Something unexpected went wrong; the server's log says what. Please try again."
NO_ROOM = "The server's disk is full, so that nothing could be written. Please try again later."


def one_by_one(name: str) -> dict[str, Any]:
    """Return the options of events that each begin with what the one before of a name has made."""
    return LATEST | {"concurrency_id": name, "concurrency_limit": 1}


def bring(element: str, when: str, watched: str | None = None, block: str = "start") -> str:
    """Return a script that scrolls to an element if `when` is true.

    What is seen only an observer knows: the frame of a Space may be as high as its page.

    Args:
        element: Its selector.
        when: An expression of `element`; of `found`, what the observer says; of `seen`, the
            rectangle that is in sight; and of `above`, how many pixels lie above that.
        watched: Selector of what is observed, if not the element.
        block: Where the element is to be in sight, as `scrollIntoView` calls it.
    """
    return f"""() => {{
    const element = document.querySelector("{element}")
    new IntersectionObserver(([found], observer) => {{
        observer.disconnect()
        const seen = found.intersectionRect, above = seen.top - found.boundingClientRect.top
        if ({when}) element.scrollIntoView({{behavior: {MOTION}, block: "{block}"}})
    }}).observe({f'document.querySelector("{watched}")' if watched else "element"})
}}"""


def choice_of(count: int, value: int, **options: Any) -> gr.Slider:
    """Return a slider that chooses one of `count` things, from 1; hidden where there is but one."""
    # Gradio takes no slider whose ends are the same.
    usual: dict[str, Any] = {"step": 1, "buttons": [], "visible": count > 1}
    return gr.Slider(1, max(2, count), value, **usual, **options)


def show_picture(label: str, **options: Any) -> gr.Image:
    """Return a component that only shows pictures, and is called by its label."""
    shown: dict[str, Any] = {"label": label, "alt_text": label, "interactive": False}
    usual = shown | {"format": "png", "buttons": ["fullscreen", "download"]}
    return gr.Image(**usual | options)


def show_gallery(label: str, columns: int, **options: Any) -> gr.Gallery:
    """Return a component that shows several pictures, each as large as there is room for."""
    return gr.Gallery(
        label=label,
        show_label=False,  # it would lie over the first picture
        columns=columns,
        height="auto",
        object_fit="contain",
        interactive=False,
        buttons=["download", "download_all", "fullscreen"],  # not "share", which fails
        **options,
    )


def new_folder() -> Path:
    """Make a folder for what somebody takes home, and no other file, so that names do not meet."""
    folder = Path(get_upload_folder()) / uuid4().hex  # inside Gradio's own, which it cleans
    folder.mkdir(parents=True)
    return folder


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


def _in_words(error: Exception) -> tuple[str, str]:
    try:
        return explain(error)
    except Exception:  # a bug; Gradio would show nothing at all
        return "Unexpected", UNEXPECTED


def warn(error: gr.Error) -> None:
    """Show an error as a warning: after an error the page forgets what it was asked for meanwhile.

    (That is Gradio 6.31, where the event has `trigger_mode="always_last"`.)
    """
    if error.print_exception:
        traceback.print_exception(error)
    gr.Warning(error.message, title=error.title)


@contextmanager
def page_errors() -> Iterator[None]:
    """Turn an error into a message on the page, as text and never as HTML."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        title, text = _in_words(error)
        raise gr.Error(
            escape(text, quote=False), title=title, print_exception=title != CHECK
        ) from error
