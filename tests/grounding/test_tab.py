from pathlib import Path

import numpy as np
import pytest

from grounding.core import Masks, Regions
from grounding.pipeline import Models, Result
from grounding.tab import SAMPLES, _samples, describe, read_picture
from grounding.weights import Source


def _result(labels: tuple[str, ...], phrases: list[str]) -> Result:
    n = len(labels)
    regions = Regions(np.zeros((n, 4), np.float32), np.ones(n, np.float32), labels)
    masks = Masks(np.ones((n, 4, 4), bool), np.ones(n, np.float32))
    return Result(phrases, regions, masks, {"grounder": 0.5})


def _models(demo: bool) -> Models:
    source = Source("bundled demo weights" if demo else "a/b", Path(), demo)
    return Models(None, None, source, source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "phrases", "words"),
    [
        (("a dog",), ["a dog"], ["Found 1 region."]),  # one
        (("a dog", "a dog"), ["a dog"], ["Found 2 regions."]),  # many
        ((), ["a dog"], ["Nothing found for “a dog”", "at least 0.30"]),  # none
        (("a dog",), ["a dog", "a cat"], ["Found 1", "Nothing found for “a cat”"]),  # one of two
        ((), ["<b>"], ["&#60;b&#62;"]),  # markup stays text
    ],
)
def test_describe(labels: tuple[str, ...], phrases: list[str], words: list[str]) -> None:
    text = describe(_result(labels, phrases), _models(demo=False), 0.3)
    assert all(word in text for word in words)
    assert "Weights in use: a/b." in text and "<b>" not in text


def test_describe_says_that_demo_weights_are_in_use_and_what_to_do() -> None:
    text = describe(_result(("a dog",), ["a dog"]), _models(demo=True), 0.3)
    assert "bundled demo weights" in text and "--weights demo" in text


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
