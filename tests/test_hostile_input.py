"""Prompts and numbers that no person types, sent by a program to every endpoint."""

import base64
import io
import math
from typing import Any

import pytest
from PIL import Image

from tests.site import ROOT, Site


def _picture() -> dict[str, Any]:
    image = Image.new("RGB", (64, 32), "white")
    image.paste((255, 0, 0), (20, 8, 44, 20))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"url": url, "meta": {"_type": "gradio.FileData"}}


def status(result: dict[str, Any]) -> str:
    """Return all the text of an answer."""
    return " ".join(part for part in result["data"] if isinstance(part, str))


MARKUP = "<img src=x onerror=alert(1)>"
PROMPTS = [
    # what is sent, the sentence that comes back; none if it is a prompt like any other
    (None, "Type what to look for"),
    ("", "Type what to look for"),
    (" \n.,;\t", "Type what to look for"),
    ("🐕🐈", "is a symbol; say in words"),  # no letter
    ("\0", "Type what to look for"),
    ("x" * 10_000, "has 10000 characters; at most 4000"),
    (", " * 1900 + "dog", None),
    (", ".join(f"thing {i}" for i in range(200)), "has 200 phrases; at most 20"),
    ("dog " * 100, "A phrase has 399 characters"),
    ("a \ud83d dog", "broken character"),
    ("dog: nan", None),
    ("dog: 1e9", None),
    ("dog: 7", "must be between 0 and 1"),
    (f"{MARKUP} dog: 7", "must be between 0 and 1"),
    (MARKUP, None),
    ("[a](javascript:alert(1)), **b**, `c`, # d", None),  # Markdown
    ("${7*7}, {{7*7}}, %s, {0}, $(id), '; drop table", None),  # templates and commands
    ("כלב גדול, \u202egod", None),  # right to left
    ("犬、猫", None),
    ("🐕 dog", None),
    ("e\u0301" * 39, None),
    ("../../etc/passwd, CON, a/b, .., -rf", None),  # as file names
    ("[SEP] [CLS] [PAD], <|endoftext|>", None),  # tokens of the models
    (7, None),
    (["a", "b"], None),
    ({"a": 1}, None),
    (True, None),
]


@pytest.mark.parametrize(("prompt", "sentence"), PROMPTS)
def test_prompts(site: Site, prompt: Any, sentence: str | None) -> None:
    result = site.call("segment", image=_picture(), prompt=prompt)
    if sentence:
        assert sentence in result["error"] and "<" not in result["error"]
    else:
        assert "data" in result
        assert "<img" not in status(result) and "](javascript" not in status(result)


NUMBERS = [-1, 2, 1e308, -1e308, math.nan, math.inf, -math.inf, 10**400, "0.3", "x", [0.3], {}]
NAMES = ["GLIP-9", "", 7, ["mean"], {}, "../../etc/passwd", MARKUP]
ENDPOINTS = [
    # endpoint, the argument that a wrong value goes to, wrong values
    ("segment", "threshold", NUMBERS),
    ("segment", "grounder", NAMES),
    ("segment", "segmenter", NAMES),
    ("classify", "discard_ratio", NUMBERS),
    ("classify", "head_fusion", NAMES),
    ("compare", "segmenter", NAMES),
    ("compare", "prompt", ["", None, "x" * 10_000]),
]


RIGHT = {
    "segment": {"image": _picture(), "prompt": "a red patch"},
    "compare": {"image": _picture(), "prompt": "a red patch"},
    "classify": {"image": _picture()},
}


@pytest.mark.parametrize(
    ("endpoint", "argument", "value"),
    [(name, argument, value) for name, argument, values in ENDPOINTS for value in values],
)
def test_absurd_values(site: Site, endpoint: str, argument: str, value: Any) -> None:
    result = site.call(endpoint, **RIGHT[endpoint] | {argument: value})
    assert "data" not in result
    said = result["error"] or ""
    assert not any(word in said for word in ("Traceback", str(ROOT), "object", "Error"))


@pytest.mark.parametrize("endpoint", RIGHT)
def test_the_next_request_is_answered(site: Site, endpoint: str) -> None:
    assert "data" in site.call(endpoint, **RIGHT[endpoint])


def test_files_are_given_as_attachments(site: Site) -> None:
    """What somebody uploads is never a page of this server."""
    for name in ("a.html", "a.svg", "a.xhtml", "a.js", "a"):
        files = {"files": (name, b"<script>alert(1)</script>")}
        [path] = site.client.post("/gradio_api/upload", files=files).json()
        answer = site.client.get(f"/gradio_api/file={path}")
        assert answer.headers["content-disposition"].startswith("attachment"), name
