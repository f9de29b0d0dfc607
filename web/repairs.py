"""What Gradio does otherwise than this app needs, put right; each is of gradio 6.31."""

from html import escape
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import gradio as gr
import PIL.Image
from gradio import processing_utils
from gradio.data_classes import ImageData, PredictBodyInternal
from gradio.queueing import Queue
from gradio.route_utils import GradioMultiPartParser
from gradio.utils import get_upload_folder, is_in_or_equal
from starlette.datastructures import FormData
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from web.page import CHECK, page_errors

NO_UPLOAD = "A picture must be uploaded first; a path on the server is not accepted."
MAX_NAME = 64  # letters of what a page calls its session; Gradio's own take 11


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
    # Gradio looks only at paths that come with its own mark.
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


def refuse_clamped(**numbers: float) -> None:
    """Say to a program what the page puts right while somebody types.

    Raises:
        ValueError: If a slider took one of the numbers in the place of another.
    """
    for name, number in numbers.items():
        if isinstance(number, Clamped):
            raise ValueError(f"{name} is {number.given}; the nearest allowed is {number:g}.")


def close_url_inputs() -> None:
    """Keep Gradio from fetching the address that an API client gives as the `path` of a picture.

    Gradio would take any size, any port and any amount of time.
    """
    processing_utils.async_ssrf_protected_get = _refuse_address


async def _refuse_address(_url: str) -> NoReturn:
    raise gr.Error(
        "A picture cannot be an address here. Upload the file, or give the address as url.",
        title=CHECK,
        print_exception=False,
    )


def delete_files_of_tools(page: gr.Blocks) -> None:
    """Have the files deleted, like uploads, that pictures in calls of MCP tools become.

    Gradio would keep them until the server ends.
    """
    save = processing_utils.save_base64_to_cache

    def save_and_note(*args: Any, **kwargs: Any) -> str:
        path = save(*args, **kwargs)
        page.upload_file_set.add(path)
        return path

    processing_utils.save_base64_to_cache = save_and_note


def replace_pictures_whole() -> None:
    """Have a picture that is shown again written beside the old file and put in its place.

    Left alone, Gradio writes over a file that the server may just be sending to somebody, who then
    sees a broken picture.
    """
    processing_utils.save_pil_to_cache = _save_whole


@page_errors()  # called behind what the events do
def _save_whole(
    img: PIL.Image.Image, cache_dir: str, name: str = "image", format: str = "webp"
) -> str:
    content = processing_utils.encode_pil_to_bytes(img, format)
    folder = Path(cache_dir).resolve() / processing_utils.hash_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    path, partial = folder / f"{name}.{format}", folder / uuid4().hex
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except PermissionError:  # Windows, while it is sent to somebody; it has the same bytes
        if not path.exists():
            raise
    finally:
        partial.unlink(missing_ok=True)  # on a full disk; Gradio deletes only what it knows of
    return str(path)


def delete_broken_uploads() -> None:
    """Delete the files of an upload that ends early, which Gradio would forget."""
    parse = GradioMultiPartParser.parse

    async def parse_and_tidy(parser: GradioMultiPartParser) -> FormData:
        try:
            return await parse(parser)
        except BaseException:  # who hangs up, too
            for file in parser._files_to_close_on_error:
                file.close()
                Path(file.name).unlink(missing_ok=True)
            raise

    GradioMultiPartParser.parse = parse_and_tidy


def forget_sessions(queue: Queue) -> None:
    """Have the queue forget what sessions asked for of which it has forgotten the answers.

    Gradio would keep that, and names of any length, until somebody listens.
    """
    push = queue.push

    async def push_and_forget(
        body: PredictBodyInternal, request: Request, username: str | None
    ) -> tuple[bool, Any, str]:
        if len(body.session_hash or "") > MAX_NAME:
            return False, f"A session_hash has at most {MAX_NAME} letters.", "error"
        asked = queue.pending_event_ids_session
        for session in asked.keys() - queue.pending_messages_per_session.keys():
            del asked[session]
        return await push(body, request, username)

    queue.push = push_and_forget


class ZippedPage:
    """ASGI middleware that sends the page itself compressed, as Gradio does with what it loads."""

    def __init__(self, app: ASGIApp) -> None:
        """Take the application inside."""
        self.app, self.zipped = app, GZipMiddleware(app, compresslevel=5)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        app = self.zipped if scope.get("path") == "/" else self.app
        await app(scope, receive, send)
