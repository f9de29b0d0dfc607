from pathlib import Path

import gradio as gr
import pytest
from gradio.data_classes import ImageData

from page import hand_over_file, page_errors


def test_an_error_becomes_a_message_without_markup() -> None:
    with pytest.raises(gr.Error) as caught, page_errors():
        raise ValueError("<img src=x onerror=alert(1)>")
    assert caught.value.message == "&lt;img src=x onerror=alert(1)&gt;"


def test_files_come_as_uploaded(tmp_path: Path) -> None:
    image = gr.Image(type="filepath")
    hand_over_file(image)
    (tmp_path / "fake.png").write_text("hello")
    path = str(tmp_path / "fake.png")
    assert image.preprocess(ImageData(path=path, orig_name="fake.png")) == path
    assert image.preprocess(None) is None
