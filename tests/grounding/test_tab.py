import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from grounding.core import Regions
from grounding.events import read_picture
from grounding.overlay import COLOURS, HEADERS, NEGATIVE_COLOUR
from grounding.pipeline import Models
from grounding.prompt import parse_prompt
from grounding.select import Choice, Proposals, pack_masks
from grounding.session import (
    Session,
    Settings,
    look,
    pack_zip,
    read_settings,
    settings_from_query,
    switch,
)
from grounding.tab import SAMPLES, _samples
from grounding.weights import Source

ASKED = {
    "prompt": "dog -collar",
    "grounder": "CLIPSeg",
    "segmenter": "SAM 2.1 tiny",
    "threshold": 0.3,
}


@pytest.fixture
def session() -> Session:
    """Two dogs and a collar over one of them."""
    boxes = np.array([[0, 0, 10, 10], [12, 0, 16, 4], [4, 0, 6, 10]], np.float32)
    scores = np.array([0.9, 0.6, 0.4], np.float32)
    regions = Regions(boxes, scores, ("dog", "dog", "collar"))
    masks = np.zeros((3, 20, 20), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    query, sure = parse_prompt("dog -collar"), np.ones(3, np.float32)
    found = Proposals(query, regions, pack_masks(masks), sure, (20, 20), 0.05, {}, {})
    source = Source("a/b", Path(), False)
    models = Models(None, None, source, source)  # type: ignore[arg-type]
    return Session(Image.new("RGB", (20, 20)), found, models, ASKED)


def _rows(session: Session, threshold: float) -> list[list[Any]]:
    return look(session, Settings(), threshold)[2]


def test_look_shows_the_answer_in_every_part(session: Session) -> None:
    ((_, pairs), colours), regions, rows, status, stages = look(session, Settings(), 0.3)
    assert [label for _, label in pairs] == ["dog", "dog"]
    assert colours == {"dog": COLOURS[0], "collar": NEGATIVE_COLOUR}
    assert [row[2] for row in rows] == ["dog", "dog", "−collar"]
    assert [row[-1] for row in rows] == [20.0, 4.0, 5.0], "the collar's area is taken out"
    assert all(len(row) == len(HEADERS) for row in rows)
    assert "Found 2 regions" in status and "prompt=dog+-collar" in status
    assert regions.size == stages[0].size == stages[1].size
    assert stages[0].tobytes() != stages[1].tobytes()


def test_rows_are_switched_off_and_stay_so(session: Session) -> None:
    rows = _rows(session, 0.3)
    rows[1][0] = False
    off = switch(session, Settings(), 0.3, rows)
    assert off.off == {1}
    assert [row[0] for row in _rows(off, 0.3)] == [True, False, True]
    # At 0.7 the row is not in the table, and comes back as it was left.
    kept = switch(off, Settings(), 0.7, _rows(off, 0.7))
    assert kept.off == {1}
    rows[1][0] = True
    assert switch(kept, Settings(), 0.3, rows).off == frozenset()


def test_zip_holds_what_is_shown(session: Session, tmp_path: Path) -> None:
    with ZipFile(pack_zip(session, Settings(), 0.7, tmp_path)) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
    assert [name for name in names if name.startswith("masks/")] == ["masks/01-dog.png"]
    assert manifest["prompt"] == "dog -collar" and len(manifest["rows"]) == 1
    assert manifest["settings"]["threshold"] == 0.7
    assert manifest["settings"]["grounder"] == "CLIPSeg"


def test_nothing_to_download_yet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="press Run first"):
        pack_zip(None, Settings(), 0.3, tmp_path)


def test_more_settings_are_read_in_their_order() -> None:
    settings = read_settings(2, 1.5, True, False, 0.4, 3)
    assert settings.choice == Choice(0.0, 2, 1.5, True, False)
    assert (settings.style.opacity, settings.style.outline) == (0.4, 3)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({}, {}),  # nothing
        ({"prompt": "a dog", "threshold": "0.2"}, {"prompt": "a dog", "threshold": 0.2}),
        ({"grounder": "CLIPSeg"}, {"grounder": "CLIPSeg", "threshold": 0.4}),  # with its own
        ({"segmenter": "SAM 2.1 large"}, {"segmenter": "SAM 2.1 large"}),
        ({"grounder": "x", "segmenter": "y", "threshold": "z"}, {}),  # unknown
        ({"threshold": "7"}, {}),  # out of range
        ({"threshold": "nan"}, {}),  # no number
    ],
)
def test_settings_from_a_link(query: dict[str, str], said: dict[str, Any]) -> None:
    assert settings_from_query(query) == said


@pytest.mark.parametrize(
    ("path", "url", "message"),
    [
        (None, "", "Choose a picture first"),  # nothing
        (__file__, "", "text file"),  # a file that is no picture
        (None, "ftp://example.org/a.png", "http"),  # an address of another kind
        (None, "http://127.0.0.1/a.png", "address"),  # an address inside the server's network
    ],
)
def test_refused_pictures(path: str | None, url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_picture(path, url)


def test_samples_are_there() -> None:
    assert len(_samples()) >= 6
    assert all(Path(path).parent == SAMPLES and Path(path).exists() for path, _ in _samples())
