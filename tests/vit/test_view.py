"""From settings to maps, and the panels, on models of every kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from vit import drawings, panels
from vit.attribution import gradient_rollout, raw_attention, transformer_attribution
from vit.confusion import draw_confusion
from vit.crop import Crop
from vit.curves import ORDERS
from vit.facts import read_facts
from vit.heatmap import inset
from vit.panels import place_of
from vit.predictor import Predictor
from vit.rollout import attention_rollout
from vit.view import (
    BEST,
    CHEFER,
    CLASS_METHODS,
    GRADIENT,
    LAYER,
    METHODS,
    ROLLOUT,
    SECOND,
    SIDE,
    WHOLE,
    Look,
    Settings,
    class_name,
    explain,
    explain_whole,
    heat_map,
    relevance,
    title,
)

from .conftest import look_at

KINDS: list[dict[str, Any]] = [{}, {"pool": "mean"}, {"pool": "seq"}, {"distilled": True}]


def test_settings_reach_the_methods(look: Look) -> None:
    attentions = look.prediction.attentions
    gradients = look.predictor.gradients(look.prediction, 1)
    rows = [
        (Settings(), attention_rollout(attentions)),
        (Settings(ROLLOUT, BEST, "max", 0.5), attention_rollout(attentions, "max", 0.5)),
        (Settings(first=2, last=2), attention_rollout(attentions[1:])),
        (Settings(first=2, last=1), attention_rollout(attentions)),  # sliders may cross
        (Settings(LAYER, layer=2, head=1), raw_attention(attentions, 2, 1)),
        (Settings(LAYER, layer=9, head=9), raw_attention(attentions, 2, 2)),  # of another model
        (Settings(LAYER, layer=1), raw_attention(attentions, 1)),
        (Settings(GRADIENT, "green"), gradient_rollout(attentions, gradients)),
        (Settings(CHEFER, "green"), transformer_attribution(attentions, gradients)),
        (Settings(CHEFER, "green", last=1), transformer_attribution(attentions[:1], gradients[:1])),
    ]
    for settings, expected in rows:
        assert torch.equal(relevance(look, settings), expected), settings


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (Settings(), "Where it looked"),
        (Settings(LAYER, layer=2), "Layer 2"),
        (Settings(LAYER, layer=2, head=1), "Layer 2, head 1"),
        (Settings(LAYER, layer=9, head=9), "Layer 2, head 2"),  # of another model
    ],
)
def test_the_title_names_what_is_shown(look: Look, settings: Settings, text: str) -> None:
    assert title(look, settings) == text


@pytest.mark.parametrize(
    ("methods", "titles"),
    [
        ((GRADIENT, CHEFER), ["Gradients for red", "Attribution for red"]),
        ((GRADIENT, GRADIENT), ["For red"] * 2),  # of two classes, say
        ((ROLLOUT, CHEFER), ["Where it looked", "For red"]),
    ],
)
def test_titles_of_two_maps_tell_their_methods_apart(
    look: Look, methods: tuple[str, str], titles: list[str]
) -> None:
    shown = [Settings(method, "red") for method in methods]
    assert [title(look, each, shown) for each in shown] == titles


@pytest.mark.parametrize("method", CLASS_METHODS)
def test_the_answer_and_the_second_guess(look: Look, method: str) -> None:
    ranked = sorted(look.prediction.probabilities.items(), key=lambda item: -item[1])
    names = {BEST: ranked[0][0], SECOND: ranked[1][0], "a class of another model": ranked[0][0]}
    maps = {}
    for label, name in names.items():
        assert class_name(look.prediction, label) == name
        assert title(look, Settings(method, label)) == f"For {name}"
        maps[label] = relevance(look, Settings(method, label))
        assert torch.equal(maps[label], relevance(look, Settings(method, name)))
    assert not torch.allclose(maps[BEST], maps[SECOND])


def test_settings_need_no_forward_pass(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class costs one pass, the first time; nothing else does."""
    for label in look.prediction.probabilities:
        relevance(look, Settings(CHEFER, label))
    monkeypatch.setattr(look.predictor.checkpoint.model, "embed", None)
    for method in METHODS:
        for label in look.prediction.probabilities:
            assert explain(look, Settings(method, label, "min", 0.3, 2, 2)).size == (SIDE, SIDE)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_everything_is_drawn_for_any_model(
    make_checkpoint: Callable[..., Path], options: dict[str, Any]
) -> None:
    look = look_at(make_checkpoint(**options))
    for method in METHODS:
        assert explain(look, Settings(method)).size == (SIDE, SIDE)
    looks, seen_by, strip = drawings.draw_patch(look, (0.8, 0.99), 2)
    assert looks.size == seen_by.size == (SIDE, SIDE)
    assert looks.getpixel((SIDE - 1, SIDE - 1)) == (0, 255, 255)  # the frame of the last patch
    text, heads = drawings.draw_heads(look)
    bits = np.log2(16 + look.prediction.config.num_prefix_tokens)
    assert f"{bits:.1f} bits (everywhere alike)" in text
    for picture in (strip, heads, *drawings.draw_learned(look)):
        assert np.asarray(picture)[..., 3].any()
    deletion, insertion, sentence = drawings.run_test(look, Settings(CHEFER, SECOND))
    assert len(deletion["data"]) == len(insertion["data"]) == 4 * 11
    assert {order for _, order, _ in deletion["data"]} == set(panels.LINES)
    assert class_name(look.prediction, SECOND) in sentence
    assert sentence.count("|\n|") == 5  # a table: head, rule, four orders


def test_what_goes_wrong_in_a_panel_is_said() -> None:
    def fail(_: Look) -> None:
        raise MemoryError

    drawing = panels.together([panels._drawing(fail, [None], [])])
    with pytest.raises(gr.Error, match="more memory"):
        drawing.draw(None)


def test_without_a_picture_the_panels_stay_empty() -> None:
    assert drawings.draw_patch(None, (0, 0), 1) == (None,) * 3
    assert drawings.draw_heads(None) == ("", None)
    assert drawings.draw_learned(None) == (None, None)
    with pytest.raises(ValueError, match="There is no answer here"):
        drawings.run_test(None, Settings())


def test_the_model_panel(tiny_checkpoint: Path) -> None:
    facts = read_facts(tiny_checkpoint)
    assert facts
    text, picture = drawings.draw_model(facts)
    assert "87.50% of 1,234 test pictures" in text
    assert (drawings.NO_CONFUSION in text, picture) == (True, None)
    facts["metrics"]["confusion"] = [[9, 0, 0], [1, 8, 0], [0, 0, 5]]
    text, picture = drawings.draw_model(facts)
    assert drawings.CONFUSION_HELP in text and drawings.CELLS_HELP in text
    assert "Most frequent mistakes (true → answer): green → red (1)." in text
    assert picture
    expected = draw_confusion(facts["metrics"]["confusion"], ["red", "green", "blue"])
    assert picture.tobytes() == expected.tobytes()


def test_a_layer_beyond_the_last_means_the_last(look: Look) -> None:
    got, expected = (drawings.draw_patch(look, (0.5, 0.5), layer) for layer in (9, 2))
    assert [image.tobytes() for image in got] == [image.tobytes() for image in expected]


@pytest.mark.parametrize(
    ("patch_size", "frame"),
    [
        (2, [(224, 112), (335, 223)]),  # the third of four patches, in the second row
        (4, [(224, 0), (447, 223)]),  # the second of two: the place counts, not the number
    ],
)
def test_a_place_is_a_patch_of_any_grid(
    make_checkpoint: Callable[..., Path], patch_size: int, frame: list[tuple[int, int]]
) -> None:
    look = look_at(make_checkpoint(patch_size=patch_size))
    for picture in drawings.draw_patch(look, (0.6, 0.4), 1)[:2]:
        rows, columns = np.nonzero((np.asarray(picture) == (0, 255, 255)).all(-1))
        assert [(columns.min(), rows.min()), (columns.max(), rows.max())] == frame


def test_parts_drawn_together_keep_their_own_values() -> None:
    first = panels.Drawing(lambda a, b: (a + b,), ["a", "b"], ["x"])
    second = panels.Drawing(lambda: (7, 8), [], ["y", "z"])
    both = panels.together([first, second, first])
    assert (both.inputs, both.outputs) == (["a", "b"] * 2, ["x", "y", "z", "x"])
    assert both.draw(1, 2, 3, 4) == (3, 7, 8, 7)


def test_a_patch_may_be_named_by_its_numbers(look: Look) -> None:
    assert place_of(look, 4, 1) == (0.875, 0.125)
    for column, row in ((0, 1), (1, 5), (None, 1), (5, 1), (1, 0)):
        with pytest.raises(gr.Error, match="both must be from 1 to 4"):
            place_of(look, column, row)
    with pytest.raises(gr.Error, match="There is no answer here"):
        place_of(None, 1, 1)


@pytest.mark.parametrize("options", [{"pool": "mean"}, {"distilled": True}], ids=str)
def test_the_discard_ratio_is_of_patches_only(
    make_checkpoint: Callable[..., Path], options: dict[str, Any]
) -> None:
    seen = look_at(make_checkpoint(**options))
    prefix = seen.prediction.config.num_prefix_tokens
    expected = attention_rollout(seen.prediction.attentions, "mean", 0.5, prefix)
    assert torch.equal(relevance(seen, Settings(discard_ratio=0.5)), expected)


def test_the_map_lies_over_the_sharp_picture(tiny_checkpoint: Path) -> None:
    picture = Image.effect_noise((448, 448), 90).convert("RGB")
    predictor = Predictor(tiny_checkpoint)
    shown = explain(Look(predictor, predictor.predict(picture), picture), Settings())
    assert np.abs(np.diff(np.asarray(shown).astype(int), axis=1)).mean() > 10


@pytest.mark.parametrize(
    ("size", "crop", "choice"),
    [
        ((8, 8), Crop(), False),  # as large as what the model sees
        ((6, 6), Crop(), False),  # smaller
        ((6, 6), Crop(size=0.5), True),  # a part chosen with another checkpoint stays to be seen
        ((9, 9), Crop(), True),
        ((6, 5), Crop(), True),  # no square
    ],
)
def test_whether_there_is_a_choice_of_the_part(
    tiny_checkpoint: Path, size: tuple[int, int], crop: Crop, choice: bool
) -> None:
    picture, predictor = Image.new("RGB", size), Predictor(tiny_checkpoint)
    assert Look(predictor, predictor.predict(picture, crop), picture).is_part == choice


def test_one_class_has_no_second(make_checkpoint: Callable[..., Path]) -> None:
    assert class_name(look_at(make_checkpoint(("cat",))).prediction, SECOND) == "cat"


def test_the_whole_picture_has_the_same_map(look: Look) -> None:
    heat = heat_map(look, Settings()).numpy()
    expected = inset(look.picture, look.prediction.box, heat, WHOLE)
    assert explain_whole(look, Settings()) == expected


def test_lines_have_colours_of_their_own() -> None:
    assert tuple(panels.LINES) == ORDERS and len(set(panels.LINES.values())) == len(ORDERS)
