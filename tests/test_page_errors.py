import gradio as gr
import pytest

from page import page_errors


def test_an_error_becomes_a_message_without_markup() -> None:
    with pytest.raises(gr.Error) as caught, page_errors():
        raise ValueError("<img src=x onerror=alert(1)>")
    assert caught.value.message == "&lt;img src=x onerror=alert(1)&gt;"
