"""The running app as programs use it: README's own lines, plain HTTP, and what /info says."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from grounding.compare import COMPARED
from grounding.demo.samples import SAMPLES, make_sample
from grounding.grounders import GROUNDERS

from .conftest import ROOT

# pycocotools is not yet used to NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STREET = ROOT / "assets" / "samples" / "segmentation" / "street.png"
SAMPLE = next(sample for sample in SAMPLES if sample.file == "street")
PROMPT = ", ".join(SAMPLE.prompt)


def readme_program(address: str) -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(from gradio_client.*?)```", text, re.DOTALL)
    assert program
    return program[1].replace("http://127.0.0.1:7860", address)


def test_the_program_in_the_readme_runs(app: Any) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", readme_program(app.url)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.strip().splitlines()
    phrases = [line for line in lines if re.match(r"(the blue car|a dog) 0\.\d+ \[", line)]
    classes = json.loads((ROOT / "assets/samples/cifar10/samples.json").read_text())
    assert len(phrases) >= 2 and lines[-1] in {row["label"] for row in classes}


def check_detections(found: list[dict[str, Any]]) -> None:
    """The run lengths of each phrase cover the object that the scene was drawn with."""
    scene = make_sample(SAMPLE)
    for phrase, thing in SAMPLE.prompt.items():
        colour, name = thing.split()
        truth = scene.masks[scene.find(name, colour)].any(0)
        masks = [coco_mask.decode(row["rle"]) for row in found if row["phrase"] == phrase]
        mask = np.any(masks, axis=0)
        assert mask.shape == truth.shape
        assert (mask & truth).sum() / (mask | truth).sum() > 0.5, phrase


@pytest.fixture
def web(app: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{app.url}/gradio_api", trust_env=False, timeout=120) as client:
        yield client


def call(web: httpx.Client, endpoint: str, *rest: object) -> list[Any]:
    """Ask an endpoint about the street, in the two steps that README shows with curl."""
    path = web.post("/upload", files={"files": STREET.read_bytes()}).json()[0]
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, *rest]
    event = web.post(f"/call/{endpoint}", json={"data": data}).json()["event_id"]
    stream = web.get(f"/call/{endpoint}/{event}").text
    assert "event: complete" in stream, stream
    return json.loads(re.findall(r"^data: (.*)$", stream, re.MULTILINE)[-1])


def segment(web: httpx.Client, prompt: str, grounder: str = "GroundingDINO tiny") -> list[Any]:
    """Return the detections at the grounder's own threshold."""
    return call(web, "segment", "", prompt, grounder, "SAM 2.1 tiny", None)[4]


@pytest.mark.parametrize("grounder", COMPARED)
def test_segment_returns_data(web: httpx.Client, grounder: str) -> None:
    found = segment(web, PROMPT, grounder)
    check_detections(found)
    for row in found:
        assert GROUNDERS[grounder].threshold <= row["grounder_score"] <= 1
        assert len(row["box"]) == 4 and row["area"] == coco_mask.area(row["rle"])


def test_the_masks_are_as_documented(web: httpx.Client) -> None:
    masks = call(web, "segment", "", PROMPT, "GroundingDINO tiny", "SAM 2.1 tiny", 0.3)[0]
    assert masks["image"]["url"] and {one["label"] for one in masks["annotations"]} == {
        *SAMPLE.prompt
    }


@pytest.mark.parametrize("endpoint", ["/classify", "/segment", "/compare"])
def test_the_sample_of_the_page_is_no_answer_for_programs(web: httpx.Client, endpoint: str) -> None:
    """Who forgets the picture or the prompt must hear of it."""
    parameters = web.get("/info").json()["named_endpoints"][endpoint]["parameters"]
    defaults = {one["parameter_name"]: one.get("parameter_default") for one in parameters}
    assert defaults["image"] is None and defaults.get("prompt") is None


def test_a_program_can_use_a_checkpoint_that_was_trained_meanwhile(
    web: httpx.Client, app: Any
) -> None:
    new = app.checkpoints / "meanwhile.safetensors"
    shutil.copy(ROOT / "assets" / "vit-cifar10.safetensors", new)
    note = call(web, "classify", "mean", 0, "checkpoints/meanwhile", 0.5, 0.5, 1)[3]
    assert "Model: **checkpoints/meanwhile**" in note
    new.unlink()


def test_compare_returns_what_each_grounder_found(web: httpx.Client) -> None:
    pictures, table, found = call(web, "compare", "", PROMPT, "SAM 2.1 tiny")
    assert tuple(found) == COMPARED and len(pictures) == len(table["data"]) == len(COMPARED)
    for name in COMPARED:
        check_detections(found[name])


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("the blue car", True),  # nothing is taken away
        ("the blue car -car", False),  # all of it is a car
        ("the blue car -a piano", True),  # a negative that is not there does no harm
    ],
)
def test_negatives_take_their_area_away(web: httpx.Client, prompt: str, left: bool) -> None:
    # GLIP may give a box to several phrases, GroundingDINO only to the best.
    found = segment(web, prompt, "GLIP-T")
    rows = [row for row in found if row["phrase"] == "the blue car"]
    assert (sum(row["area"] for row in rows) > 1000) == left


def test_each_phrase_may_have_its_own_threshold(web: httpx.Client) -> None:
    assert {row["phrase"] for row in segment(web, "the blue car: 1, a dog")} == {"a dog"}


def test_each_endpoint_explains_itself(web: httpx.Client) -> None:
    endpoints = web.get("/info").json()["named_endpoints"]
    assert {"/classify", "/segment", "/compare"} <= set(endpoints)
    for name in ("/classify", "/segment", "/compare"):
        assert len(endpoints[name]["description"]) > 20, name
        for parameter in endpoints[name]["parameters"]:
            assert parameter["label"] and parameter["parameter_name"].isidentifier(), name
