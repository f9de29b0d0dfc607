import os
import weakref
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from torch import nn

from grounding import memory
from grounding.grounders import GROUNDERS
from grounding.memory import GIGABYTE, Shelf, default_budget, file_bytes, model_bytes
from grounding.menu import ModelEntry
from grounding.recent import MAX_BYTES
from grounding.store import ModelStore
from grounding.weights import Weights


class Sized:
    """A model that says how large it is."""

    def __init__(self, size: int) -> None:
        self.size = size


def shelf_of(*sizes: int) -> Shelf:
    shelf = Shelf(lambda model: model.size)
    for size in sizes:
        shelf.put(size, Sized(size))
    return shelf


@pytest.mark.parametrize(
    ("budget", "needed", "used", "left"),
    [
        (60, 0, [], [10, 20, 30]),  # all fit
        (59, 0, [], [20, 30]),  # the oldest goes
        (60, 30, [], [30]),  # as many as it takes
        (59, 0, [10], [10, 30]),  # what was used lately stays
        (0, 0, [], []),  # none fits
        (10, 99, [], []),  # what comes never fits: it is tried all the same
    ],
)
def test_least_recently_used_goes_first(
    budget: int, needed: int, used: list[int], left: list[int]
) -> None:
    shelf = shelf_of(10, 20, 30)
    for key in used:
        shelf.find(key)
    shelf.make_room(budget, needed)
    assert [key for key in (10, 20, 30) if shelf.find(key)] == left
    assert shelf.nbytes == sum(left) and len(shelf) == len(left)


def test_a_model_in_use_stays() -> None:
    shelf = shelf_of(10, 20, 30)
    mine = shelf.find(20)
    shelf.make_room(0)
    assert shelf.find(20) is mine and len(shelf) == 1
    del mine
    shelf.make_room(0)
    assert len(shelf) == 0


def test_an_old_model_in_use_stays_the_oldest() -> None:
    shelf = shelf_of(10, 20, 30)
    mine = shelf.find(10)
    for key in (20, 30):
        shelf.find(key)
    shelf.make_room(45)
    del mine
    shelf.make_room(35)
    assert shelf.find(30) and not shelf.find(10)


class Adapter:
    """What a model is to the pipeline: some network, and things beside it."""

    def __init__(self) -> None:
        self.model = nn.Linear(10, 4)  # 160 + 16 bytes
        self.model.register_buffer("table", torch.zeros(3, dtype=torch.int8))
        self.model.tied = nn.Linear(10, 4)
        self.model.tied.weight = self.model.weight  # counts once; its own bias is 16 bytes
        self.name = "adapter"


def test_model_bytes() -> None:
    assert model_bytes(Adapter()) == 160 + 16 + 3 + 16 + MAX_BYTES


def test_file_bytes(tmp_path: Path) -> None:
    assert file_bytes(tmp_path) == 0
    for name, size in (("config.json", 3), ("model.safetensors", 70)):
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "folder").mkdir()
    assert file_bytes(tmp_path) == 70


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ([], 500),  # no container
        (["max\n"], 500),  # one without a limit
        (["300\n"], 150),  # version 2
        ([None, "200\n"], 100),  # version 1
        (["9223372036854771712\n"], 500),  # version 1's word for no limit
    ],
)
def test_default_budget_on_a_cpu(
    limits: list[str | None], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / f"limit-{i}" for i in range(2)]
    for place, limit in zip(places, limits, strict=False):
        if limit is not None:
            place.write_text(limit)
    monkeypatch.setattr(memory, "CGROUPS", places)
    monkeypatch.setattr(memory, "_physical", lambda: 1000)
    assert default_budget("cpu") == expected


def test_default_budget_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        total_memory = 80 * GIGABYTE

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    assert default_budget("cuda") == 40 * GIGABYTE


def test_a_machine_that_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(memory, "CGROUPS", ())
    assert default_budget("cpu") == memory.UNKNOWN // 2


class Big(Adapter):
    """Half a gigabyte, by its own word."""


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Modules of the models that have been loaded, in order."""
    loaded: list[str] = []

    def load(entry: ModelEntry, _folder: Path, _device: str) -> Any:
        loaded.append(entry.module)
        return Big()

    monkeypatch.setattr(ModelEntry, "load", load)
    monkeypatch.setattr("grounding.store.Shelf", lambda: Shelf(lambda _: GIGABYTE // 2))
    return loaded


@pytest.mark.parametrize(
    ("memory", "asked", "loaded"),
    [
        (9.0, ["CLIPSeg", "GLIP-T", "CLIPSeg"], ["clipseg", "sam2", "glip"]),  # all fit
        (1.2, ["CLIPSeg", "GLIP-T", "CLIPSeg"], ["clipseg", "sam2", "glip", "clipseg"]),  # two do
        (0.1, ["CLIPSeg", "CLIPSeg"], ["clipseg", "sam2"]),  # none does: the latest stay
        (0.1, ["CLIPSeg", "GLIP-T"], ["clipseg", "sam2", "glip", "sam2"]),
    ],
)
def test_store_keeps_what_fits(
    memory: float, asked: list[str], loaded: list[str], loads: list[str]
) -> None:
    store = ModelStore(Weights("demo"), "cpu", memory)
    for name in asked:
        models = store.get(name, "SAM 2.1 tiny")
        assert isinstance(models.grounder, Big) and isinstance(models.segmenter, Big)
        del models
    assert loads == loaded


def test_room_is_made_before_a_model_is_loaded(
    loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else both would be in memory for a moment, for which there may be no room."""
    load, made, beside = ModelEntry.load, [], []

    def watch(*asked: Any) -> Any:
        beside.append(sum(model() is not None for model in made))
        model = load(*asked)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(ModelEntry, "load", watch)
    monkeypatch.setattr("grounding.store.file_bytes", lambda _: GIGABYTE // 2)
    store = ModelStore(Weights("demo"), "cpu", 0.6)
    _, source = store.fetch("CLIPSeg", "SAM 2.1 tiny", lambda *_: None)
    store.load_segmenter("SAM 2.1 tiny", source)
    store.get("CLIPSeg", "SAM 2.1 tiny")
    assert loads == ["sam2", "clipseg", "sam2"]
    # The second makes the first go; the third may not, as the second is needed beside it.
    assert beside == [0, 0, 1]


def test_a_model_that_somebody_works_with_is_not_loaded_twice(loads: list[str]) -> None:
    store = ModelStore(Weights("demo"), "cpu", 0.1)
    mine = store.get("CLIPSeg", "SAM 2.1 tiny")
    store.get("GLIP-T", "SAM 2.1 tiny")
    again = store.get("CLIPSeg", "SAM 2.1 tiny")
    assert again.grounder is mine.grounder and loads == ["clipseg", "sam2", "glip"]


def test_many_at_once_load_each_model_once(loads: list[str]) -> None:
    store = ModelStore(Weights("demo"), "cpu", 9.0)
    names = [name for name in GROUNDERS if name != "GroundingDINO base"] * 5  # one folder with tiny
    threads = [Thread(target=store.get, args=(name, "SAM 2.1 tiny")) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(loads) == ["clipseg", "glip", "grounding_dino", "sam2"]


@pytest.mark.parametrize("memory", [0.0, -1.0, float("nan"), float("inf")])
def test_memory_must_be_a_number_above_zero(memory: float) -> None:
    with pytest.raises(ValueError, match="must be a number above 0"):
        ModelStore(Weights("demo"), "cpu", memory)


def test_a_machine_that_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"SC_PHYS_PAGES": 6 * 10**6, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", said.__getitem__, raising=False)
    monkeypatch.setattr(memory, "CGROUPS", ())
    assert default_budget("cpu") == 3 * 10**6 * 4096
