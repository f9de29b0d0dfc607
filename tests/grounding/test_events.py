"""What the page's events need of each other; what they answer is tested where it is made."""

import threading
import time
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from grounding.events import Events, read_picture
from grounding.session import Session
from grounding.settings import Settings
from grounding.store import ModelStore
from grounding.weights import Weights


def test_one_model_at_a_time_is_at_work() -> None:
    """Two would take the memory of both, and hardly be faster."""
    at_work, most = 0, 0

    def work(*_: Any) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.02)
        at_work -= 1

    events = Events(ModelStore(Weights("demo"), "cpu"), work, work, fetch=None)
    threads = [threading.Thread(target=call) for call in (events.infer, events.draw) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_click_is_meant_in_pixels_of_the_picture_that_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A picture is shown with at most 1280 pixels; corrections are made in the whole one."""
    events = Events(ModelStore(Weights("demo"), "cpu"), print, print, fetch=None)
    places: list[tuple[float, float]] = []
    monkeypatch.setattr(events, "correct", lambda *asked: places.append(asked[-2:]))
    session = Session(Image.new("RGB", (2560, 1000)), None, None, {})
    click = gr.SelectData(None, {"index": [100, 20], "value": None})
    events.click(session, Settings(), 0.3, "tool", "a dog", session.key, click)
    np.testing.assert_allclose(places, [(200, 40)])


@pytest.mark.parametrize(
    ("keys", "x", "message"),
    [
        ([], "5", "Press Run first"),  # no answer yet
        (["of the one before"], "5", "A new answer has come meanwhile; correct that one"),
        (["same"], "left", "Say where: x and y in pixels of the picture, as numbers"),
        (["same"], "", "Say where"),  # an empty field
    ],
)
def test_corrections_that_are_refused(keys: list[str], x: str, message: str) -> None:
    events = Events(ModelStore(Weights("demo"), "cpu"), print, print, fetch=None)
    session = Session(Image.new("RGB", (9, 9)), None, None, {}, key="same") if keys else None
    with pytest.raises(gr.Error, match=message):
        events.correct(session, Settings(), 0.3, "tool", "a dog", "".join(keys), x, "5")


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("", "file"),
        ("  ", "file"),  # nothing but blanks
        (" https://a.b/c.png ", "https://a.b/c.png"),  # an address wins over the page's sample
    ],
)
def test_which_picture_is_read(tmp_path: Path, url: str, opened: str) -> None:
    asked: list[str] = []
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    elsewhere = Image.new("RGB", (3, 3))
    picture = read_picture(
        str(tmp_path / "a.png"), url, lambda address: asked.append(address) or elsewhere
    )
    assert (asked or ["file"]) == [opened]
    assert picture.size == ((9, 9) if opened == "file" else (3, 3))
