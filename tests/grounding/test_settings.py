import re
from typing import Any
from urllib.parse import parse_qsl

import pytest

from grounding.overlay import Style
from grounding.select import Choice
from grounding.settings import Settings, read_settings, settings_from_query, settings_link

ASKED = {
    "prompt": "a dog, <b>)",
    "grounder": "CLIPSeg",
    "segmenter": "SAM 2.1 tiny",
    "url": "https://example.org/a.png?b=1&c=2",
}


def test_more_settings_are_read_in_their_order() -> None:
    settings = read_settings(2, 1.5, True, False, 0.4, 3)
    assert settings == Settings(Choice(0.0, 2, 1.5, True, False), Style(0.4, 3))
    assert list(settings.values().values()) == [2, 1.5, True, False, 0.4, 3]


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        (Settings(), {}),  # what is as usual is not in the link
        (read_settings(5, 1.5, True, False, 0.4, 0),
         {"count": 5, "min_area": 1.5, "best_only": 1, "opacity": 0.4, "outline": 0}),
    ],
)  # fmt: skip
def test_a_link_says_what_it_was_made_from(settings: Settings, more: dict[str, float]) -> None:
    link = settings_link(ASKED, 0.35, settings)
    address = re.search(r"[(][?](.*)[)]</small>", link)
    assert address and "<b>" not in link and " " not in address[1]
    said = settings_from_query(dict(parse_qsl(address[1])))
    assert said == {**ASKED, "threshold": 0.35, **more}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({}, {}),  # nothing
        ({"prompt": "a dog", "threshold": "0.2"}, {"prompt": "a dog", "threshold": 0.2}),
        ({"grounder": "CLIPSeg"}, {"grounder": "CLIPSeg", "threshold": 0.4}),  # with its own
        ({"segmenter": "SAM 2.1 large"}, {"segmenter": "SAM 2.1 large"}),
        ({"grounder": "x", "segmenter": "y", "threshold": "z"}, {}),  # unknown
        ({"threshold": "7", "count": "0", "opacity": "2"}, {}),  # out of range
        (
            {"count": "2.7", "outline": "2.5", "min_area": "2.5"},
            {"count": 3, "outline": 2, "min_area": 2.5},
        ),  # whole numbers are
        ({"threshold": "nan", "outline": "inf"}, {}),  # no number
        ({"prompt": "x" * 4000, "url": "y" * 2048}, {"prompt": "x" * 4000, "url": "y" * 2048}),
        ({"prompt": "x" * 4001, "url": "y" * 2049}, {}),  # what the fields would refuse
    ],
)
def test_settings_from_a_link(query: dict[str, str], said: dict[str, Any]) -> None:
    assert settings_from_query(query) == said
