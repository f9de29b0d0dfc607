import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grounding.batch import LIMIT, Report, segment_files
from grounding.core import Regions
from grounding.prompt import parse_prompt
from grounding.select import Choice, Proposals, pack_masks
from grounding.session import Session, look
from grounding.settings import Settings
from grounding.weights import Origin, Source

ASKED = {
    "prompt": "a dog",
    "grounder": "CLIPSeg",
    "segmenter": "SAM 2.1 tiny",
    "threshold": 0.3,
    "url": "",
}


def _answer(picture: Image.Image, _done: float) -> Session:
    """Find a dog in the left upper corner of every picture that is not black."""
    n, (width, height) = int(np.asarray(picture).any()), picture.size
    mask = np.zeros((n, height, width), bool)
    mask[:, :4, :5] = True
    regions = Regions(
        np.tile(np.array([0, 0, 5, 4], np.float32), (n, 1)), np.ones(n, np.float32), ("a dog",) * n
    )
    found = Proposals(
        parse_prompt("a dog"), regions, pack_masks(mask), regions.scores, (height, width), 0.05,
        {}, {},
    )  # fmt: skip
    source = Source("a/b", Path())
    return Session(picture, found, Origin(source, source), ASKED)


def test_every_picture_has_its_folder_and_a_bad_one_stops_nothing(tmp_path: Path) -> None:
    for folder, colour in (("a", "red"), ("b", "black")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (20, 10), colour).save(tmp_path / folder / "same name.png")
    for folder in ("a", "b"):
        (tmp_path / folder / "bad.png").write_text("This is no picture.")
    names = ("a/same name.png", "a/bad.png", "b/bad.png", "b/same name.png")
    paths = [str(tmp_path / name) for name in names]
    report = Report()
    files = dict(segment_files(paths, _answer, Settings(), 0.3, report))
    assert {name.split("/")[0] for name in files} == {"same-name", "same-name-2"}
    assert json.loads(files["same-name-2/manifest.json"])["file"] == "same name.png"
    assert "same-name/masks/01-a-dog.png" in files and "same-name-2/coco.json" in files
    assert not any(name.startswith("same-name-2/masks") for name in files), "nothing found there"
    assert [caption for _, caption in report.painted] == [
        "1 found: same name.png",
        "0 found: same name.png",
    ]
    assert [name for name, _ in report.failures] == ["bad.png"] * 2
    assert all("text file" in why for _, why in report.failures)
    assert report.describe().startswith("2 of 4 pictures done. Weights in use: a/b.\nbad.png: ")


def test_memory_that_is_used_up_at_one_picture(tmp_path: Path) -> None:
    def answer(picture: Image.Image, done: float) -> Session:
        if picture.width == 21:
            raise MemoryError
        return _answer(picture, done)

    paths = [str(tmp_path / f"{width}.png") for width in (20, 21, 22)]
    for path in paths:
        Image.new("RGB", (int(Path(path).stem), 10), "red").save(path)
    report = Report()
    assert dict(segment_files(paths, answer, Settings(), 0.3, report))
    [(name, why)] = report.failures
    assert len(report.painted) == 2 and name == "21.png" and "more memory than" in why


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "Choose pictures first"), (LIMIT + 1, f"pictures were given; choose at most {LIMIT}")],
)
def test_how_many(count: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        next(segment_files(["a.png"] * count, _answer, Settings(), 0.3, Report()))


@pytest.mark.parametrize(
    ("settings", "found"), [(Settings(), 1), (Settings(Choice(0, 30, 11.0)), 0)]
)
def test_settings_count_in_the_picture_and_in_the_files(
    tmp_path: Path, settings: Settings, found: int
) -> None:
    """The dog is a tenth of the picture."""
    picture = Image.new("RGB", (20, 10), "red")
    picture.save(tmp_path / "a.png")
    report = Report()
    files = dict(segment_files([str(tmp_path / "a.png")], _answer, settings, 0.3, report))
    shown = look(_answer(picture, 0), settings, 0.3).stages[1]
    assert report.painted == [(shown, f"{found} found: a.png")]
    assert len(json.loads(files["a/manifest.json"])["rows"]) == found


def test_the_share_that_is_done_of_as_many_as_there_may_be(tmp_path: Path) -> None:
    shares: list[float] = []

    def answer(picture: Image.Image, done: float) -> Session:
        shares.append(done)
        return _answer(picture, done)

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    paths = [str(tmp_path / "a.png")] * LIMIT
    assert dict(segment_files(paths, answer, Settings(), 0.3, Report()))
    assert shares == [i / LIMIT for i in range(LIMIT)]
