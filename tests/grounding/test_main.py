import argparse
import errno
import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Condition
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

import grounding.__main__ as command
from common.images import MAX_BYTES
from grounding import answers, export
from grounding.__main__ import main, parse_args
from grounding.answers import read_manifest
from grounding.core import Masks, Regions
from grounding.store import Models
from grounding.weights import BUNDLED, Origin, Source, Weights

T = TypeVar("T")
DEMO = ["--weights", "demo", "--device", "cpu"]
PROMPT = ["--prompt", "a dog, a cat"]


class Fake:
    """Be both models and their store: find the left half of a picture, and write down its width."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.error: BaseException | None = None
        self.demo = True

    def __call__(self, weights: Weights, device: str) -> "Fake":
        return self

    def get(self, grounder: str, segmenter: str) -> Models:
        source = Source(BUNDLED if self.demo else "fake", Path())
        return Models(self, self, Origin(source, source))

    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        if image.width == 7 and self.error:
            raise self.error
        self.seen.append(image.width)
        box = np.float32([[0, 0, image.width / 2, image.height]])
        return Regions(box, np.float32([0.9]), (phrases[0],))

    def segment(self, image: Image.Image, regions: Regions) -> Masks:
        masks = np.zeros((1, image.height, image.width), bool)
        masks[:, :, : image.width // 2] = True
        return Masks(masks, np.float32([0.8]))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    models = Fake()
    monkeypatch.setattr("grounding.__main__.ModelStore", models)
    return models


def _save(folder: Path, *names: str) -> None:
    """Save pictures 6, 7, 8, ... pixels wide."""
    for width, name in enumerate(names, start=6):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, 5)).save(folder / name)


def _run(folder: Path, *more: str) -> int:
    return main([str(folder / "in"), "--out", str(folder / "out"), *PROMPT, *DEMO, *more])


def _folders(out: Path) -> list[str]:
    """Return all there is in `out`; each must be whole."""
    found = sorted(out.iterdir())
    assert all(read_manifest(path) and (path / "masks/01-a-dog.png").is_file() for path in found)
    return [path.name for path in found]


def _parse(*more: str) -> argparse.Namespace:
    return parse_args(["a.png", "--prompt", "x", "--out", "o", *more])


@pytest.mark.parametrize(
    ("flags", "grounder", "threshold"),
    [
        ([], "GroundingDINO tiny", 0.3),  # the first of the menu, its own threshold
        (["--grounder", "glip-t"], "GLIP-T", 0.5),
        (["--grounder", "CLIPSEG", "--threshold", "0"], "CLIPSeg", 0.0),
    ],
)
def test_models_and_threshold(flags: list[str], grounder: str, threshold: float) -> None:
    args = _parse(*flags, "--segmenter", "sam 2.1 BASE+")
    assert (args.grounder, args.threshold) == (grounder, threshold)
    assert args.segmenter == "SAM 2.1 base+"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--grounder", "GLIP-9"], "'GLIP-9' is none of: GroundingDINO tiny, "),
        (["--segmenter", "SAM"], "'SAM' is none of: SAM 2.1 tiny, "),
        (["--threshold", "2"], "'2' is no number from 0 to 1"),
        (["--threshold", "nan"], "'nan' is no number from 0 to 1"),
        (["--threshold", "many"], "'many' is no number from 0 to 1"),
    ],
)
def test_refused_flags(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parse(*flags)
    assert words in capsys.readouterr().err


def test_what_scores_less_than_the_threshold_is_not_found(tmp_path: Path, fake: Fake) -> None:
    _save(tmp_path / "in", "a.png")
    for threshold, found in (("0.95", 0), ("0.85", 1)):
        _run(tmp_path, "--threshold", threshold)
        assert len(read_manifest(tmp_path / "out/a")["rows"]) == found


def test_models_are_those_of_the_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    class Store(Fake):
        def __call__(self, weights: Weights, device: str) -> Fake:
            given.extend((weights.mode, weights.offline, weights.folder, device))
            return self

        def get(self, grounder: str, segmenter: str) -> Models:
            given.extend((grounder, segmenter))
            return super().get(grounder, segmenter)

    monkeypatch.setattr("grounding.__main__.ModelStore", Store())
    _save(tmp_path / "in", "a.png")
    flags = ["--grounder", "CLIPSeg", "--segmenter", "SAM 2.1 large", "--weights", "full",
             "--weights-folder", str(tmp_path), "--offline", "--device", "cpu"]  # fmt: skip
    _run(tmp_path, *flags)
    assert given == ["full", True, tmp_path, "cpu", "CLIPSeg", "SAM 2.1 large"]
    with pytest.raises(ValueError, match="device"):
        _run(tmp_path, *flags, "--device", "cuda:99", "--prompt", "a bird")


def test_refuses_an_empty_prompt_before_anything_else(tmp_path: Path, fake: Fake) -> None:
    with pytest.raises(ValueError, match="Type what"):
        main(["nowhere", "--prompt", " , ", "--out", str(tmp_path / "out")])


def test_goes_on_after_bad_files(
    tmp_path: Path, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    _save(tmp_path / "in", "a.png", "c.png", "d.png")
    (tmp_path / "in/b.jpg").write_text("no picture")
    fake.error = RuntimeError("out of memory")  # at c
    assert _run(tmp_path) == 1
    assert _folders(tmp_path / "out") == ["a", "d"]
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert "b.jpg: This file cannot be opened as a picture" in first
    assert second.endswith("c.png: RuntimeError: out of memory")


def test_resumes(tmp_path: Path, fake: Fake) -> None:
    _save(tmp_path / "in", "a.png", "b.png")
    assert _run(tmp_path) == 0 and fake.seen == [6, 7]
    assert _run(tmp_path) == 0 and fake.seen == [6, 7]
    _save(tmp_path / "in", "a.png", "b.png", "c.png")
    for name in ("a.png", "b.png"):  # saved anew, so their times are put back
        old = read_manifest(tmp_path / "out" / name[0])["source"]["mtime_ns"]
        os.utime(tmp_path / "in" / name, ns=(old, old))
    assert _run(tmp_path) == 0 and fake.seen == [6, 7, 8]


@pytest.mark.parametrize(
    ("flags", "done_again"),
    [
        ([], False),
        (["--grounder", "groundingdino TINY"], False),  # the same, spelled otherwise
        (["--threshold", "0.4"], True),
        (["--grounder", "CLIPSeg", "--threshold", "0.3"], True),
        (["--segmenter", "SAM 2.1 large"], True),
        (["--prompt", "a dog"], True),
        (["--weights", "full"], True),  # the answers there are of demo weights
        (["--weights-folder", "."], True),  # other weights of the same name
    ],
)
def test_other_settings_do_it_again(
    flags: list[str], done_again: bool, tmp_path: Path, fake: Fake
) -> None:
    _save(tmp_path / "in", "a.png")
    _run(tmp_path)
    (tmp_path / "out/a/overlay.png").write_text("of before")
    assert _run(tmp_path, *flags) == 0
    assert len(fake.seen) == 1 + done_again
    assert ((tmp_path / "out/a/overlay.png").read_bytes() == b"of before") != done_again


def test_a_changed_picture_is_done_again(tmp_path: Path, fake: Fake) -> None:
    _save(tmp_path / "in", "a.png")
    _run(tmp_path)
    os.utime(tmp_path / "in/a.png", ns=(1, 1))
    _run(tmp_path)
    assert len(fake.seen) == 2
    assert read_manifest(tmp_path / "out/a")["source"]["mtime_ns"] == 1


def test_another_picture_of_the_same_time_is_done_again(tmp_path: Path, fake: Fake) -> None:
    _save(tmp_path / "in", "a.png")
    _run(tmp_path)
    time = (tmp_path / "in/a.png").stat().st_mtime_ns
    Image.new("RGB", (60, 50), "red").save(tmp_path / "in/a.png")
    os.utime(tmp_path / "in/a.png", ns=(time, time))
    _run(tmp_path)
    assert fake.seen == [6, 60]


def test_pictures_of_the_same_name_keep_their_answers(tmp_path: Path, fake: Fake) -> None:
    """Also when they come in different calls."""
    _save(tmp_path, "a/x.png", "b/x.png", "c/X.png")
    for _ in range(2):
        for folder in "abc":
            more = ["--out", str(tmp_path / "out"), *PROMPT, *DEMO]
            assert main([str(tmp_path / folder), *more]) == 0
    assert fake.seen == [6, 7, 8]
    assert _folders(tmp_path / "out") == ["X-3", "x", "x-2"]
    shutil.rmtree(tmp_path / "out/x")
    (tmp_path / "out/x-2").rename(tmp_path / "out/.x-2.old")  # from a run that was killed
    assert main([str(tmp_path / "b"), *more]) == 0
    assert _folders(tmp_path / "out")[1:] == ["X-3", "x"], "and it is not taken for an answer"


@pytest.mark.parametrize(
    ("weights", "public", "done_again"),
    [
        ("auto", False, False),  # still none
        ("auto", True, True),  # there now
        ("demo", True, False),  # demo weights were asked for
    ],
)
def test_answers_of_demo_weights_are_done_again_once_there_are_others(
    weights: str,
    public: bool,
    done_again: bool,
    tmp_path: Path,
    fake: Fake,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _save(tmp_path, "a/a.png")
    pictures, out = [str(tmp_path / folder) for folder in "ab"], str(tmp_path / "out")
    more = ["--out", out, *PROMPT, "--weights", weights, "--device", "cpu"]
    assert main([pictures[0], *more]) == 0
    fake.demo = not public
    _save(tmp_path, "b/b.png")
    for _ in range(2):  # once only
        assert main([*pictures, *more]) == 0
    assert len(fake.seen) == 2 + done_again
    assert ("demo weights had made them: 1" in capsys.readouterr().out) == done_again


def test_a_pattern_does_not_take_up_answers(tmp_path: Path, fake: Fake) -> None:
    _save(tmp_path, "a.png", "b/c.png")
    more = ["--out", str(tmp_path / "b/out"), *PROMPT, *DEMO]
    for _ in range(2):
        assert main([str(tmp_path / "**/*.png"), *more]) == 0
    assert fake.seen == [6, 7]
    answer = tmp_path / "b/out/a/masks/01-a-dog.png"
    assert main([str(answer), *more]) == 0 and len(fake.seen) == 3, "named, it is a picture"


def test_interrupted_while_a_model_runs(tmp_path: Path, fake: Fake) -> None:
    _save(tmp_path / "in", "a.png", "b.png", "c.png")
    fake.error = KeyboardInterrupt()  # at b
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path)
    assert _folders(tmp_path / "out") == ["a"]
    fake.error = None
    assert _run(tmp_path) == 0 and fake.seen == [6, 7, 8]
    assert _folders(tmp_path / "out") == ["a", "b", "c"]


def test_interrupted_while_writing(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    _save(tmp_path / "in", "a.png")
    _run(tmp_path)
    monkeypatch.setitem(export.PARTS, "coco", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, "--threshold", "0.4")
    assert _folders(tmp_path / "out") == ["a"]
    assert read_manifest(tmp_path / "out/a")["settings"]["threshold"] == 0.3


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path, fake: Fake) -> None:
    _save(tmp_path / "in", "a.png")
    for flags in ([], ["--threshold", "0.4"]):  # the second answer replaces the first
        (tmp_path / "out/.a.part/masks").mkdir(parents=True)
        (tmp_path / "out/.a.old/masks").mkdir(parents=True)
        (tmp_path / "out/.a.part/masks/09-of-another-prompt.png").touch()
        assert _run(tmp_path, *flags) == 0
        assert _folders(tmp_path / "out") == ["a"]
        assert not (tmp_path / "out/a/masks/09-of-another-prompt.png").exists()


@pytest.mark.parametrize(
    "manifest",
    [
        None,  # none
        "[]",  # JSON, but not ours
        '{"source": "my web page"}',  # another program's
        '{"source": {',  # cut off
        '{"models": {}, "source": {"path": "a.png"}}',  # no answer in it
        '{"prompt": 1, "rows": [], "models": {}, "source": null}',
        '{"prompt": 1, "rows": [], "models": {}, "source": {}}',
        '{"prompt": 1, "rows": [], "models": {}, "source": {"path": 5}}',
        '{"prompt": 1, "rows": [], "models": [3], "source": {"path": "a.png"}}',
        '{"prompt": 1, "rows": [], "models": {"grounder": 3}, "source": {"path": "a.png"}}',
    ],
)
def test_folders_of_others_are_left_alone(manifest: str | None, tmp_path: Path, fake: Fake) -> None:
    _save(tmp_path / "in", "a.png")
    _save(tmp_path / "out/a", "mine.png")
    if manifest:
        (tmp_path / "out/a/manifest.json").write_text(manifest)
    for _ in range(2):
        assert _run(tmp_path) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "a-2"]
    assert (tmp_path / "out/a/mine.png").exists() and read_manifest(tmp_path / "out/a-2")
    assert fake.seen == [6]


def test_a_folder_that_appears_meanwhile_is_left_alone(
    tmp_path: Path, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    _save(tmp_path / "in", "a.png")
    ground = fake.ground
    fake.ground = lambda *asked: _save(tmp_path / "out/a", "mine.png") or ground(*asked)
    assert _run(tmp_path) == 1
    assert (tmp_path / "out/a/mine.png").exists()
    assert "holds no results; it is left alone" in capsys.readouterr().err


def test_the_answers_of_pictures_that_have_moved_are_replaced(tmp_path: Path, fake: Fake) -> None:
    _save(tmp_path / "in", "a.png")
    _run(tmp_path)
    (tmp_path / "in").rename(tmp_path / "moved")
    assert main([str(tmp_path / "moved"), "--out", str(tmp_path / "out"), *PROMPT, *DEMO]) == 0
    assert _folders(tmp_path / "out") == ["a"]


def test_the_answers_of_pictures_that_are_gone_are_kept(tmp_path: Path, fake: Fake) -> None:
    """A camera gives its names again; the card with the first of them may be elsewhere."""
    more = ["--out", str(tmp_path / "out"), *PROMPT, *DEMO]
    _save(tmp_path, "monday/a.png", "tuesday/a.png")
    main([str(tmp_path / "monday"), *more])
    (tmp_path / "monday").rename(tmp_path / "archived")
    for _ in range(2):
        main([str(tmp_path / "tuesday"), *more])
    assert fake.seen == [6, 7]
    assert _folders(tmp_path / "out") == ["a", "a-2"]
    main([str(tmp_path / "archived"), str(tmp_path / "tuesday"), *more])
    assert _folders(tmp_path / "out") == ["a", "a-2"]


def test_what_somebody_put_beside_an_answer_stays(tmp_path: Path, fake: Fake) -> None:
    _save(tmp_path / "in", "a.png")
    _run(tmp_path)
    answer = tmp_path / "out/a"
    mine = [answer / n for n in ("notes.txt", "mine/b.txt", "masks/07-mine.png", "cutouts/x/y.png")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (answer / "empty").mkdir()
    (answer / "link").symlink_to("nowhere")
    main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--prompt", "a cat", *DEMO])
    assert read_manifest(answer)["prompt"] == "a cat"
    assert [path.read_text() for path in mine] == ["mine"] * 4
    assert (answer / "empty").is_dir() and (answer / "link").is_symlink()
    assert sorted(path.name for path in (answer / "masks").iterdir()) == [
        "01-a-cat.png",
        "07-mine.png",
    ]
    assert [*(tmp_path / "out").iterdir()] == [answer]


@pytest.mark.parametrize("new", [False, True])  # whether the new answer had its name already
def test_what_somebody_put_beside_an_answer_outlives_a_kill(
    new: bool, tmp_path: Path, fake: Fake
) -> None:
    _save(tmp_path / "in", "a.png")
    _run(tmp_path)
    answer, old = tmp_path / "out/a", tmp_path / "out/.a.old"
    answer.rename(old)
    (old / "notes.txt").write_text("mine")
    if new:
        shutil.copytree(old, answer, ignore=shutil.ignore_patterns("notes.txt"))
    _run(tmp_path, "--threshold", "0.2")
    assert read_manifest(answer)["settings"]["threshold"] == 0.2
    assert (answer / "notes.txt").read_text() == "mine"
    assert [*(tmp_path / "out").iterdir()] == [answer]


def test_what_was_left_out_is_said(
    tmp_path: Path, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    _save(tmp_path / "in", "a.png", "b.png")
    _run(tmp_path)
    assert "left out" not in capsys.readouterr().out
    fake.ground = lambda image, phrases, threshold: Regions(
        np.float32([[0, 0, image.width, image.height]]), np.float32([0.9]), (phrases[0],)
    )
    _run(tmp_path, "--threshold", "0.2")
    assert "Something was left out of 2;" in capsys.readouterr().out
    notes = read_manifest(tmp_path / "out/a")["notes"]
    assert notes == ["Left out: 1 box around the whole picture."]


def test_where_nothing_can_be_written_no_model_is_loaded(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    _save(tmp_path / "in", "a.png")
    monkeypatch.setattr("common.folders.TemporaryDirectory", refuse)
    with pytest.raises(ValueError, match=r"the folder .* of --out cannot be written"):
        _run(tmp_path)
    assert not fake.seen


def test_a_picture_that_may_no_longer_be_reached_does_not_stop_the_others(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path / "in", "a.png", "b.png")
    _run(tmp_path)
    stat = Path.stat

    def refuse(path: Path, **how: Any) -> os.stat_result:
        if path.name == "b.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", refuse)
    assert main([str(tmp_path / "in/a.png"), "--out", str(tmp_path / "out"), *PROMPT, *DEMO]) == 0


def test_a_picture_of_ones_own_may_be_larger_than_a_visitors(tmp_path: Path, fake: Fake) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (3000, 2500)).save(tmp_path / "in/a.bmp")
    assert (tmp_path / "in/a.bmp").stat().st_size > MAX_BYTES
    assert _run(tmp_path) == 0


def test_answers_beside_the_pictures_are_no_pictures(tmp_path: Path, fake: Fake) -> None:
    _save(tmp_path, "a.png")
    command = [str(tmp_path), "--out", str(tmp_path), *PROMPT, *DEMO]
    assert main(command) == 0 and main(command) == 0
    assert fake.seen == [6]


class Diary:
    """Write down which pictures have been opened and which answers have been written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.changed = Condition()
        self.opened, self.written, self.most = 0, 0, 0
        for function, kind in (("open_image", "opened"), ("write_answer", "written")):
            monkeypatch.setattr(command, function, self._counted(getattr(command, function), kind))

    def _counted(self, function: Callable[..., T], kind: str) -> Callable[..., T]:
        def call(*args: Any) -> T:
            answer = function(*args)
            with self.changed:
                setattr(self, kind, getattr(self, kind) + 1)
                self.most = max(self.most, self.opened - self.written)
                self.changed.notify_all()
            return answer

        return call

    def wait(self, opened: int, written: int) -> bool:
        with self.changed:
            there = lambda: self.opened >= opened and self.written >= written  # noqa: E731
            return self.changed.wait_for(there, timeout=60)


def test_the_next_is_opened_and_the_last_is_written_while_a_model_runs(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path / "in", *(f"{i}.png" for i in range(1, 9)))
    diary, ground = Diary(monkeypatch), fake.ground

    def wait_for_neighbours(image: Image.Image, *rest: Any) -> Regions:
        number = image.width - 5
        assert diary.wait(opened=min(number + 1, 8), written=number - 1)
        return ground(image, *rest)

    monkeypatch.setattr(fake, "ground", wait_for_neighbours)
    assert _run(tmp_path) == 0
    assert fake.seen == [*range(6, 14)]


def test_a_slow_disk_holds_the_models_up(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures and answers that wait do not pile up in memory."""
    _save(tmp_path / "in", *(f"{i}.png" for i in range(1, 9)))
    diary, write = Diary(monkeypatch), command.write_answer

    def write_late(*args: Any) -> None:
        number = args[1].width - 5
        diary.wait(opened=min(number + 2, 8), written=0)
        write(*args)

    monkeypatch.setattr(command, "write_answer", write_late)
    assert _run(tmp_path) == 0
    assert _folders(tmp_path / "out") == [*"12345678"]
    assert diary.most <= 4


def test_a_full_disk_at_one_picture(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(folder: Path, files: object) -> None:
        if folder.name == ".b.part":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(folder, files)

    _save(tmp_path / "in", "a.png", "b.png", "c.png")
    write_all = answers.write_all
    monkeypatch.setattr(answers, "write_all", write)
    assert _run(tmp_path) == 1
    assert _folders(tmp_path / "out") == ["a", "c"]
    assert "b.png: OSError: [Errno 28] No space left" in capsys.readouterr().err


def test_bad_pictures_are_listed_in_their_order(
    tmp_path: Path, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that cannot be written comes before the one that cannot be opened."""
    _save(tmp_path / "in", "a.png", "b.png")
    (tmp_path / "in/b.png").write_text("no picture")
    ground = fake.ground
    fake.ground = lambda *asked: _save(tmp_path / "out/a", "mine.png") or ground(*asked)
    assert _run(tmp_path) == 1
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert "holds no results" in first and "b.png: This file cannot be opened" in second


def test_with_the_demo_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy("assets/samples/segmentation/street.png", tmp_path / "in")
    assert _run(tmp_path) == 0
    manifest = read_manifest(tmp_path / "out/street")
    assert manifest["device"] == "cpu"
    assert manifest["models"]["grounder"]["weights"] == "bundled demo weights"
    assert "a dog" in [row["phrase"] for row in manifest["rows"]]
    assert "Weights in use: bundled demo weights, on cpu." in capsys.readouterr().out


def test_the_folder_of_answers_is_made_with_those_above_it(tmp_path: Path, fake: Fake) -> None:
    _save(tmp_path / "in", "a.png")
    assert _run(tmp_path, "--out", str(tmp_path / "new/out")) == 0
    assert _folders(tmp_path / "new/out") == ["a"]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),  # as the shell has it
        (ValueError("Bad."), "python -m grounding: Bad."),
        (OSError(28, "No space"), "python -m grounding: [Errno 28] No space"),
    ],
)
def test_how_it_ends(error: BaseException, code: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr("grounding.prompt.parse_prompt", fail)
    monkeypatch.setattr("sys.argv", ["grounding", "a.png", "--prompt", "x", "--out", "o"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("grounding", run_name="__main__")
    assert ended.value.code == code
