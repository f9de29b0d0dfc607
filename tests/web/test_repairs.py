import asyncio
import errno
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import gradio as gr
import pytest
from gradio import processing_utils
from gradio.data_classes import ImageData
from gradio.utils import LRUCache
from PIL import Image

from tests.site import Site, wait_until
from web.repairs import (
    MAX_NAME,
    close_url_inputs,
    delete_files_of_tools,
    forget_sessions,
    forgive_sliders,
    hand_over_files,
    refuse_clamped,
    replace_pictures_whole,
)


def upload_field(monkeypatch: pytest.MonkeyPatch) -> gr.Image:
    monkeypatch.setattr(gr.Image, "preprocess", gr.Image.preprocess)  # put back afterwards
    hand_over_files()
    return gr.Image(type="filepath")


def test_files_come_as_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    image = upload_field(monkeypatch)
    (tmp_path / "fake.png").write_text("hello")
    path = str(tmp_path / "fake.png")
    assert image.preprocess(ImageData(path=path, orig_name="fake.png")) == path
    assert image.preprocess(ImageData(url="data:,", orig_name="fake.png")) == "data:,"
    assert image.preprocess(ImageData(url=path, orig_name="fake.png")) is None
    assert image.preprocess(None) is None


@pytest.mark.parametrize("path", ["/etc/hosts", "{}/../a.png", "{}-beside/a.png", "a.png"])
def test_other_files_of_the_server_stay_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    image = upload_field(monkeypatch)
    with pytest.raises(gr.Error, match="must be uploaded first"):
        image.preprocess(ImageData(path=path.format(tmp_path)))


@pytest.fixture
def slider(monkeypatch: pytest.MonkeyPatch) -> gr.Slider:
    monkeypatch.setattr(gr.Slider, "preprocess", gr.Slider.preprocess)  # put back afterwards
    forgive_sliders()
    return gr.Slider(0.05, 0.95, label="Lowest <score>")


@pytest.mark.parametrize(
    ("typed", "taken"),
    [(0.25, 0.25), (0, 0.05), (5, 0.95), (10**400, 0.95), (float("inf"), 0.95), (None, 0.05)],
)
def test_sliders_take_what_their_field_becomes(
    slider: gr.Slider, typed: float | None, taken: float
) -> None:
    number = slider.preprocess(typed)
    assert number == taken
    if typed == taken:
        refuse_clamped(threshold=number)
    else:
        with pytest.raises(
            ValueError, match=f"threshold is {typed}; the nearest allowed is {taken}"
        ):
            refuse_clamped(threshold=number)


def test_whole_numbers_stay_whole(slider: gr.Slider) -> None:
    layer = gr.Slider(1, 6, 1, step=1)
    taken = [layer.preprocess(number) for number in (3, 2.6, 9, None)]
    assert list(map(repr, taken)) == ["3", "3", "6", "1"]


@pytest.mark.parametrize("typed", ["much", float("nan"), [0.5]])
def test_sliders_say_that_they_need_a_number(slider: gr.Slider, typed: object) -> None:
    with pytest.raises(gr.Error, match=r"“Lowest &lt;score&gt;” is .*; it must be a number"):
        slider.preprocess(typed)


def test_pictures_in_calls_of_tools_are_deleted_like_uploads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        processing_utils, "save_base64_to_cache", processing_utils.save_base64_to_cache
    )
    page = SimpleNamespace(upload_file_set=set())
    delete_files_of_tools(page)  # type: ignore[arg-type]
    path = processing_utils.save_base64_to_cache("data:image/png;base64,aGVsbG8=", str(tmp_path))
    assert Path(path).read_bytes() == b"hello" and page.upload_file_set == {path}


def test_an_upload_that_is_broken_off_leaves_nothing(site: Site) -> None:
    url, folder = site.client.base_url, site.folder / "gradio"
    before = {*folder.rglob("*")}
    part = b'--B\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    with socket.create_connection((url.host, url.port), timeout=60) as line:
        line.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n"
            b"Content-Type: multipart/form-data; boundary=B\r\n\r\n" + part + bytes(100_000)
        )
        wait_until(lambda: {*folder.rglob("*")} - before)
    wait_until(lambda: not {*folder.rglob("*")} - before)


def test_sessions_that_nobody_listens_to_are_forgotten() -> None:
    queue: Any = SimpleNamespace(pending_messages_per_session=LRUCache(3))
    asked = queue.pending_event_ids_session = {}

    async def push(body: Any, *_: Any) -> tuple[bool, str, str]:
        queue.pending_messages_per_session[body.session_hash] = "answers"
        asked[body.session_hash] = "questions"
        return True, "id", "success"

    def ask(session: str | None) -> tuple[bool, str, str]:
        body = SimpleNamespace(session_hash=session)
        return asyncio.run(queue.push(body, SimpleNamespace(), None))

    queue.push = push
    forget_sessions(queue)
    for session in (None, *"abcdefg", "h" * MAX_NAME):
        assert ask(session) == (True, "id", "success")
    assert [*asked] == ["e", "f", "g", "h" * MAX_NAME], "of one the answers were there till the end"
    refused = (False, "A session_hash has at most 64 letters.", "error")
    assert ask("i" * (MAX_NAME + 1)) == refused and len(asked) == 4


def test_a_session_with_too_long_a_name_is_refused(site: Site) -> None:
    """On the real server, which knows the queue by the same name."""
    body = {"fn_index": 0, "data": [], "session_hash": "a" * (MAX_NAME + 1)}
    answer = site.client.post("/gradio_api/queue/join", json=body)
    assert answer.status_code == 400 and "at most 64 letters" in answer.text


def test_gradio_fetches_nothing_for_anybody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_get", None)  # put back afterwards
    close_url_inputs()
    with pytest.raises(gr.Error, match="cannot be an address"):
        asyncio.run(
            processing_utils.async_ssrf_protected_download("https://a.test/b", str(tmp_path))
        )


def test_a_picture_that_is_shown_again_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may just be getting the old file."""
    usual = processing_utils.save_pil_to_cache
    monkeypatch.setattr(processing_utils, "save_pil_to_cache", usual)  # put back afterwards
    replace_pictures_whole()
    image = Image.new("RGB", (3, 2), "red")
    expected = usual(image, str(tmp_path / "usual"), "a", "png")
    path = Path(processing_utils.save_pil_to_cache(image, str(tmp_path / "here"), "a", "png"))
    assert path.relative_to(tmp_path / "here") == Path(expected).relative_to(tmp_path / "usual")
    number = path.stat().st_ino
    assert processing_utils.save_pil_to_cache(image, str(tmp_path / "here"), "a", "png") == str(
        path
    )
    assert path.stat().st_ino != number
    assert path.read_bytes() == Path(expected).read_bytes()
    assert list(path.parent.iterdir()) == [path]


def test_a_picture_that_is_being_sent_may_keep_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows replaces no file that is open."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(processing_utils, "save_pil_to_cache", None)  # put back afterwards
    replace_pictures_whole()
    asked = Image.new("RGB", (3, 2), "red"), str(tmp_path), "a", "png"
    path = Path(processing_utils.save_pil_to_cache(*asked))
    monkeypatch.setattr(Path, "replace", refuse)
    assert processing_utils.save_pil_to_cache(*asked) == str(path)
    assert list(path.parent.iterdir()) == [path]
    path.unlink()
    with pytest.raises(gr.Error):  # there is none that could be sent
        processing_utils.save_pil_to_cache(*asked)


def test_a_full_disk_is_said_of_pictures_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradio writes them when an event has ended."""
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(processing_utils, "save_pil_to_cache", None)  # put back afterwards
    replace_pictures_whole()
    monkeypatch.setattr(Path, "write_bytes", Mock(side_effect=full))
    with pytest.raises(gr.Error, match="The server's disk is full"):
        processing_utils.save_pil_to_cache(Image.new("RGB", (3, 2)), str(tmp_path), "a", "png")
