"""Holds the whole network to the official code: every run of the fixture, in float32.

GLIP_PARITY_DIR names another fixture of the same layout.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import BertTokenizer

from grounding.grounders.glip.boxes import anchors, detect
from grounding.grounders.glip.caption import Span, encode, join
from grounding.grounders.glip.config import ANCHOR_SIZES, STRIDES
from grounding.grounders.glip.model import Glip, RawDetections
from grounding.grounders.glip.pictures import prepare

LOGITS, PIXELS, SCORES = 2e-4, 2e-3, 2e-5
LEVELS = ("p3", "p4", "p5", "p6", "p7")

Facts = dict[str, Any]
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[RawDetections, list[tuple[int, int]]]]:
    """Keep what the network said: several tests read it."""
    return {}


def official(folder: Path, run: Facts) -> Arrays:
    """Return what the official code computed, with a batch axis also where it had none."""
    with np.load(folder / f"{run['name']}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    if "images" in run:
        return arrays
    return {name: a if name.startswith("final") else a[None] for name, a in arrays.items()}


def pictures(folder: Path, run: Facts) -> list[Image.Image]:
    numbers = run.get("images", [run.get("image")])
    return [Image.open(folder / f"image_{number}.png").convert("RGB") for number in numbers]


def clean(phrase: str) -> str:
    """Write a name as the official evaluation does (its demo, and we, leave it as it is)."""
    return re.sub(r"\(.*\)", "", phrase).replace("_", " ").replace("  ", " ")


def caption(run: Facts) -> tuple[str, list[Span]]:
    """Return the caption of a run; that of an evaluation is written as we write ours."""
    if run["kind"].startswith("eval"):
        return join([clean(name) for name in run["phrases"]])
    starts = [run["caption"].index(phrase) for phrase in run["phrases"]]
    spans = zip(starts, run["phrases"], strict=True)
    return run["caption"], [(start, start + len(phrase)) for start, phrase in spans]


def scaled(folder: Path, facts: Facts, run: Facts) -> tuple[Tensor, list[tuple[int, int]]]:
    if run["kind"].startswith("eval"):
        short, long = facts["eval_min_size"], facts["eval_max_size"]
    else:
        short, long = facts["demo_min_image_size"], None
    return prepare(pictures(folder, run), short, long)


@pytest.fixture
def answer(
    answers: dict[str, tuple[RawDetections, list[tuple[int, int]]]],
    parity_folder: Path,
    parity_facts: Facts,
    parity_run: Facts,
    parity_model: Glip,
    parity_tokenizer: BertTokenizer,
) -> tuple[RawDetections, list[tuple[int, int]]]:
    """Return the network's answer, of valid tokens only, and the size of each scaled picture."""
    if parity_run["name"] not in answers:
        pixels, sizes = scaled(parity_folder, parity_facts, parity_run)
        ids, _ = encode(parity_tokenizer, *caption(parity_run), 256)
        with torch.inference_mode():
            raw = parity_model(pixels, ids.expand(len(pixels), -1))
        answers[parity_run["name"]] = raw, sizes
    return answers[parity_run["name"]]


def test_glip_parity_of_the_input(
    parity_folder: Path, parity_facts: Facts, parity_run: Facts
) -> None:
    pixels, sizes = scaled(parity_folder, parity_facts, parity_run)
    there = official(parity_folder, parity_run)
    assert tuple(pixels.shape[-2:]) == tuple(there["padded_hw"].reshape(-1, 2)[0])
    sides = np.array(parity_run["resized_hw"]).reshape(-1, 2)
    assert [tuple(side[::-1]) for side in sides.tolist()] == sizes
    if "input_tensor" in there:
        np.testing.assert_allclose(pixels.numpy(), there["input_tensor"], atol=1e-5)
    if "input_sum" in there:
        total = float(pixels.double().sum())
        assert total == pytest.approx(float(there["input_sum"][0]), rel=1e-4, abs=1)


def test_glip_parity_of_the_caption(
    parity_folder: Path, parity_run: Facts, parity_tokenizer: BertTokenizer
) -> None:
    text, spans = caption(parity_run)
    ids, positive = encode(parity_tokenizer, text, spans, 256)
    there = official(parity_folder, parity_run)
    assert text == parity_run["caption"]
    assert ids[0].tolist() == there["input_ids"][0][there["attention_mask"][0] > 0].tolist()
    if "positive_map" in there:
        assert np.array_equal(positive.numpy(), there["positive_map"][0][:, : ids.shape[1]])
    expected = parity_run.get("positive_map", {})
    for number, tokens in expected.items():
        assert positive[int(number) - 1].nonzero().flatten().tolist() == tokens


def test_glip_parity_of_the_network(
    parity_folder: Path,
    parity_run: Facts,
    answer: tuple[RawDetections, list[tuple[int, int]]],
) -> None:
    raw, there = answer[0], official(parity_folder, parity_run)
    for level, name in enumerate(LEVELS):
        logits = raw.logits[level].numpy()
        wanted = there[f"dot_logits_{name}"][..., : logits.shape[-1]]
        np.testing.assert_allclose(logits, wanted, atol=LOGITS, rtol=0, err_msg=name)
        for ours, key in ((raw.deltas, "box_reg"), (raw.centerness, "centerness")):
            wanted = there[f"{key}_{name}"]
            np.testing.assert_allclose(ours[level].numpy(), wanted, atol=LOGITS, rtol=0)


def test_glip_parity_of_the_anchors(parity_folder: Path, parity_run: Facts) -> None:
    there = official(parity_folder, parity_run)
    for name, stride, size in zip(LEVELS, STRIDES, ANCHOR_SIZES, strict=True):
        if f"anchors_{name}" in there:
            ours = anchors(*there[f"box_reg_{name}"].shape[-2:], stride, size)
            assert ours[[0, -1]].tolist() == there[f"anchors_{name}"][0].tolist()


def test_glip_parity_of_the_detections(
    parity_folder: Path,
    parity_facts: Facts,
    parity_run: Facts,
    parity_tokenizer: BertTokenizer,
    answer: tuple[RawDetections, list[tuple[int, int]]],
) -> None:
    (raw, sizes), there = answer, official(parity_folder, parity_run)
    _, positive = encode(parity_tokenizer, *caption(parity_run), 256)
    endings = [f"_b{i}" for i in range(len(sizes))] if len(sizes) > 1 else [""]
    if f"final_mean_scores{endings[0]}" not in there:
        pytest.skip("the fixture has no such answer for this run")
    for i, image in enumerate(pictures(parity_folder, parity_run)):
        found = detect(raw, i, positive, sizes[i])
        ratio = np.array([image.width / sizes[i][0], image.height / sizes[i][1]] * 2)
        names = [f"final_mean_{key}{endings[i]}" for key in ("boxes", "scores", "labels")]
        wanted = [there[name] for name in names]
        ours = (found.boxes.numpy() * ratio, found.scores.numpy(), found.labels.numpy() + 1)
        check_same_detections(ours, wanted)
        assert (np.diff(found.scores.numpy()) <= 0).all()


def check_same_detections(ours: tuple[np.ndarray, ...], wanted: list[np.ndarray]) -> None:
    """Compare boxes, scores and labels one to one, by label and nearest box."""
    assert len(ours[0]) == len(wanted[0])
    left = set(range(len(ours[0])))
    for box, score, label in zip(*wanted, strict=True):
        same = [k for k in left if ours[2][k] == label]
        assert same, f"no detection is left for phrase {label}"
        nearest = min(same, key=lambda k, box=box: float(np.abs(ours[0][k] - box).max()))
        left.discard(nearest)
        np.testing.assert_allclose(ours[0][nearest], box, atol=PIXELS, rtol=0)
        assert ours[1][nearest] == pytest.approx(score, abs=SCORES)
