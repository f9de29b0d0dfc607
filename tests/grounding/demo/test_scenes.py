import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grounding.core import mask_boxes
from grounding.demo.backgrounds import HELD_OUT, TRAINING
from grounding.demo.samples import SAMPLES, make_sample, meant
from grounding.demo.scenes import (
    MAX_PHRASES,
    Scene,
    absent_query,
    captions,
    compose,
    lookalike_query,
    main,
    make_scene,
    present_query,
    queries,
    twin_queries,
)
from grounding.demo.sprites import load_sprites


def scene(seed: int, size: int = 96) -> Scene:
    return make_scene(np.random.default_rng(seed), size)


def test_the_seed_decides_everything() -> None:
    assert np.array_equal(scene(3).image, scene(3).image)
    assert not np.array_equal(scene(3).image, scene(4).image)


@pytest.mark.parametrize("size", [64, 160])
def test_masks_boxes_and_names_belong_together(size: int) -> None:
    for seed in range(20):
        made = scene(seed, size)
        count = len(made.names)
        assert made.image.shape == (size, size, 3) and made.image.dtype == np.uint8
        assert made.masks.shape == (count, size, size) and made.masks.dtype == bool
        assert made.boxes.dtype == np.float32 and len(made.colours) == count > 0
        assert made.masks.sum(axis=0).max() == 1, "visible parts do not overlap"
        assert np.array_equal(made.boxes, mask_boxes(made.masks))


@pytest.mark.parametrize("background", [*TRAINING, *HELD_OUT], ids=lambda kind: kind.__name__)
def test_backgrounds(background: object) -> None:
    canvas = background(np.random.default_rng(0), 48)
    assert canvas.shape == (48, 48, 3)
    assert np.isfinite(canvas).all()


def test_held_out_backgrounds_are_not_trained_on() -> None:
    assert not set(TRAINING) & set(HELD_OUT)


def test_queries_mean_what_they_say() -> None:
    rng = np.random.default_rng(0)
    for seed in range(40):
        made = scene(seed)
        asked = present_query(made, rng)
        assert asked.members.any()
        for i in np.flatnonzero(asked.members):
            assert made.names[i] == asked.name
            assert asked.colour in ("", made.colours[i])
        assert not absent_query(made, rng).members.any()


def test_lookalikes_are_absent_and_mostly_come_in_a_colour_of_the_scene() -> None:
    looks = []
    for seed in range(60):
        made = scene(seed)
        query = lookalike_query(made, np.random.default_rng(seed))
        assert not query.members.any()
        has = {sprite.colour for sprite in load_sprites()[query.name]}
        looks.append(query.name not in made.names and bool(has & set(made.colours) - {""}))
    assert np.mean(looks) > 0.55


def test_lookalikes_of_what_has_no_colour_are_any_absent_thing() -> None:
    zebra = load_sprites()["zebra"][0]
    made = compose([zebra], np.random.default_rng(0), 96)
    queries_ = [lookalike_query(made, np.random.default_rng(seed)) for seed in range(20)]
    assert not any(query.members.any() for query in queries_)
    assert len({query.name for query in queries_}) > 5


def test_lookalikes_where_all_things_of_a_colour_are_in_the_scene() -> None:
    rare = [s for sprites in load_sprites().values() for s in sprites if s.colour == "gray"]
    made = compose(rare, np.random.default_rng(0), 192)
    assert {sprite.name for sprite in rare} == set(made.names)
    for seed in range(20):
        assert not lookalike_query(made, np.random.default_rng(seed)).members.any()


@pytest.mark.parametrize(
    ("things", "expected"),
    [
        (["red car", "blue car"], [("car", "blue"), ("car", "red")]),
        (["red car", "red car", "blue car"], [("car", "blue"), ("car", "red")]),
        (["red car", "red car"], []),  # nothing to tell apart
        (["red car", "blue balloon"], []),  # more than the colour differs
        ([" zebra", " zebra"], []),  # without a colour
    ],
)
def test_twins_differ_in_colour_only(things: list[str], expected: list[tuple[str, str]]) -> None:
    colours, names = zip(*(thing.split(" ") for thing in things), strict=True)
    masks = np.eye(len(things), dtype=bool)[:, None]
    made = Scene(np.zeros((1, 1, 3), np.uint8), masks, mask_boxes(masks), names, colours)
    asked = twin_queries(made, np.random.default_rng(0))
    assert [(query.name, query.colour) for query in asked] == expected
    for query in asked:
        assert np.array_equal(query.members, made.find(query.name, query.colour))


def test_queries_do_not_repeat() -> None:
    asked = queries(scene(5), 8, 3, np.random.default_rng(0))
    assert len({(query.name, query.colour) for query in asked}) == len(asked) <= 8


def test_captions_are_mostly_short() -> None:
    rng = np.random.default_rng(0)
    scenes = [make_scene(rng, 96) for _ in range(100)]
    counts = np.array([len(asked) for asked in captions(scenes, rng)])
    assert counts.min() == 1
    assert 5 < counts.max() <= MAX_PHRASES
    assert 0.4 < (counts < 3).mean() < 0.8


def test_command_writes_pictures_masks_and_phrases(tmp_path: Path) -> None:
    main(["--seed", "7", "--count", "2", "--out", str(tmp_path / "new/scenes")])
    folder = tmp_path / "new/scenes"
    assert len(list(folder.glob("*.json"))) == 2
    scene = make_scene(np.random.default_rng((7, 1)), 384)
    record = json.loads((folder / "scene-001.json").read_text())
    assert (*record["names"],) == scene.names and record["boxes"] == scene.boxes.tolist()
    masks = sorted(folder.glob("scene-001-mask-*.png"))
    found = np.stack([np.array(Image.open(path)) for path in masks])
    assert (found == scene.masks).all()
    assert (np.array(Image.open(folder / "scene-001.png")) == scene.image).all()
    assert {bool(members) for members in record["phrases"].values()} == {False, True}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.file)
def test_samples_show_everything_they_name(sample: object) -> None:
    made = make_sample(sample)
    assert len(made.names) == len(sample.things)
    empty = [phrase for phrase, boxes in meant(sample, made).items() if not boxes]
    assert empty == (["a dog"] if sample.file == "winter" else [])
