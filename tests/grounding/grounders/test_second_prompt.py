"""The half of a grounder that sees no text runs once a picture, and the answers stay the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grounding.core import Grounder
from grounding.demo.scenes import make_scene
from grounding.grounders import GROUNDERS
from grounding.weights import DEMO_ROOT

# Where each grounder's picture half can be counted.
HALVES: dict[str, Callable[[Any], Any]] = {
    "GroundingDINO tiny": lambda grounder: grounder.model.model.backbone.backbone.conv_encoder,
    "CLIPSeg": lambda grounder: grounder.model.clip.vision_model,
    "GLIP-T": lambda grounder: grounder.model.swin,
}


def _load(name: str) -> Grounder:
    return GROUNDERS[name].load(DEMO_ROOT / GROUNDERS[name].module, "cpu")


def _load_counted(name: str) -> tuple[Grounder, list[int]]:
    """Return a grounder, and a list that gets longer whenever its picture half runs."""
    grounder, looks = _load(name), []
    HALVES[name](grounder).register_forward_hook(lambda *_: looks.append(1))
    return grounder, looks


@pytest.mark.parametrize("name", HALVES)
def test_a_picture_is_looked_at_once(name: str) -> None:
    grounder, looks = _load_counted(name)
    scenes = [make_scene(np.random.default_rng(seed), 256).image for seed in (1, 2)]
    first, other = map(Image.fromarray, scenes)
    prompts = (["a dog", "a car"], ["a tree"], ["a dog", "a car"])
    answers = [grounder.ground(first, prompt, 0.1) for prompt in prompts]
    assert len(looks) == 1
    grounder.ground(other, ["a tree"], 0.1)
    assert len(looks) == 2
    fresh = _load(name).ground(first, ["a dog", "a car"], 0.1)
    for answer in (answers[0], answers[2]):
        assert answer.labels == fresh.labels
        assert np.allclose(answer.boxes, fresh.boxes, atol=1e-3)
        assert np.allclose(answer.scores, fresh.scores, atol=1e-5)


@pytest.mark.parametrize("name", HALVES)
def test_a_picture_with_one_channel_changed_in_its_last_rows_is_another(name: str) -> None:
    grounder, looks = _load_counted(name)
    pixels = make_scene(np.random.default_rng(1), 256).image.copy()
    grounder.ground(Image.fromarray(pixels), ["a dog"], 0.1)
    pixels[-9:, :, 1] ^= 128
    grounder.ground(Image.fromarray(pixels), ["a dog"], 0.1)
    assert len(looks) == 2
