from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from grounding.grounders.grounding_dino.grounder import LONGEST, GroundingDino

VOCABULARY = {"[CLS]": 1, "[SEP]": 2, ".": 3, "a": 4, "red": 5, "dog": 6, "cat": 7}


class FakeTokenizer:
    cls_token_id, sep_token_id = 1, 2

    def convert_tokens_to_ids(self, token: str) -> int:
        return VOCABULARY[token]

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [VOCABULARY[word] for word in text.split() if word in VOCABULARY]}


class FakeImageProcessor:
    def __init__(self) -> None:
        self.seen: list[Image.Image] = []

    def __call__(self, images: Image.Image, return_tensors: str) -> Any:
        self.seen.append(images)
        return SimpleNamespace(to=lambda device: {"pixel_values": torch.zeros(1)})


class FakeModel:
    """Answer with fixed boxes; box i lights up at the token `words[i]`, wherever it stands."""

    def __init__(self, found: list[tuple[str, float, list[float]]], max_text_len: int = 16) -> None:
        self.found, self.captions = found, []
        self.config = SimpleNamespace(max_text_len=max_text_len)

    def __call__(self, input_ids: torch.Tensor, **_: Any) -> Any:
        self.captions.append(input_ids[0].tolist())
        logits = torch.full((1, len(self.found), self.config.max_text_len), -20.0)
        for i, (word, score, _) in enumerate(self.found):
            for position, token in enumerate(input_ids[0].tolist()):
                if token == VOCABULARY[word]:
                    logits[0, i, position] = float(np.log(score / (1 - score)))
        boxes = torch.tensor([box for _, _, box in self.found]).reshape(1, -1, 4)
        return SimpleNamespace(logits=logits, pred_boxes=boxes)


def _ground(model: FakeModel, phrases: list[str], threshold: float = 0.3) -> Any:
    processor = SimpleNamespace(tokenizer=FakeTokenizer(), image_processor=FakeImageProcessor())
    grounder = GroundingDino(model, processor, "cpu")
    return grounder.ground(Image.new("RGB", (200, 100)), phrases, threshold)


def test_box_has_exactly_the_phrase_it_was_found_by() -> None:
    # "a" stands in both phrases and lights up in none: only "dog" and "cat" decide.
    model = FakeModel([("cat", 0.6, [0.2, 0.5, 0.2, 0.4]), ("dog", 0.9, [0.7, 0.5, 0.2, 0.4])])
    regions = _ground(model, ["a red dog", "a cat"])
    assert regions.labels == ("a red dog", "a cat")
    assert regions.scores == pytest.approx([0.9, 0.6], abs=1e-3)
    assert regions.boxes[0] == pytest.approx([120, 30, 160, 70], abs=1e-3)
    assert model.captions == [[1, 4, 5, 6, 3, 4, 7, 3, 2]]


@pytest.mark.parametrize(
    ("found", "count"),
    [
        ([], 0),  # no query at all
        ([("dog", 0.2, [0.5, 0.5, 0.5, 0.5])], 0),  # below the threshold
        ([("dog", 0.9, [0.5, 0.5, 0.0, 0.5])], 0),  # no width
        ([("dog", 0.9, [0.5, 0.5, 0.004, 0.5])], 0),  # less than a pixel
        ([(".", 0.9, [0.5, 0.5, 0.5, 0.5])], 0),  # what ends a phrase is none of its words
        ([("dog", 0.9, [0.5, 0.5, 0.5, 0.5])] * 3, 1),  # the same box three times
        ([("dog", 0.9, [x, 0.5, 0.5, 0.5]) for x in (0.4, 0.525)], 1),  # an IoU of .6
        ([("dog", 0.9, [x, 0.5, 0.5, 0.5]) for x in (0.4, 0.6)], 2),  # and of .43
        ([("dog", 0.9, [i / 40, 0.5, 0.02, 0.5]) for i in range(1, 40)], 39),  # many
    ],
)
def test_count(found: list[tuple[str, float, list[float]]], count: int) -> None:
    assert len(_ground(FakeModel(found), ["dog"])) == count


def test_two_names_for_one_box_both_stay() -> None:
    model = FakeModel([(word, 0.9, [0.5, 0.5, 0.5, 0.5]) for word in ("dog", "cat")])
    assert sorted(_ground(model, ["dog", "cat"]).labels) == ["cat", "dog"]


def test_a_score_at_the_threshold_counts() -> None:
    assert len(_ground(FakeModel([("dog", 0.5, [0.5, 0.5, 0.5, 0.5])]), ["dog"], 0.5)) == 1


def test_a_phrase_longer_than_a_caption_is_cut() -> None:
    model = FakeModel([("cat", 0.8, [0.5, 0.5, 0.5, 0.5])], max_text_len=6)
    assert _ground(model, ["a red cat dog dog dog"]).labels == ("a red cat dog dog dog",)
    assert model.captions == [[1, 4, 5, 7, 3, 2]]


def test_boxes_stay_inside_the_picture() -> None:
    regions = _ground(FakeModel([("dog", 0.9, [0.0, 1.0, 0.5, 0.5])]), ["dog"])
    assert regions.boxes.tolist() == [[0, 75, 50, 100]]


def test_many_phrases_take_several_captions_and_none_is_lost() -> None:
    model = FakeModel([("cat", 0.8, [0.5, 0.5, 0.5, 0.5])], max_text_len=6)
    regions = _ground(model, ["a dog", "red dog", "a cat"])
    assert [len(caption) for caption in model.captions] == [5, 5, 5]
    assert regions.labels == ("a cat",)


def test_phrase_without_a_known_word_finds_nothing() -> None:
    assert len(_ground(FakeModel([("dog", 0.9, [0.5, 0.5, 0.5, 0.5])]), ["xylophone"])) == 0


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((200, 100), (200, 100)),  # as it is
        ((320, 10), (320, 10)),  # just short enough
        ((321, 10), (321, 11)),  # too wide
        ((1, 2048), (64, 2048)),  # too tall
    ],
)
def test_a_very_long_picture_is_widened(size: tuple[int, int], seen: tuple[int, int]) -> None:
    """transformers takes as many places of the picture as the model has queries, or fails."""
    model = FakeModel([("dog", 0.9, [0.5, 0.5, 1.0, 1.0])])
    processor = SimpleNamespace(tokenizer=FakeTokenizer(), image_processor=FakeImageProcessor())
    picture = Image.new("RGB", size, "red")
    regions = GroundingDino(model, processor, "cpu").ground(picture, ["dog"], 0.3)
    [given] = processor.image_processor.seen
    assert given.size == seen and max(seen) <= LONGEST * min(seen)
    assert given.crop((0, 0, *size)).tobytes() == picture.tobytes()
    assert regions.boxes.tolist() == [[0, 0, *size]], "the box ends where the picture does"


def test_a_very_long_picture_runs_at_real_size() -> None:
    """The pyramid of the smallest picture still has a place for each of 900 queries."""
    long, short = 1333, 1333 // LONGEST
    places = sum(-(-long // stride) * -(-short // stride) for stride in (8, 16, 32, 64))
    assert places >= 900
