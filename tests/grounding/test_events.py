"""What the page's events need of each other; what they answer is tested where it is made."""

import math
import re
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from grounding.core import Masks, Regions
from grounding.events import Events, read_picture
from grounding.grounders import GROUNDERS
from grounding.prompt import Query
from grounding.retouch import ADD
from grounding.select import Proposals, pack_masks
from grounding.session import Session
from grounding.settings import Settings
from grounding.store import ModelStore
from grounding.weights import BUNDLED, Origin, Source, Weights

MORE = Settings().values().values()


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


def test_what_the_page_asks_wrongly_is_a_warning() -> None:
    """After an error the page would not answer what has been asked for meanwhile."""
    events = Events(ModelStore(Weights("demo"), "cpu"), print, print, fetch=None)
    asked = ("a dog", "GroundingDINO tiny", "SAM 2.1 tiny", 0.3)
    with pytest.warns(UserWarning, match="Choose a picture first"):
        assert events.run(None, "", *asked) == (gr.skip(),) * 3
    with pytest.raises(gr.Error, match="Choose a picture first"):
        events.segment(None, "", *asked)
    with pytest.warns(UserWarning, match="Choose a picture first"):
        began, ended = events.compare_here(None, "", *asked[::2], print, *MORE)
        assert began == (*(gr.skip(),) * 3, True) and ended == (*(gr.skip(),) * 3, False)
    with pytest.raises(gr.Error, match="Choose a picture first"):
        events.compare(None, "", *asked[::2])
    with pytest.warns(UserWarning, match="Choose pictures first"):
        assert list(events.batch(None, *asked, print, *MORE)) == [(gr.skip(),) * 3]


@pytest.mark.parametrize("grounder", GROUNDERS)
def test_without_a_threshold_a_program_gets_the_grounders_own(
    grounder: str, tmp_path: Path
) -> None:
    thresholds: list[float] = []

    def infer(*asked: Any) -> None:
        thresholds.append(asked[-1])
        raise ValueError("enough")

    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    events = Events(ModelStore(Weights("demo"), "cpu"), infer, print, fetch=None)
    for given in (None, 0.05, 0.95):
        with pytest.raises(gr.Error, match="enough"):
            events.segment(
                str(tmp_path / "a.png"), prompt="a dog", grounder=grounder, threshold=given
            )
    assert thresholds == [GROUNDERS[grounder].threshold, 0.05, 0.95]


@pytest.mark.parametrize("threshold", [0, 0.04, 0.96, math.nan, math.inf, "0.3", [0.3]])
def test_a_programs_threshold_is_a_number_that_the_page_allows(threshold: Any) -> None:
    events = Events(ModelStore(Weights("demo"), "cpu"), print, print, fetch=None)
    words = re.escape(f"threshold is {threshold!r}; give a number from 0.05 to 0.95, or none")
    with pytest.raises(gr.Error, match=words):
        events.segment("a.png", threshold=threshold)


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
    np.testing.assert_allclose(places, [(200.5, 40.5)])  # between two pixels


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


def _session(segmenter: Source) -> Session:
    """A dog in the corner."""
    origin = Origin(Source("a/b", Path("its")), segmenter)
    regions = Regions(np.array([[0, 0, 4, 4]], np.float32), np.ones(1, np.float32), ("a dog",))
    mask = np.zeros((1, 9, 9), bool)
    mask[0, :4, :4] = True
    query, bits, sure = Query(["a dog"], []), pack_masks(mask), np.ones(1, np.float32)
    proposals = Proposals(query, regions, bits, sure, (9, 9), 0.05, {}, {})
    asked = {"prompt": "a dog", "grounder": "CLIPSeg", "segmenter": "SAM 2.1 tiny"}
    return Session(
        Image.new("RGB", (9, 9)), proposals, origin, asked | {"url": "", "threshold": 0.3}
    )


def test_who_has_left_gets_no_more_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradio stops an event between two of its answers."""
    looked: list[float] = []  # how far the bar was
    events = Events(ModelStore(Weights("demo"), "cpu"), print, print, fetch=None)
    session = _session(Source(BUNDLED, Path(), why="so"))
    monkeypatch.setattr(events, "_answer", lambda *_, done: looked.append(done) or session)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "made"))
    files = [str(tmp_path / f"{i}.png") for i in range(4)]
    for file in files:
        Image.new("RGB", (9, 9)).save(file)
    asked = files, "a dog", "CLIPSeg", "SAM 2.1 tiny", 0.3, lambda *_, **__: None, *MORE
    answers = events.batch(*asked)
    assert next(answers) == (gr.skip(),) * 3 and len(looked) == 1
    answers.close()
    assert len(looked) == 1
    assert not [path for path in (tmp_path / "made").rglob("*") if path.is_file()]
    *_, (file, painted, text) = events.batch(*asked)
    assert len(painted) == 4 and text.startswith("4 of 4 pictures done")
    assert looked[1:] == [0, 0.25, 0.5, 0.75]
    with zipfile.ZipFile(file) as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {*"0123"}


def test_a_correction_has_the_weights_of_its_answer() -> None:
    """By now the hub may have others, and a download would hold up everybody."""
    used: list[Source] = []

    def draw(_name: str, source: Source, picture: Image.Image, _what: object) -> Masks:
        used.append(source)
        return Masks(np.ones((1, picture.height, picture.width), bool), np.ones(1, np.float32))

    mine = Source(BUNDLED, Path("mine"), why="so")
    session = _session(mine)
    weights = Weights("demo")
    weights.locate = lambda *_: pytest.fail("the hub may be asked")  # type: ignore[method-assign]
    events = Events(ModelStore(weights, "cpu"), print, draw, fetch=None)
    events.correct(session, Settings(), 0.3, ADD, "a dog", session.key, "6", "6")
    assert used == [mine] and used[0].why == "so" and len(session.corrections.edits) == 1
