from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from grounding.compare import COMPARED, HEADERS, compare, describe
from grounding.core import Regions
from grounding.grounders import GROUNDERS
from grounding.overlay import COLOURS, Style
from grounding.prompt import Query
from grounding.select import Choice, Proposals, pack_masks
from grounding.settings import Settings
from grounding.weights import BUNDLED, Source

PICTURE = Image.new("RGB", (10, 10))


ERRORS = {"CLIPSeg": ValueError("The weights are not here."), "GLIP-T": MemoryError()}


def _propose(grounder: str, threshold: float) -> Proposals:
    assert threshold == GROUNDERS[grounder].threshold
    if grounder in ERRORS:
        raise ERRORS[grounder]
    regions = Regions(np.ones((1, 4), np.float32), np.full(1, 0.9, np.float32), ("a dog",))
    bits, sure = pack_masks(np.ones((1, 10, 10), bool)), np.ones(1, np.float32)
    seconds = {"grounder": 0.25, "segmenter": 0.5}
    best = {"a dog": 0.9, "collar": 0.95}  # what is taken away is not what was looked for
    query = Query(["a dog"], ["collar"])
    return Proposals(query, regions, bits, sure, (10, 10), 0.05, best, seconds)


def test_every_grounder_answers_or_says_why_not() -> None:
    named = {answer.row[0]: answer for answer in compare(PICTURE, _propose, Settings())}
    rows = {name: answer.row for name, answer in named.items()}
    assert tuple(rows) == COMPARED and all(len(row) == len(HEADERS) for row in rows.values())
    assert rows["GroundingDINO tiny"] == ["GroundingDINO tiny", 1, 0.9, 0.3, 0.25, 0.5]
    found, missing, large = (named[name] for name in ("GroundingDINO tiny", *ERRORS))
    assert [len(answer.detections) for answer in (found, missing, large)] == [1, 0, 0]
    assert "more memory than" in large.caption
    assert found.caption == "GroundingDINO tiny: 1 found, 0.8 s"
    assert found.detections[0]["rle"]["size"] == [10, 10]
    assert "not here" in missing.caption and "not here" in rows["CLIPSeg"][1]
    assert found.picture.tobytes() != PICTURE.tobytes() == missing.picture.tobytes()


def test_the_best_score_is_of_what_is_shown_if_anything_is() -> None:
    """Its phrase may have a better one that is left out."""

    def propose(grounder: str, threshold: float) -> Proposals:
        query = Query(["a dog", "a cat"], [])
        best = {"a dog": 0.99, "a cat": 0.2}
        return replace(_propose("GroundingDINO tiny", 0.3), query=query, best=best)

    for count, best in ((30, 0.9), (0, 0.99)):
        answer = next(compare(PICTURE, propose, Settings(Choice(0, count=count))))
        assert answer.row[1:3] == [min(count, 1), best]


def test_colours_follow_the_prompt() -> None:
    def propose(grounder: str, threshold: float) -> Proposals:
        answer = _propose("GroundingDINO tiny", 0.3)
        return replace(answer, query=Query(["the zebra", "a dog"], []))

    picture = next(compare(PICTURE, propose, Settings(style=Style(opacity=1.0)))).picture
    paler = next(compare(PICTURE, propose, Settings(style=Style(opacity=0.2)))).picture
    assert picture.getpixel((5, 5)) != paler.getpixel((5, 5))
    assert picture.getpixel((5, 5)) == ImageColor.getrgb(COLOURS[1]), "the dog is named second"


@pytest.mark.parametrize(("count", "found"), [(30, 1), (0, 0)])
def test_the_settings_of_the_page_count(count: int, found: int) -> None:
    answers = compare(PICTURE, _propose, Settings(Choice(0.99, count=count)))
    assert next(answers).row[1] == found, "at the grounder's own threshold all the same"


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([], ""),  # every grounder has failed
        ([Source("a/b", Path())] * 2, "Weights in use: a/b."),
        (
            [Source("a/b", Path()), Source(BUNDLED, Path(), "so")],
            "<b>a/b and bundled demo weights</b>, which know only",
        ),
    ],
)
def test_prompt_and_weights_are_said(sources: list[Source], words: str) -> None:
    said = describe("a  dog,\n<b>", sources)
    assert "“a dog&#44; &#60;b&#62;”. Each at its own threshold" in said
    assert words in said if words else "eights" not in said


def test_a_large_picture_is_shown_no_larger_without_an_answer() -> None:
    large = Image.new("RGB", (2560, 100))
    sizes = {answer.picture.size for answer in compare(large, _fail, Settings())}
    assert sizes == {(1280, 50)}


def _fail(grounder: str, threshold: float) -> Proposals:
    raise ValueError(grounder)
