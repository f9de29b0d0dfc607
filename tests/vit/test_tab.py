import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from vit import layout, rollout, tab, view
from vit.drawings import draw_patch
from vit.events import ALL, KEPT, Events, aim, draw
from vit.panels import numbers_of
from vit.predictor import Predictor
from vit.samples import load_samples, mistakes
from web.repairs import Clamped

Handler = Callable[..., Any]
MIDDLE = (0.5, 0.5, 1.0)  # across, down, size
# Nothing to compare with; then method, class, fusion, ratio, layers, layer and head.
COMPARED = (view.NOTHING, view.BEST, view.ROLLOUT, view.BEST, "mean", 0.0, 1, 2, 2, 0)


def build(*checkpoints: Path) -> gr.Blocks:
    async def inside() -> gr.Blocks:
        with gr.Blocks() as blocks:
            tab.build_tab(lambda: {path.stem: path for path in checkpoints})
        return blocks

    # Outside of an event loop Gradio makes its own ones and never closes them.
    return asyncio.run(inside())


def handler(page: gr.Blocks, name: str) -> Handler:
    return next(fn.fn for fn in page.fns.values() if fn.name == name)


def look(page: gr.Blocks, picture: Path) -> tuple[Any, ...]:
    return handler(page, "look")(str(picture), "tiny", *MIDDLE, *COMPARED)


@pytest.fixture
def page(tiny_checkpoint: Path) -> gr.Blocks:
    return build(tiny_checkpoint)


@pytest.fixture
def classify(page: gr.Blocks) -> Handler:
    return handler(page, "classify")


def test_fusions_are_those_of_rollout() -> None:
    assert tuple(rollout.HEAD_FUSIONS) == layout.HEAD_FUSIONS


def test_classify_is_the_only_public_event(page: gr.Blocks) -> None:
    public = [fn.api_name for fn in page.fns.values() if fn.api_visibility == "public"]
    assert public == ["classify"]


def test_a_sample(tmp_path: Path, classify: Handler) -> None:
    picture, label = load_samples()[3]
    picture.save(tmp_path / "any name.png")
    probabilities, overlay, seen, note = classify(
        str(tmp_path / "any name.png"), "max", 0.5, "tiny", *MIDDLE
    )
    assert list(probabilities) == ["red", "green", "blue"]
    assert overlay.size == seen.size == (view.SIDE, view.SIDE)
    assert f"True label: **{label}** — not a class of this model" in note
    assert "**87.5%** right on the 1,234 test pictures of colours" in note


@pytest.mark.parametrize(
    "options",
    [
        {"pool": "mean"},
        {"pool": "seq", "stem": "conv"},
        {"distilled": True},
        {"image_size": 12, "patch_size": 4},
        {"classes": ("a & b", "7")},
        {"classes": ("one",)},
        {"patch_size": 8},  # one patch
        {"patch_size": 8, "pool": "mean"},  # and nothing beside it
    ],
    ids=str,
)
def test_any_checkpoint(
    tmp_path: Path, make_checkpoint: Callable[..., Path], options: dict[str, Any]
) -> None:
    classify = handler(build(make_checkpoint(**options)), "classify")
    load_samples()[0].picture.save(tmp_path / "own.png")
    probabilities, overlay, seen, note = classify(
        str(tmp_path / "own.png"), "mean", 0.5, "tiny", *MIDDLE
    )
    assert tuple(probabilities) == options.get("classes", ("red", "green", "blue"))
    assert overlay.size == seen.size == (view.SIDE, view.SIDE)
    count = len(probabilities)
    assert f"It knows {count} {'class' if count == 1 else 'classes'} (" in note


def test_an_own_picture(tmp_path: Path, classify: Handler) -> None:
    Image.new("RGB", (64, 40), (0, 90, 200)).save(tmp_path / "own.png")
    _, overlay, seen, note = classify(str(tmp_path / "own.png"), "mean", 0.0, "tiny", *MIDDLE)
    assert seen.getpixel((0, 0)) == (0, 90, 200)
    assert overlay.getpixel((0, 0)) != (0, 90, 200)
    assert "True label" not in note
    assert "The model saw the middle 40 × 40 of your picture, scaled to 8 × 8 pixels." in note


def test_a_part_of_an_own_picture(tmp_path: Path, classify: Handler) -> None:
    picture = Image.new("RGB", (64, 40), (0, 90, 200))
    picture.paste((200, 90, 0), (54, 0, 64, 10))
    picture.save(tmp_path / "own.png")
    _, _, seen, note = classify(str(tmp_path / "own.png"), "mean", 0.0, "tiny", 1, 0, 0.25)
    assert (np.asarray(seen) == (200, 90, 0)).all()
    assert "The model saw 10 × 10 of the 64 × 40 pixels of your picture" in note


def test_the_rollout_is_that_which_was_asked_for(tmp_path: Path, classify: Handler) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "own.png")
    asked = [("mean", 0.0), ("max", 0.0), ("mean", 0.9)]
    maps = [classify(str(tmp_path / "own.png"), *how, "tiny", *MIDDLE)[1] for how in asked]
    assert len({picture.tobytes() for picture in maps}) == len(asked)


def test_the_page_looks_at_the_part_that_was_chosen(tmp_path: Path, page: gr.Blocks) -> None:
    Image.new("RGB", (64, 40)).save(tmp_path / "own.png")
    part = handler(page, "look")(str(tmp_path / "own.png"), "tiny", 1, 0, 0.25, *COMPARED)
    assert part[0].prediction.box == (54, 0, 64, 10)
    *crop, session = handler(page, "begin")(str(tmp_path / "own.png"), "tiny", *COMPARED)[:4]
    assert (tuple(crop), session.prediction.box) == (MIDDLE, (12, 0, 52, 40))


def test_two_maps_side_by_side(tmp_path: Path, page: gr.Blocks) -> None:
    """The first is the one that is laid over the whole picture, too."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "own.png")
    session, *_ = look(page, tmp_path / "own.png")
    both = (view.LAYER, view.BEST, view.CHEFER, view.SECOND, *COMPARED[4:])
    heat, other, _, whole = draw(session, *both)
    chefer = view.Settings(view.CHEFER, view.SECOND)
    assert (heat.label, other.label) == (view.title(session, chefer), "Layer 2")
    assert whole == view.explain_whole(session, chefer)


def test_a_sample_that_is_seen_whole_keeps_its_true_label(
    tmp_path: Path, classify: Handler
) -> None:
    """In a square picture there is no other place."""
    load_samples()[0].picture.save(tmp_path / "own.png")
    texts = [
        classify(str(tmp_path / "own.png"), "mean", 0.0, "tiny", x, 0.5, 1)[3] for x in (0.2, 0.5)
    ]
    assert texts[0] == texts[1] and "True label" in texts[0]


def test_a_part_of_a_sample_has_no_true_label(tmp_path: Path, classify: Handler) -> None:
    load_samples()[0].picture.save(tmp_path / "own.png")
    *_, note = classify(str(tmp_path / "own.png"), "mean", 0.0, "tiny", 0, 0, 0.5)
    assert "True label" not in note


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": None}, "Choose a picture first"),
        ({"image": "gone.png"}, "This file could not be read"),
        ({"fusion": "sum"}, "head_fusion is 'sum'"),
        ({"checkpoint": "<b>"}, "checkpoint is '&lt;b&gt;'; choose one of ['tiny']"),  # no HTML
        ({"across": 2}, "across is 2; it must be from 0 to 1"),
    ],
    ids=str,
)
def test_errors_are_sentences(
    tmp_path: Path, classify: Handler, values: dict[str, Any], message: str
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "own.png")
    given = {"image": "own.png", "fusion": "mean", "checkpoint": "tiny", "across": 0.5} | values
    image = given["image"] and str(tmp_path / given["image"])
    with pytest.raises(gr.Error) as caught:
        classify(image, given["fusion"], 0.0, given["checkpoint"], given["across"], 0.5, 1)
    assert caught.value.message.startswith(message)


def test_a_page_without_checkpoint_opens_and_says_so(tmp_path: Path) -> None:
    page = build()
    Image.new("RGB", (8, 8)).save(tmp_path / "own.png")
    with pytest.raises(gr.Error, match=r"no checkpoint yet: train_vit\.py makes one"):
        handler(page, "classify")(str(tmp_path / "own.png"), "mean", 0.0, None, *MIDDLE)


def test_a_checkpoint_that_is_gone(tiny_checkpoint: Path, page: gr.Blocks) -> None:
    tiny_checkpoint.unlink()
    for name in ("choose", "show"):
        with pytest.raises(gr.Error, match=r"^'tiny is not a checkpoint of train_vit\.py any more"):
            handler(page, name)("tiny")


def test_a_damaged_checkpoint(
    tmp_path: Path, tiny_checkpoint: Path, page: gr.Blocks, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it lies is nothing for strangers."""
    Image.new("RGB", (9, 9)).save(tmp_path / "own.png")
    tiny_checkpoint.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"^The checkpoint tiny cannot be read; the console says"):
        look(page, tmp_path / "own.png")
    assert str(tiny_checkpoint) in capsys.readouterr().out


def test_a_page_that_was_opened_without_checkpoints(page: gr.Blocks, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "own.png")
    with pytest.raises(gr.Error, match="reload the page"):
        handler(page, "classify")(str(tmp_path / "own.png"), "mean", 0.0, None, *MIDDLE)


def test_no_picture_empties_the_page(page: gr.Blocks) -> None:
    *crop, session, label, note, part, heat, other, seen, whole = handler(page, "begin")(
        None, "tiny", *COMPARED
    )
    assert tuple(crop) == MIDDLE
    assert (session, label, part.visible) == (None, None, False)
    assert note.startswith("Choose a picture first: ")
    assert (heat, other.value, other.visible, seen, whole) == (None, None, False, None, None)
    for name, given in {"pack": COMPARED, "place_of": (1, 1), "pick": (None,)}.items():
        with pytest.raises(gr.Error, match="There is no answer here, or no longer"):
            handler(page, name)(None, *given)


def test_settings_of_a_forgotten_answer_bring_it_back(tmp_path: Path, page: gr.Blocks) -> None:
    """After a restart, or many other visitors."""
    Image.new("RGB", (20, 9)).save(tmp_path / "own.png")
    asked = str(tmp_path / "own.png"), "tiny", *MIDDLE, *COMPARED
    kept, label, note, *drawn = handler(page, "redraw")(None, *asked)
    assert kept and label and note
    again = handler(page, "redraw")(kept, *asked)
    assert {*map(str, again[:4])} == {str(gr.skip())}
    assert again[6].tobytes() == drawn[3].tobytes(), "what was seen"


def test_a_bad_picture_takes_the_answer_before_it_away(tmp_path: Path, page: gr.Blocks) -> None:
    """It would pass for one about the new picture."""
    (tmp_path / "own.png").write_text("no picture")
    with pytest.warns(UserWarning, match="This file cannot be opened as a picture"):
        *crop, session, label, note, _, heat, _, seen, _ = handler(page, "begin")(
            str(tmp_path / "own.png"), "tiny", *COMPARED
        )
    assert (tuple(crop), session, label, heat, seen) == (MIDDLE, None, None, None, None)
    assert note.startswith("This file cannot be opened as a picture")
    # Nothing new comes with the others.
    with pytest.warns(UserWarning, match="cannot be opened"):
        assert {*map(str, look(page, tmp_path / "own.png"))} == {str(gr.skip())}


def test_the_patch_that_is_clicked_is_named(tmp_path: Path, page: gr.Blocks) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "own.png")
    session, *_ = look(page, tmp_path / "own.png")
    click = gr.SelectData(None, {"index": [view.SIDE, 3], "value": None})  # at the very edge
    place, panel = handler(page, "pick")(session, click)
    picture, *_ = draw_patch(session, place, 1)
    assert (numbers_of(session, place), panel.open) == ((4, 1), True)
    assert picture.getpixel((view.SIDE - 1, 0)) == (0, 255, 255), "its frame"
    assert numbers_of(None, place) == (gr.skip(),) * 2


@pytest.mark.parametrize(
    ("size", "visible"),
    [((8, 8), False), ((9, 9), True), ((8, 16), True), ((4, 4), False), ((2, 6), True)],
)
def test_there_is_a_part_to_choose_if_the_picture_is_larger(
    tmp_path: Path, page: gr.Blocks, size: tuple[int, int], visible: bool
) -> None:
    Image.new("RGB", size).save(tmp_path / "own.png")
    session, _, _, part, *_, whole = look(page, tmp_path / "own.png")
    assert part.visible is visible is (whole is not None)
    assert session.prediction.box == (0, (size[1] - size[0]) // 2, size[0], sum(size) // 2)


def test_a_click_moves_the_part(tmp_path: Path, page: gr.Blocks) -> None:
    Image.new("RGB", (100, 40)).save(tmp_path / "own.png")
    session, *_ = look(page, tmp_path / "own.png")
    # The whole picture is shown 640 pixels wide: this is the pixel (30, 10).
    click = gr.SelectData(None, {"index": [192, 64], "value": None})
    assert aim(session, 0.5, 0.5, 1, click) == (pytest.approx(1 / 6, abs=1e-4), 0.5)
    assert aim(session, 0.5, 0.5, 0.5, click) == (pytest.approx(0.25), 0)
    assert aim(None, 0.5, 0.5, 1, click) == (0.5, 0.5)
    Image.new("RGB", (40, 100)).save(tmp_path / "tall.png")
    session, *_ = look(page, tmp_path / "tall.png")
    click = gr.SelectData(None, {"index": [64, 192], "value": None})  # the pixel (10, 30)
    assert aim(session, 0.5, 0.5, 1, click) == (0.5, pytest.approx(1 / 6, abs=1e-4))


def test_the_settings_adapt_to_the_checkpoint(
    tiny_checkpoint: Path, make_checkpoint: Callable[..., Path]
) -> None:
    tiny_checkpoint.rename(tiny_checkpoint.with_stem("first"))
    other = make_checkpoint(("cat", "dog"), depth=3, num_heads=4)
    page = build(tiny_checkpoint.with_stem("first"), other)
    label, other_label, first, last, layer, head, patch = handler(page, "choose")("tiny")
    classes = [(name, name) for name in (view.BEST, view.SECOND, "cat", "dog")]
    assert label.choices == other_label.choices == classes
    assert (label.value, other_label.value) == (view.BEST, view.SECOND)
    found = [(slider.maximum, slider.value) for slider in (first, last, layer, head, patch)]
    assert found == [(3, 1), (3, 3), (3, 3), (4, 0), (3, 3)]


def test_a_checkpoint_of_one_layer(
    tiny_checkpoint: Path, make_checkpoint: Callable[..., Path]
) -> None:
    tiny_checkpoint.rename(tiny_checkpoint.with_stem("first"))
    single = make_checkpoint(("cat", "dog"), depth=1)
    build(single)
    page = build(tiny_checkpoint.with_stem("first"), single)
    parts = handler(page, "choose")("tiny")
    sliders = [part for part in parts if isinstance(part, gr.Slider) and part.minimum == 1]
    assert sliders and all((part.value, part.visible) == (1, False) for part in sliders)


def test_only_a_few_checkpoints_stay_in_memory(
    tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    many = {str(number): tmp_path / f"{number}.safetensors" for number in range(KEPT + 1)}
    for path in many.values():
        make_checkpoint().rename(path)
    events = Events(lambda: many, [])
    loaded = [events.load(name) for name in many]
    assert len({id(predictor) for predictor in loaded}) == KEPT + 1
    assert events.load(str(KEPT)) is loaded[-1]
    assert events.load("0") is not loaded[0]


def test_a_page_that_opens_offers_what_was_trained_meanwhile(
    tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    events = Events(
        lambda: {path.stem: path for path in sorted(tmp_path.glob("*.safetensors"))}, []
    )
    assert (events.refresh().choices, events.refresh().value) == ([], None)
    make_checkpoint()
    menu = events.refresh()
    assert (menu.choices, menu.value) == ([("tiny", "tiny")], "tiny")
    assert events.load("tiny").checkpoint.classes == ("red", "green", "blue")
    make_checkpoint().rename(tmp_path / "new.safetensors")
    assert events.path("new") == tmp_path / "new.safetensors", "also for a program, without a page"
    make_checkpoint()
    os.utime(make_checkpoint(("cat", "dog")), ns=(1, 1))  # the run went on
    assert events.load("tiny").checkpoint.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("cat", "oak"), "(3 of 30), shown with its true label"),
        (("elm", "oak"), "is of a class that this model knows; bring one of your own"),
    ],
)
def test_the_samples_of_a_class(
    make_checkpoint: Callable[..., Path], classes: tuple[str, ...], said: str
) -> None:
    page = build(make_checkpoint(classes))
    gallery, chosen, heading = handler(page, "browse")("tiny", "cat", False)
    assert [load_samples()[i].label for i in chosen] == ["cat"] * 3
    assert [row["caption"] for row in gallery.value] == ["cat"] * 3
    assert said in heading
    pick = handler(page, "pick_sample")
    assert pick(chosen, 1) == load_samples()[chosen[1]].picture
    assert pick(chosen, -1) == pick(chosen, 3) == gr.skip(), "none is marked, or one of others"


def test_the_mistakes_of_the_model(make_checkpoint: Callable[..., Path]) -> None:
    path = make_checkpoint(("frog", "cat", "oak"))
    page = build(path)
    samples = load_samples()
    answers = Predictor(path).answers([sample.picture for sample in samples])
    wrong = list(mistakes(samples, answers, ("frog", "cat", "oak")))
    assert wrong
    gallery, chosen, heading = handler(page, "browse")("tiny", ALL, True)
    assert chosen == wrong
    captions = [f"{samples[i].label} → {answers[i]}" for i in wrong]
    assert [row["caption"] for row in gallery.value] == captions
    assert gallery.visible
    assert f"({len(wrong)} of 6)" in heading, "the model knows frogs and cats"
    gallery, chosen, heading = handler(page, "browse")("tiny", "ship", True)
    assert (gallery.value, gallery.visible, chosen) == ([], False, [])
    assert heading == (
        "**None of these pictures** is of a class that this model knows; bring one of your own."
    )


def test_the_download_holds_both_maps(tmp_path: Path, page: gr.Blocks) -> None:
    load_samples()[0].picture.save(tmp_path / "own.png")
    session, *_ = look(page, tmp_path / "own.png")
    both = (view.CHEFER, view.SECOND, *COMPARED[2:])
    for values, count in ((COMPARED, 1), (both, 2)):
        with np.load(handler(page, "pack")(session, *values)) as arrays:
            assert arrays["maps"].shape == (count, 4, 4)
            expected = view.heat_map(session, view.Settings())
            assert np.array_equal(arrays["maps"][0], expected), "the other one comes second"


def test_what_another_checkpoint_sets_draws_nothing_in_between(page: gr.Blocks) -> None:
    """The page would send settings of two checkpoints, and Gradio would refuse them."""
    drawing = [fn for fn in page.fns.values() if fn.name in ("draw", "draw_patch")]
    assert {event for fn in drawing for _, event in fn.targets} == {"input", "success"}


@pytest.mark.parametrize("name", ["discard_ratio", "across", "down", "size"])
def test_a_program_hears_of_a_share_beyond_its_ends(
    tmp_path: Path, classify: Handler, name: str
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "own.png")
    clamped = Clamped(1)
    clamped.given = 5
    names = "discard_ratio", "across", "down", "size"
    given = dict(zip(names, (0.0, *MIDDLE), strict=True)) | {name: clamped}
    with pytest.raises(gr.Error, match=f"{name} is 5; the nearest allowed is 1"):
        classify(str(tmp_path / "own.png"), "mean", checkpoint="tiny", **given)


def test_few_pictures_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("vit.events.open_image", opened.append)
    events = Events(dict, [])
    for name in "abca":
        events.open_image(name)
    assert opened == [*"abca"]


def test_a_test_of_other_settings_is_not_shown(tmp_path: Path, page: gr.Blocks) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "own.png")
    session, *_ = look(page, tmp_path / "own.png")
    chosen = COMPARED[2:]
    tested = handler(page, "test")(None, session, *chosen)
    assert handler(page, "test")(tested, session, *chosen) is tested  # as for a double click
    other = handler(page, "test")(tested, session, view.LAYER, *chosen[1:])
    assert other is not tested
    show = handler(page, "show_test")
    assert show(tested, session, *chosen)[2].startswith("**The map")
    assert show(tested, session, view.LAYER, *chosen[1:]) == (gr.skip(),) * 3


def test_without_a_confusion_matrix_there_is_no_frame(page: gr.Blocks) -> None:
    assert not handler(page, "show")("tiny")[1].visible


def test_an_answer_goes_with_its_picture_and_not_before(page: gr.Blocks) -> None:
    forget = handler(page, "forget_if_gone")
    assert {*map(str, forget("own.png"))} == {str(gr.skip())}
    session, label, note, part, *_ = forget(None)
    assert (session, label, part.visible) == (None, None, False)
    assert note.startswith("Choose a picture first: ")
