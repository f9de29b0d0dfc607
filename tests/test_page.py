import errno
from html import escape
from pathlib import Path

import gradio as gr
import pytest
from gradio.data_classes import ImageData

from page import (
    LATEST,
    NO_MEMORY,
    NO_ROOM,
    explain,
    forgive_sliders,
    hand_over_files,
    new_folder,
    page_errors,
    refuse_clamped,
    show_picture,
)


class OutOfMemoryError(RuntimeError):
    """As torch's is called."""


def test_an_error_becomes_a_message_without_markup() -> None:
    with pytest.raises(gr.Error) as caught, page_errors():
        raise ValueError("<img src=x onerror=alert(1)>")
    assert caught.value.message == "&lt;img src=x onerror=alert(1)&gt;"


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


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), NO_MEMORY),
        (OutOfMemoryError("CUDA out of memory"), NO_MEMORY),
        (RuntimeError("can't allocate memory: you tried to allocate 9 bytes"), NO_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), NO_ROOM),
    ],
)
def test_what_is_used_up_is_said(error: Exception, message: str) -> None:
    with pytest.raises(gr.Error) as caught, page_errors():
        raise error
    assert caught.value.message == escape(message, quote=False)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(errno.EACCES, "no")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, page_errors():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("path", ["/etc/hosts", "{}/../a.png", "{}-beside/a.png", "a.png"])
def test_other_files_of_the_server_stay_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    image = upload_field(monkeypatch)
    with pytest.raises(gr.Error, match="must be uploaded first"):
        image.preprocess(ImageData(path=path.format(tmp_path)))


def test_a_message_that_was_made_already_stays_as_it_is() -> None:
    """As it comes out of ZeroGPU's worker."""
    with pytest.raises(gr.Error) as made, page_errors():
        raise ValueError("“<b>” isn't there.")
    assert explain(made.value) == ("Please check", "“<b>” isn't there.")
    with pytest.raises(gr.Error) as again, page_errors():
        raise made.value
    assert again.value is made.value


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


def test_what_is_said_of_a_picture_comes_before_the_usual() -> None:
    assert show_picture("a", alt_text="b").alt_text == "b"


def test_what_two_take_home_does_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    assert new_folder() != new_folder()


@pytest.mark.parametrize(("error", "told"), [(ValueError("a"), False), (MemoryError(), True)])
def test_the_log_is_told_what_is_no_mistake_of_the_visitor(error: Exception, told: bool) -> None:
    with pytest.raises(gr.Error) as caught, page_errors():
        raise error
    assert caught.value.print_exception is told


def test_the_latest_request_is_never_lost() -> None:
    assert LATEST["trigger_mode"] == "always_last"
