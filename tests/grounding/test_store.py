import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from grounding.grounders import GROUNDERS
from grounding.memory import Shelf, file_bytes
from grounding.menu import ModelEntry
from grounding.segmenters import SEGMENTERS, SegmenterEntry
from grounding.store import LIBRARIES, ModelStore
from grounding.weights import BUNDLED, DEMO_ROOT, Source, Weights
from tests.grounding.test_faults import load_with


def test_room_is_made_for_what_a_model_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three quarters of the file of GLIP-T are left on the disk; no other model goes for them."""
    made = []
    monkeypatch.setattr(Shelf, "make_room", lambda _, budget, needed=0: made.append(needed))
    models = ModelStore(Weights("demo"), "cpu").get("GLIP-T", "SAM 2.1 tiny")
    glip, sam = (file_bytes(source.folder) for source in models.origin.sources.values())
    assert made == [glip // 4, 0, sam, 0]


def test_unknown_model_names_the_menu() -> None:
    with pytest.raises(ValueError, match=r"no grounder 'GLIP-9'; choose one of GroundingDINO tiny"):
        ModelStore(Weights("demo"), "cpu").get("GLIP-9", "SAM 2.1 tiny")
    with pytest.raises(ValueError, match=r"no grounder \['CLIPSeg'\]; choose one of"):
        ModelStore(Weights("demo"), "cpu").get(["CLIPSeg"], "SAM 2.1 tiny")  # of a program


def test_damaged_weights_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grounding.weights.DEMO_ROOT", tmp_path)
    folder = tmp_path / "clipseg"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "clipseg"}')
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")
    store = ModelStore(Weights("demo"), "cpu")
    with pytest.raises(ValueError, match=r"incomplete\. Get the folder assets/demo anew"):
        load_with(store, "CLIPSeg")


class Recorder(Weights):
    """Demo weights; knows which repositories were asked for."""

    def __init__(self) -> None:
        super().__init__("demo")
        self.asked: list[str] = []

    def locate(self, repo: str, *rest: Any) -> Source:
        self.asked.append(repo)
        return super().locate(repo, *rest)


def test_weights_are_fetched_without_loading_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelStore, "_read", lambda *_: pytest.fail("a model was loaded"))
    store = ModelStore(weights := Recorder(), "cpu")
    store.fetch("CLIPSeg", "SAM 2.1 tiny", lambda *_: None)
    assert weights.asked == [GROUNDERS["CLIPSeg"].repo, SEGMENTERS["SAM 2.1 tiny"].repo]
    with pytest.raises(ValueError, match="no segmenter 'SAM'"):
        store.fetch("CLIPSeg", "SAM", lambda *_: None)


def test_a_correction_needs_no_grounder_and_asks_for_no_weights() -> None:
    store = ModelStore(weights := Recorder(), "cpu")
    _, source = store.fetch("CLIPSeg", "SAM 2.1 tiny", lambda *_: None)
    asked = [*weights.asked]
    segmenter = store.load_segmenter("SAM 2.1 tiny", source)
    assert weights.asked == asked
    assert store.get("CLIPSeg", "SAM 2.1 tiny").segmenter is segmenter


def test_two_adapters_may_read_the_same_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a grounder and a segmenter."""
    monkeypatch.setattr(ModelEntry, "load", lambda entry, *_: Loaded(entry.package, entry.module))
    one, folder = GROUNDERS["CLIPSeg"], DEMO_ROOT / "clipseg"
    monkeypatch.setitem(GROUNDERS, "Mine", replace(one, module="mine"))
    monkeypatch.setitem(SEGMENTERS, "Mine", SegmenterEntry("mine", one.repo))
    store, source = ModelStore(Weights("demo"), "cpu"), Source("a/b", folder)
    asked = [("grounder", "CLIPSeg"), ("grounder", "Mine"), ("segmenter", "Mine")]
    models = [store._load(role, name, source) for role, name in asked * 2]
    assert [model.module for model in models[:3]] == ["clipseg", "mine", "mine"]
    assert len({*map(id, models)}) == 3, "each is loaded once"
    others = store._load("grounder", "CLIPSeg", Source(BUNDLED, folder))
    assert others is not models[0], "as the public weights after the demo weights"


@dataclass
class Loaded:
    package: str
    module: str


def test_who_waits_for_somebody_elses_download_is_told() -> None:
    name, told = "CLIPSeg", []
    store = ModelStore(Weights("demo"), "cpu")
    with store._fetching[GROUNDERS[name].repo]:
        waiting = threading.Thread(
            target=store.fetch, args=(name, "SAM 2.1 tiny", lambda *said: told.append(said))
        )
        waiting.start()
        deadline = time.monotonic() + 60
        while not told:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    waiting.join()
    assert told == [(0.0, "Waiting for the weights of CLIPSeg, which somebody else has asked for")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_fork_does_not_wait_for_what_others_load() -> None:
    """ZeroGPU runs the models in a fork; a lock that is held there would never be let go."""
    store = ModelStore(Weights("demo"), "cpu")

    def free() -> None:
        locks = store._lock, store._fetching["a/b"]
        os._exit(0 if all(lock.acquire(timeout=5) for lock in locks) else 1)

    with store._lock, store._fetching["a/b"]:
        child = get_context("fork").Process(target=free)
        child.start()
        child.join(30)
    assert child.exitcode == 0


class SlowWeights(Weights):
    """Demo weights; those of one repository arrive when they are let."""

    def __init__(self, slow: str) -> None:
        super().__init__("demo")
        self.slow, self.asked, self.arrived = slow, threading.Event(), threading.Event()
        self.downloads: list[bool] = []  # whether it was there already when it was asked for

    def locate(self, repo: str, *rest: Any) -> Source:
        if repo == self.slow:
            self.asked.set()
            self.downloads.append(self.arrived.is_set())
            assert self.arrived.wait(60)
        return super().locate(repo, *rest)


def test_a_download_holds_up_only_those_who_want_it() -> None:
    slow, segmenter = "GroundingDINO base", "SAM 2.1 tiny"
    weights = SlowWeights(GROUNDERS[slow].repo)
    store, results = ModelStore(weights, "cpu"), []
    waiting = [
        threading.Thread(target=lambda: results.append(store.get(slow, segmenter)))
        for _ in range(2)
    ]
    for thread in waiting:
        thread.start()
    assert weights.asked.wait(60)
    store.get("CLIPSeg", segmenter)
    assert not results, "it has not arrived"
    weights.arrived.set()
    for thread in waiting:
        thread.join(60)
    assert results[0].grounder is results[1].grounder, "it is loaded once"
    assert weights.downloads == [False, True], "the other waits, and finds it there"


TRANSFORMERS = ["CLIPSeg", "GroundingDINO tiny"]


def _copy(name: str, to: Path, without: str) -> ModelStore:
    """Copy demo weights but for a file to where --weights-folder expects them."""
    entry = GROUNDERS[name]
    shutil.copytree(
        DEMO_ROOT / entry.module, to / entry.repo, ignore=shutil.ignore_patterns(without)
    )
    return ModelStore(Weights("full", offline=True, folder=to), "cpu")


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_no_weight_is_made_up(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By itself transformers takes random numbers for what the file does not hold, and warns."""
    store = _copy(name, tmp_path, without="nothing")
    path = tmp_path / GROUNDERS[name].repo / "model.safetensors"
    weights = load_file(path)
    gone = next(iter(weights))
    save_file({k: v.clone() for k, v in weights.items() if k != gone}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="damaged or incomplete") as caught:
        load_with(store, name)
    assert "Put the files of" in str(caught.value)
    assert f"not in the file, {gone} among them" in capsys.readouterr().out


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_weights_without_a_tokenizer_are_a_sentence(tmp_path: Path, name: str) -> None:
    """By itself transformers takes an empty one, to which all phrases are the same."""
    store = _copy(name, tmp_path, without="tokenizer.json")
    with pytest.raises(ValueError, match=f"weights of {name} .* damaged or incomplete"):
        load_with(store, name)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_an_older_layout_of_the_tokenizer_gives_the_same_words(tmp_path: Path, name: str) -> None:
    """The vocabulary in its own file, and CLIP's merges beside it."""
    store, entry = _copy(name, tmp_path, without="tokenizer.json"), GROUNDERS[name]
    words = json.loads((DEMO_ROOT / entry.module / "tokenizer.json").read_text())["model"]
    vocabulary, place = sorted(words["vocab"], key=words["vocab"].get), tmp_path / entry.repo
    if "merges" in words:
        merges = [m if isinstance(m, str) else " ".join(m) for m in words["merges"]]
        (place / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
        (place / "vocab.json").write_text(json.dumps(words["vocab"]))
    else:
        (place / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    model = load_with(store, name)
    demo = load_with(ModelStore(Weights("demo"), "cpu"), name)
    phrase = "a dog, the red car"
    ids = [m.processor.tokenizer(phrase)["input_ids"] for m in (model, demo)]
    assert ids[0] == ids[1] and len(set(ids[0])) > 4


def test_menu_and_folder_agree() -> None:
    folder = Path("grounding/grounders")
    files = {path.stem for path in folder.iterdir() if not path.stem.startswith("__")}
    assert files == {entry.module for entry in GROUNDERS.values()}


def test_libraries_are_imported_once_and_in_the_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "grounding.store.import_module",
        lambda name: seen.append((name, threading.current_thread().name)),
    )
    store = ModelStore(Weights("demo", offline=True), "cpu")
    for _ in range(3):  # as many visitors
        store.warm_up()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and "_import_libraries" in thread.name:
            thread.join(10)
    assert [name for name, _ in seen] == list(LIBRARIES)
    assert all(thread != threading.current_thread().name for _, thread in seen)


def test_models_load_without_a_large_library_that_was_not_warmed_up() -> None:
    """What a process imports to load the first models, after the warm-up, is small."""
    code = """if True:
        import sys
        from grounding.store import ModelStore, SEGMENTERS, GROUNDERS
        from grounding.weights import Weights
        store = ModelStore(Weights("demo", offline=True), "cpu")
        store._import_libraries()
        before = set(sys.modules)
        store.get(next(iter(GROUNDERS)), next(iter(SEGMENTERS)))
        print(len(set(sys.modules) - before))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=DEMO_ROOT.parents[1], capture_output=True, text=True
    )
    assert int(done.stdout) < 150, done.stderr
