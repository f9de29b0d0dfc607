import asyncio
import io
import json
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio.data_classes import FileData, ListFiles
from PIL import Image
from starlette.requests import Request

from grounding.core import Regions
from grounding.display import (
    MASKS,
    OLD_MASKS,
    choose_grounder,
    configure,
    follow_link,
    move,
    name_masks,
    reveal,
    show,
    show_corrected,
    take_home,
    tick,
    undo,
)
from grounding.edits import Corrections, add, drop, redraw
from grounding.events import read_picture
from grounding.export import PARTS
from grounding.fetch import fetch_image
from grounding.grounders import GROUNDERS
from grounding.inputs import PHOTOS, SAMPLES, load_samples
from grounding.overlay import COLOURS, HEADERS, NEGATIVE_COLOUR, Style, mark
from grounding.prompt import parse_prompt
from grounding.select import Choice, Proposals, pack_masks
from grounding.session import (
    EVERYTHING,
    Session,
    look,
    pack,
    switch,
)
from grounding.settings import Settings
from grounding.store import ModelStore
from grounding.tab import build_tab
from grounding.weights import Origin, Source, Weights
from web.repairs import Clamped

ASKED = {
    "prompt": "dog -collar",
    "grounder": "CLIPSeg",
    "segmenter": "SAM 2.1 tiny",
    "threshold": 0.3,
    "url": "",
}


@pytest.fixture
def session() -> Session:
    """Two dogs and a collar over one of them."""
    boxes = np.array([[0, 0, 10, 10], [12, 0, 16, 4], [4, 0, 6, 10]], np.float32)
    scores = np.array([0.9, 0.6, 0.4], np.float32)
    regions = Regions(boxes, scores, ("dog", "dog", "collar"))
    masks = np.zeros((3, 20, 20), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    query, sure = parse_prompt("dog -collar"), np.ones(3, np.float32)
    found = Proposals(query, regions, pack_masks(masks), sure, (20, 20), 0.05, {}, {})
    source = Source("a/b", Path())
    return Session(Image.new("RGB", (20, 20)), found, Origin(source, source), ASKED)


def _rows(session: Session, threshold: float) -> list[list[Any]]:
    return look(session, Settings(), threshold).rows


def test_look_shows_the_answer_in_every_part(session: Session) -> None:
    view = look(session, Settings(), 0.3)
    rows, stages = view.rows, view.stages
    assert [label for _, label in view.painted[1]] == ["dog", "dog"]
    assert view.numbers == [1, 2]
    result, *_ = show(session, Settings(), 0.3)
    assert result.color_map == dict.fromkeys(("1 dog", "2 dog"), COLOURS[0])
    assert view.colours == {"dog": COLOURS[0], "collar": NEGATIVE_COLOUR}
    assert [row[2] for row in rows] == ["dog", "dog", "−collar"]
    assert [row[-1] for row in rows] == [20.0, 4.0, 5.0], "the collar's area is taken out"
    assert all(len(row) == len(HEADERS) for row in rows)
    assert "Found 2 regions" in view.status and "prompt=dog+-collar" in view.status
    assert stages[0].size == stages[1].size == session.image.size
    assert stages[0].tobytes() != stages[1].tobytes()


ADDRESS = "https://example.org/a.png"


@pytest.mark.parametrize(
    ("path", "url", "now", "label"),
    [
        ("a.png", "", ("a.png", ""), MASKS),  # also uploaded again
        ("a.png", "", ("b.png", ""), OLD_MASKS),
        ("a.png", "", (None, ""), MASKS),  # taken away: none is asked about next
        ("a.png", "", (None, None), MASKS),  # there is no field for addresses
        ("a.png", "", ("a.png", ADDRESS), OLD_MASKS),  # an address comes first
        ("a.png", ADDRESS, ("a.png", f" {ADDRESS} "), MASKS),
        ("a.png", ADDRESS, ("b.png", ADDRESS), MASKS),
        ("a.png", ADDRESS, ("a.png", ""), OLD_MASKS),
        (None, ADDRESS, (None, ADDRESS + "2"), OLD_MASKS),
        (None, ADDRESS, (None, ""), MASKS),  # taken away, too
    ],
)
def test_masks_of_another_picture_are_called_so(
    session: Session, path: str | None, url: str, now: tuple[str | None, str | None], label: str
) -> None:
    session = replace(session, path=path, asked=session.asked | {"url": url})
    assert name_masks(session, session.key, *now).label == label
    assert name_masks(session, "", *now).label == label, "it is just being shown"
    _, result, *_ = reveal(session, "", *now, False, 0.3, "CLIPSeg", *Settings().values().values())
    assert result.label == label
    assert name_masks(None, "forgotten", *now).label == OLD_MASKS
    assert name_masks(None, "", *now) == gr.skip()


def test_a_row_that_was_corrected_is_switched_off(session: Session) -> None:
    """Its box is that of the new area, in the table and where a row is looked for."""
    mask = np.zeros((20, 20), bool)
    mask[:5, :8] = True
    edit = redraw(session.proposals, 0, mask, 1.0, ())
    session.corrections.edits = (edit,)
    rows = _rows(session, 0.3)
    assert rows[0][5] == "0, 0, 8, 5"
    rows[0][0] = False
    switch(session, Settings(), 0.3, rows)
    assert session.corrections.off == {0}


def test_rows_are_switched_off_and_stay_so(session: Session) -> None:
    rows = _rows(session, 0.3)
    rows[1][0] = False

    def off_after(threshold: float, rows: list[list[Any]]) -> frozenset[int]:
        switch(session, Settings(), threshold, rows)
        return session.corrections.off

    assert off_after(0.3, rows) == {1}
    assert [row[0] for row in _rows(session, 0.3)] == [True, False, True]
    # At 0.7 the row is not in the table, and comes back as it was left.
    assert off_after(0.7, _rows(session, 0.7)) == {1}
    rows[1][0] = True
    assert off_after(0.3, rows) == frozenset()
    rows[1][0] = False
    odd = [[], [False], [False, ""], [False, None, "dog"], [False, 9]]  # no row of ours
    assert off_after(0.3, odd) == frozenset()
    assert off_after(0.3, [*odd, rows[1]]) == {1}


def test_rows_are_those_of_the_corrected_answer(session: Session) -> None:
    edited = replace(session, corrections=Corrections((drop(session.proposals, 0),)))
    rows = _rows(edited, 0.3)
    rows[0][0] = False
    switch(edited, Settings(), 0.3, rows)
    assert edited.corrections.off == {1}, "the first row that is left"


def test_a_row_is_the_same_wherever_it_stood(session: Session) -> None:
    """The page may send a table from before a correction that is shown a moment later."""
    rows = _rows(session, 0.3)
    dropped = replace(session, corrections=Corrections((drop(session.proposals, 0),)))
    rows[1][0] = False
    table = tick(dropped, Settings(), 0.3, dropped.key, rows)[1]
    assert dropped.corrections.off == {1}
    assert [row[:3] for row in table] == [[False, 1, "dog"], [True, 2, "−collar"]]
    again = tick(dropped, Settings(), 0.3, dropped.key, _rows(dropped, 0.3))
    assert again[1] == gr.skip(), "the page has that very table"


def test_rows_that_say_the_same_are_switched_one_by_one(session: Session) -> None:
    found = session.proposals
    scores, boxes = found.regions.scores.copy(), found.regions.boxes.copy()
    scores[1], boxes[1] = scores[0], boxes[0] + 0.01
    regions = replace(found.regions, scores=scores, boxes=boxes)
    mask_scores = np.full_like(found.mask_scores, 0.5)
    alike = replace(session, proposals=replace(found, regions=regions, mask_scores=mask_scores))
    rows = _rows(alike, 0.3)
    assert rows[0][2:6] == rows[1][2:6]
    rows[1][0] = False
    switch(alike, Settings(), 0.3, rows)
    assert [row[0] for row in _rows(alike, 0.3)] == [True, False, True]


def test_a_switch_waits_for_a_correction_that_is_being_written(session: Session) -> None:
    rows = _rows(session, 0.3)
    rows[0][0] = False
    thread = threading.Thread(target=switch, args=(session, Settings(), 0.3, rows))
    with session.corrections.lock:
        thread.start()
        thread.join(0.2)
        assert not session.corrections.off
    thread.join(10)
    assert session.corrections.off == {0}


def test_the_others_keep_their_names_when_rows_are_off(session: Session) -> None:
    both = replace(session.proposals, query=parse_prompt("dog, collar"))
    some = replace(session, proposals=both, corrections=Corrections(off=frozenset({0, 1})))
    assert [label for _, label in look(some, Settings(), 0.3).painted[1]] == ["collar"]


def test_a_row_of_an_earlier_answer_switches_nothing(session: Session) -> None:
    rows = _rows(session, 0.3)
    rows[0][0] = False
    assert tick(session, Settings(), 0.3, "of another", rows) == (gr.skip(),) * 6
    assert session.corrections.off == frozenset()


@pytest.mark.parametrize(
    ("box", "anew"),
    [
        (False, False),  # unticked: the table keeps the keyboard's place
        ("", True),  # the Delete key takes the box itself away
    ],
)
def test_a_box_that_is_gone_comes_back(session: Session, box: bool | str, anew: bool) -> None:
    plain = replace(session.proposals, query=parse_prompt("dog, collar"))
    rows = _rows(session := replace(session, proposals=plain), 0.3)
    rows[0][0] = box
    _, table, *_ = tick(session, Settings(), 0.3, session.key, rows)
    assert len(session.corrections.off) == 1
    assert table == (_rows(session, 0.3) if anew else gr.skip())


def test_what_is_shown_can_be_taken_home(session: Session) -> None:
    files = dict(pack(session, Settings(), 0.7, EVERYTHING))
    assert [name for name in files if name.startswith("masks/")] == ["masks/01-dog.png"]
    manifest = json.loads(files["manifest.json"])
    assert manifest["prompt"] == "dog -collar" and len(manifest["rows"]) == 1
    assert manifest["settings"]["threshold"] == 0.7 and manifest["corrections"] == 0
    assert manifest["settings"]["grounder"] == "CLIPSeg"


BOLD = Settings(Choice(0, min_area=5.0), Style(opacity=1.0, outline=6))


def test_settings_count_on_the_page_in_its_link_and_in_the_files(session: Session) -> None:
    plain, bold = look(session, Settings(), 0.3), look(session, BOLD, 0.7)
    assert plain.painted[1][0][0].tobytes() != bold.painted[1][0][0].tobytes()
    assert "min_area=5" in bold.status and "threshold=0.7&" in bold.status
    settings = json.loads(dict(pack(session, BOLD, 0.7, "manifest"))["manifest.json"])["settings"]
    assert (settings["min_area"], settings["opacity"], settings["outline"]) == (5, 1, 6)


def test_the_style_shows_in_the_picture_of_all_masks(session: Session) -> None:
    size = (400, 400)  # large enough for outlines to differ
    found = replace(session.proposals, bits=np.full((3, 20000), 255, np.uint8), size=size)
    large = replace(session, image=Image.new("RGB", size), proposals=found)
    packed = [dict(pack(large, settings, 0.7, "overlay")) for settings in (Settings(), BOLD)]
    assert packed[0]["overlay.png"] != packed[1]["overlay.png"]


def test_files_have_the_numbers_of_the_table(session: Session) -> None:
    """Though the first row is switched off."""
    less = replace(session, corrections=Corrections(off=frozenset({0})))
    files = dict(pack(less, Settings(), 0.3, EVERYTHING))
    assert [row[1] for row in look(less, Settings(), 0.3).rows if row[0]] == [2, 3], "3: the collar"
    assert [name for name in files if "02" in name] == ["masks/02-dog.png", "cutouts/02-dog.png"]
    assert not [name for name in files if "01" in name or "03" in name]
    assert [row["number"] for row in json.loads(files["manifest.json"])["rows"]] == [2]
    assert [one["id"] for one in json.loads(files["coco.json"])["annotations"]] == [2]
    labels = Image.open(io.BytesIO(files["labels.png"]))
    assert set(np.unique(labels)) == {0, 2}


def test_areas_of_a_map_say_where_they_were_cut(session: Session) -> None:
    regions = replace(session.proposals.regions, heatmap=np.zeros((20, 20), np.float32))
    found = replace(session.proposals, regions=regions, floor=0.2)
    for asked, cut in ((replace(session, proposals=found), 0.2), (session, None)):
        manifest = json.loads(dict(pack(asked, Settings(), 0.3, "manifest"))["manifest.json"])
        assert manifest["settings"].get("cut") == cut and manifest["settings"]["threshold"] == 0.3


@pytest.mark.parametrize(
    "event",
    [
        lambda key: tick(None, Settings(), 0.3, key, []),
        lambda key: move(None, Settings(), 0.3, "CLIPSeg", key),
        lambda key: take_home(None, Settings(), 0.3, "manifest", key),
        lambda key: configure(None, 0.3, key, *Settings().values().values()),
        lambda key: undo(None, Settings(), 0.3, key),
    ],
    ids=["tick", "move", "download", "more settings", "undo"],
)
def test_an_answer_that_the_server_has_forgotten(event: Callable[[str], object]) -> None:
    """After a restart, or many other visitors."""
    with pytest.raises(gr.Error, match="no longer keeps this answer; press Run again"):
        event("of the answer that is shown")


def test_only_the_answer_that_is_shown_is_taken_home(session: Session) -> None:
    with pytest.raises(gr.Error, match="A new answer has come meanwhile"):
        take_home(session, Settings(), 0.3, "manifest", "of another")
    file = take_home(session, Settings(), 0.3, "manifest", session.key)
    assert json.loads(Path(file).read_text())["prompt"] == "dog -collar"


@pytest.mark.parametrize("part", PARTS)
def test_each_part_alone_is_what_it_is_in_the_whole(session: Session, part: str) -> None:
    whole, alone = (dict(pack(session, Settings(), 0.3, name)) for name in (EVERYTHING, part))
    assert alone and {name: whole[name] for name in alone} == alone and len(alone) < len(whole)


def test_nothing_to_download_yet() -> None:
    with pytest.raises(gr.Error, match="press Run first"):
        take_home(None, Settings(), 0.3, EVERYTHING, "")


def test_a_correction_shows_everywhere_and_undo_takes_it_back(session: Session) -> None:
    before = look(session, Settings(), 0.3)
    edited = replace(session, corrections=Corrections((drop(session.proposals, 0),)))
    after = look(edited, Settings(), 0.3)
    assert len(after.rows) == len(before.rows) - 1 and len(after.numbers) == 1
    assert "Corrections by hand: 1." in after.status and "Corrections" not in before.status
    assert after.canvas.tobytes() != before.canvas.tobytes()
    manifest = json.loads(dict(pack(edited, Settings(), 0.3, "manifest"))["manifest.json"])
    assert manifest["corrections"] == 1 and len(manifest["rows"]) == 1


def test_what_was_drawn_joins_the_table(session: Session) -> None:
    mask = np.zeros((20, 20), bool)
    mask[12:, 12:] = True
    drawn = add(session.proposals, "dog", np.array([12, 12, 20, 20], np.float32), mask, 0.8)
    view = look(replace(session, corrections=Corrections((drawn,))), Settings(), 0.3)
    assert view.numbers == [1, 2, 3] and "Found 3 regions" in view.status
    assert [row[2] for row in view.rows] == ["dog", "dog", "dog", "−collar"]


def test_a_phrase_of_which_all_was_dropped_is_said(session: Session) -> None:
    found = replace(session.proposals, best={"dog": 0.9, "collar": 0.4})
    edits = tuple(drop(found, number) for number in (0, 1))
    edited = replace(session, proposals=found, corrections=Corrections(edits))
    assert "“dog” was dropped by hand." in look(edited, Settings(), 0.3).status


def test_the_grounders_answer_keeps_what_is_switched_off(session: Session) -> None:
    less = replace(session, corrections=Corrections(off=frozenset({1})))
    before, after = (look(s, Settings(), 0.3) for s in (session, less))
    assert after.stages[0].tobytes() == before.stages[0].tobytes() and len(after.numbers) == 1


@pytest.mark.parametrize("side", [1280, 2560])  # as it is, and shown at half its size
@pytest.mark.parametrize("warm", [False, True])  # boxes alone, and over a map
def test_the_grounders_answer_lies_where_it_is_on_the_picture(
    session: Session, side: int, warm: bool
) -> None:
    box, map_ = np.array([[side // 2, side // 4, side - 1, side // 2]], np.float32), None
    if warm:
        map_ = np.zeros((side, side), np.float32)
        map_[side // 2 :] = 1
    regions = Regions(box, np.ones(1, np.float32), ("dog",), heatmap=map_)
    bits = pack_masks(np.ones((1, side, side), bool))
    query, sure = parse_prompt("dog"), np.ones(1, np.float32)
    found = Proposals(query, regions, bits, sure, (side, side), 0.05, {}, {})
    session = replace(session, image=Image.new("RGB", (side, side)), proposals=found)
    drawn = np.asarray(look(session, Settings(), 0.3).stages[0])
    assert drawn.shape == (1280, 1280, 3)
    colour = [int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]
    ys, xs = np.nonzero((drawn == colour).all(-1))
    assert (xs.min(), xs.max(), ys.max()) == pytest.approx((640, 1279, 640), abs=5)
    assert bool(drawn[1200, 100].max() > drawn[100, 100].max()) == warm


def test_before_sam_are_the_boxes_that_it_got(session: Session) -> None:
    mask = np.zeros((20, 20), bool)
    mask[15:, :3] = True
    edited = replace(
        session, corrections=Corrections((redraw(session.proposals, 0, mask, 0.9, ()),))
    )
    before, after = (look(s, Settings(), 0.3) for s in (session, edited))
    assert after.stages[0].tobytes() == before.stages[0].tobytes() and after.rows != before.rows


def test_the_first_corner_of_a_box_is_marked(session: Session) -> None:
    begun = replace(session, corrections=Corrections(corner=(3, 4)))
    plain, marked = (look(s, Settings(), 0.3) for s in (session, begun))
    assert "First corner of a box: 3, 4." in marked.status and "corner" not in plain.status
    changed = np.asarray(plain.canvas) != np.asarray(marked.canvas)
    assert changed[4, 3].any() and not changed[15:, 15:].any()


@pytest.mark.parametrize(
    ("size", "words"),
    [((1, 1), False), ((17, 17), False), ((200, 90), False), ((300, 90), True), ((400, 1), True)],
)
def test_the_first_corner_is_marked_on_a_small_picture(size: tuple[int, int], words: bool) -> None:
    marked = np.asarray(mark(Image.new("RGB", size, "green"), (0, 0), 1.0)).astype(int)
    assert (marked[0, 0] == 255).all()
    assert (marked[:, 40:] != (0, 128, 0)).any() == words


def test_the_first_corner_is_marked_where_a_large_picture_is_shown(session: Session) -> None:
    size = (2560, 100)  # shown half as wide
    bits = np.zeros((3, size[0] * size[1] // 8), np.uint8)
    found = replace(session.proposals, bits=bits, size=size[::-1])
    large = replace(session, image=Image.new("RGB", size), proposals=found)
    assert {stage.width for stage in look(large, Settings(), 0.3).stages} == {1280}
    begun = replace(large, corrections=Corrections(corner=(2000, 50)))
    plain, marked = (np.asarray(look(s, Settings(), 0.3).canvas) for s in (large, begun))
    changed = (plain != marked).any(axis=2)
    white = (marked == 255).all(axis=2)
    assert changed[25, 990:1010].all() and white[20:31, 1000].all() and white[25, 990:1010].all()


@pytest.mark.parametrize(
    ("path", "url", "message"),
    [
        (None, "", "upload, paste or take one, or give its address[.]"),  # nothing
        (__file__, "", "text file"),  # a file that is no picture
        (None, "ftp://example.org/a.png", "http"),  # an address of another kind
        (None, "http://127.0.0.1/a.png", "address"),  # an address inside the server's network
    ],
)
def test_refused_pictures(path: str | None, url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_picture(path, url, fetch_image)


def test_who_takes_no_addresses_asks_for_none() -> None:
    with pytest.raises(ValueError, match=r"upload, paste or take one[.]$"):
        read_picture(None, "", None)


@pytest.mark.parametrize("urls", [True, False])
def test_a_link_with_an_address_that_is_not_taken(urls: bool) -> None:
    """In a field that nobody sees, it would win over the picture."""

    def follow(query: str) -> list[Any]:
        return follow_link(gr.Request(Request({"type": "http", "query_string": query})), urls)

    _, _, prompt, url, *_ = follow(b"prompt=a+dog&url=https://example.org/a.png")
    assert prompt == "a dog"
    assert url == ("https://example.org/a.png" if urls else gr.skip())
    tab, *_ = follow(b"url=https://example.org/a.png")
    assert (tab == gr.skip()) != urls


@pytest.mark.parametrize(("folder", "least"), [(SAMPLES, 6), (PHOTOS, 3)])
def test_samples_are_there(folder: Path, least: int) -> None:
    samples = load_samples(folder)
    assert len(samples) >= least and all(prompt for _, prompt, _ in samples)
    for path, _, address in samples:
        assert address == "", "an old one must not win over a sample"
        assert Image.open(path).convert("RGB").width >= 300


@pytest.mark.parametrize(
    ("grounder", "threshold"),
    [
        ("CLIPSeg", 0.7),  # still chosen: its slider may have been moved during the run
        ("GLIP-T", 0.3),  # chosen meanwhile: the slider is for its answer, as asked for this one
    ],
)
def test_a_new_answer_is_shown_at_its_own_threshold(
    session: Session, grounder: str, threshold: float
) -> None:
    more = Settings(Choice(0, 5)).values().values()
    shown, _, rows, *rest, settings = reveal(session, "", None, "", False, 0.7, grounder, *more)
    assert shown == threshold and rows == _rows(session, threshold)
    nothing = reveal(None, "", None, "", False, 0.7, grounder, *more)  # a session that is lost
    same = reveal(session, session.key, None, "", False, 0.7, grounder, *more)
    assert nothing == same == (gr.skip(),) * 12
    assert session.key in rest and [*settings.values().values()] == [*more]
    *_, details, column, said = rest
    assert details.visible and not column.visible and said == "", "no comparison any more"
    *_, column, said, _ = reveal(session, "", None, "", True, 0.7, grounder, *more)
    assert column == said == gr.skip(), "one is being made"


def test_the_slider_of_another_grounder_moves_nothing(session: Session) -> None:
    shown, _, rows, *_ = move(session, Settings(), 0.7, "CLIPSeg", session.key)
    assert shown == 0.7 and rows == _rows(session, 0.7) != _rows(session, 0.3)
    nothing = move(session, Settings(), 0.7, "GLIP-T", session.key)
    assert nothing == move(None, Settings(), 0.7, "CLIPSeg", "") == (gr.skip(),) * 7


@pytest.mark.parametrize(
    ("shown", "grounder", "slider"),
    [
        (0.7, "CLIPSeg", 0.7),  # back to the one whose answer is shown
        (0.7, "GLIP-T", GROUNDERS["GLIP-T"].threshold),
    ],
)
def test_where_the_slider_goes(
    session: Session, shown: float, grounder: str, slider: float
) -> None:
    assert choose_grounder(session, shown, grounder) == slider
    assert choose_grounder(None, shown, grounder) == GROUNDERS[grounder].threshold


def test_a_number_beyond_the_slider_goes_back_to_it_as_one(session: Session) -> None:
    """Gradio sends the page no subclass of float as a number."""
    settings = Settings()
    moved = move(session, settings, Clamped(0.95), "CLIPSeg", session.key)
    new = reveal(
        session, "", None, "", False, Clamped(0.95), "CLIPSeg", *settings.values().values()
    )
    assert type(moved[0]) is type(new[0]) is float


def test_a_correction_that_came_too_late_is_said(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    for key in (session.key, "of the answer before"):
        assert show_corrected(session, Settings(), 0.3, key)[1] == _rows(session, 0.3)
    assert len(said) == 1 and "without that correction" in said[0]


def test_nothing_to_undo(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Info", said.append)
    assert undo(None, Settings(), 0.3, "") == (gr.skip(),) * 6
    assert undo(session, Settings(), 0.3, session.key)[1] == _rows(session, 0.3)
    assert said == ["There is nothing to undo."] * 2


def test_an_answer_that_cannot_be_shown_is_said_to_be_so(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("grounding.display.look", fail)
    with pytest.raises(gr.Error, match="more memory"):
        show(session, Settings(), 0.3)


def _build() -> gr.Blocks:
    async def inside() -> gr.Blocks:  # or Gradio leaves loops of its own behind
        with gr.Blocks() as page:
            build_tab(ModelStore(Weights("demo"), "cpu"), lambda function: function, None)
        return page

    return asyncio.run(inside())


def test_what_is_pressed_again_at_work_comes_after_it() -> None:
    functions = _build().fns.values()
    modes = {function.name: function.trigger_mode for function in functions}
    assert {modes[name] for name in ("run", "compare_here", "batch")} == {"always_last"}
    assert {modes[name] for name in ("click", "correct")} == {"multiple"}  # every click counts


def test_what_is_shown_beside_a_run_leaves_its_progress_in_sight() -> None:
    """Gradio keeps one progress for each component, and the last event that begins decides it."""
    page = _build()
    numbers = {block.elem_id: number for number, block in page.blocks.items()}
    result, status = numbers["seg-result"], numbers["seg-status"]
    beside = [
        function
        for function in page.fns.values()
        if result in {block._id for block in function.outputs}
        and function.show_progress == "hidden"
    ]
    names = {"name_masks", "reveal", "move", "configure", "tick", "show_corrected", "undo"}
    assert {f.name for f in beside} == names
    assert all([b._id for b in f.show_progress_on or []] == [status] for f in beside)
    # Or one that has begun earlier might end later, and the page would show what is no more.
    assert {(f.concurrency_id, f.concurrency_limit) for f in beside} == {("shown", 1)}


def test_several_uploads_leave_no_other_files(tmp_path: Path) -> None:
    """Gradio's own preprocessing makes an empty file for each upload, and forgets it."""
    found = [block for block in _build().blocks.values() if isinstance(block, gr.File)]
    [files] = [file for file in found if file.file_count == "multiple"]
    files.GRADIO_CACHE = str(tmp_path)
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        path.write_bytes(b"")
    given = ListFiles([FileData(path=str(path)) for path in paths])
    assert files.preprocess(given) == [str(path) for path in paths]
    assert files.preprocess(None) == []
    assert sorted(tmp_path.iterdir()) == paths


def test_more_settings_count_at_once(session: Session) -> None:
    settings, _, rows, *_ = configure(session, 0.3, session.key, *BOLD.values().values())
    assert settings.values() == BOLD.values()
    assert rows == look(session, BOLD, 0.3).rows != _rows(session, 0.3)


def test_one_file_comes_as_it_is_and_several_come_in_a_zip(session: Session) -> None:
    def fetch(part: str, threshold: float = 0.3) -> Path:
        return Path(take_home(session, Settings(), threshold, part, session.key))

    with zipfile.ZipFile(fetch(EVERYTHING)) as archive:
        assert archive.namelist() == [*dict(pack(session, Settings(), 0.3, EVERYTHING))]
    assert (fetch("manifest").name, fetch("cutouts", 0.7).name) == ("manifest.json", "01-dog.png")
    with pytest.raises(gr.Error, match="nothing of that kind to download"):
        fetch("cutouts", 1)


def test_a_row_without_cells_does_no_harm(session: Session) -> None:
    rows = _rows(session, 0.3)
    rows[1][0] = False
    table = tick(session, Settings(), 0.3, session.key, [*rows, []])[1]
    assert session.corrections.off == {1} and table == _rows(session, 0.3)


def test_the_files_say_how_long_it_took(session: Session) -> None:
    timed = replace(session, proposals=replace(session.proposals, seconds={"grounder": 0.5}))
    [(_, content)] = pack(timed, Settings(), 0.3, "manifest")
    assert json.loads(content)["seconds"] == {"grounder": 0.5}
