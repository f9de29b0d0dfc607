import errno
from html import escape
from pathlib import Path

import gradio as gr
import pytest

from web.page import (
    LATEST,
    NO_MEMORY,
    NO_ROOM,
    choice_of,
    explain,
    new_folder,
    page_errors,
    show_picture,
    warn,
)


class OutOfMemoryError(RuntimeError):
    """As torch's is called."""


def test_an_error_becomes_a_message_without_markup() -> None:
    with pytest.raises(gr.Error) as caught, page_errors():
        raise ValueError("<img src=x onerror=alert(1)>")
    assert caught.value.message == "&lt;img src=x onerror=alert(1)&gt;"


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
def test_other_errors_are_said_without_what_they_say(error: Exception) -> None:
    """That is for the log: it may be of the server."""
    with pytest.raises(gr.Error, match="Something unexpected went wrong") as caught, page_errors():
        raise error
    assert caught.value.print_exception and caught.value.__cause__ is error
    with pytest.raises(type(error)):
        explain(error)


def test_a_message_that_was_made_already_stays_as_it_is() -> None:
    """As it comes out of ZeroGPU's worker."""
    with pytest.raises(gr.Error) as made, page_errors():
        raise ValueError("“<b>” isn't there.")
    assert explain(made.value) == ("Please check", "“<b>” isn't there.")
    with pytest.raises(gr.Error) as again, page_errors():
        raise made.value
    assert again.value is made.value


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


@pytest.mark.parametrize(("error", "told"), [(ValueError("a"), False), (RuntimeError("b"), True)])
def test_a_warning_leaves_what_was_unexpected_in_the_log(
    error: Exception,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gr, "Warning", lambda *_, **__: None)
    with pytest.raises(gr.Error) as caught, page_errors():
        raise error
    warn(caught.value)
    log = capsys.readouterr().err
    assert "RuntimeError: b" in log if told else not log


def test_where_there_is_nothing_to_choose_there_is_no_slider() -> None:
    assert [choice_of(count, 1).visible for count in (1, 2)] == [False, True]
