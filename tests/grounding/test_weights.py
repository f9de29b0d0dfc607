import errno
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from grounding.grounders import GROUNDERS
from grounding.store import ModelStore
from grounding.weights import DEMO_ROOT, Weights, _reporting_bar

REPO = "IDEA-Research/grounding-dino-tiny"
FILES = GROUNDERS["GroundingDINO tiny"].files
COMMIT = "0" * 40


def _quiet(_share: float, _text: str) -> None:
    pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out an empty hub cache and return it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    return tmp_path


def _fill(cache: Path, repo: str, folder: Path, files: tuple[str, ...]) -> Path:
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    for pattern in files:
        for path in folder.glob(pattern):
            shutil.copy(path, snapshot)
    return snapshot


@pytest.mark.parametrize(
    ("mode", "offline", "cached", "demo"),
    [
        ("demo", False, True, True),  # asked for the bundled ones
        ("auto", True, False, True),  # nothing in the cache, no network allowed
        ("auto", False, False, True),  # the hub cannot be reached
        ("auto", True, True, False),  # the cache has them
        ("full", True, True, False),  # the cache has them
    ],
)
def test_choice(cache: Path, mode: str, offline: bool, cached: bool, demo: bool) -> None:
    if cached:
        _fill(cache, REPO, DEMO_ROOT / "grounding_dino", FILES)
    source = Weights(mode, offline).locate(REPO, FILES, "grounding_dino", _quiet)
    assert source.demo is demo
    assert source.name == ("bundled demo weights" if demo else REPO)
    assert (source.folder / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("offline", "why"), [(True, "the app runs offline"), (False, "hub did not answer")]
)
def test_full_weights_that_cannot_be_had(cache: Path, offline: bool, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Weights("full", offline).locate(REPO, FILES, "grounding_dino", _quiet)


@pytest.mark.parametrize("mode", ["demo", "auto"])
def test_a_model_without_demo_weights(cache: Path, mode: str) -> None:
    with pytest.raises(ValueError, match=f"no demo weights to stand in for {REPO}"):
        Weights(mode, offline=True).locate(REPO, FILES, "my_grounder", _quiet)


def test_half_a_download_is_not_taken_for_whole(cache: Path) -> None:
    _fill(cache, REPO, DEMO_ROOT / "grounding_dino", ("*.json",))
    assert Weights("auto", offline=True).locate(REPO, FILES, "grounding_dino", _quiet).demo


def test_weights_folder_comes_first(cache: Path, tmp_path: Path) -> None:
    place = tmp_path / "mine" / REPO
    place.mkdir(parents=True)
    weights = Weights("auto", offline=True, folder=tmp_path / "mine")
    assert weights.locate(REPO, FILES, "grounding_dino", _quiet).demo  # nothing in it yet
    (place / FILES[-1]).touch()
    source = weights.locate(REPO, FILES, "grounding_dino", _quiet)
    assert (source.folder, source.name, source.demo) == (place, REPO, False)


def test_weights_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"The weights folder .*missing is not there"):
        Weights("auto", folder=tmp_path / "missing")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("File I/O error: No space left on device (os error 28)"),  # of hf_xet
    ],
)
def test_full_disk(cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """That the disk is full is not the hub's fault, and the page must say so."""

    def fill_up(*_: Any, **options: Any) -> str:
        if options.get("local_files_only"):
            raise LocalEntryNotFoundError("not there")
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fill_up)
    with pytest.raises(ValueError, match=f"no room on the disk for the weights of {REPO}"):
        Weights("auto").locate(REPO, FILES, "grounding_dino", _quiet)


def test_cached_full_weights_run(cache: Path) -> None:
    """The hub's layout, read by the code that reads the hub's files."""
    _fill(cache, REPO, DEMO_ROOT / "grounding_dino", FILES)
    store = ModelStore(Weights("auto", offline=True), "cpu")
    models = store.get("GroundingDINO tiny", "SAM 2.1 tiny")
    assert not models.origin.grounder.demo and models.origin.segmenter.demo
    assert store.get("GroundingDINO tiny", "SAM 2.1 tiny").grounder is models.grounder


def test_unreachable_hub_is_not_asked_again_at_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> str:
        calls.append(kwargs)
        raise ConnectionError("no route")

    weights = Weights("auto")
    monkeypatch.setattr(weights, "_cached", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    for _ in range(3):
        assert weights.locate(REPO, FILES, "grounding_dino", _quiet).demo
    assert len(calls) == 1


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="weights is 'tiny'; choose one of auto, full, demo"):
        Weights("tiny")


@pytest.mark.parametrize(
    ("mode", "offline", "words"),
    [
        ("demo", False, "Bundled demo weights"),
        ("full", False, "Full public weights"),
        ("auto", True, "Offline"),
        ("auto", False, "downloaded at first use"),
    ],
)
def test_describe(mode: str, offline: bool, words: str) -> None:
    assert words in Weights(mode, offline).describe()


def test_download_reports_bytes() -> None:
    """Those that are on the disk; the hub's client counts those that come over the network, too."""
    seen: list[tuple[float, str]] = []
    bar = _reporting_bar(lambda share, text: seen.append((share, text)), "a/b")
    looks = {"total": 4_000_000, "unit": "B", "disable": False, "file": io.StringIO()}
    files = bar(desc="Fetching 2 files", **looks | {"unit": "it"})
    with bar(**looks) as shown, bar(desc="Downloading bytes", **looks) as fetched, files:
        for part in (1_000_000, 3_000_000):
            fetched.update(part / 2)
            shown.update(part)
            files.update()
    assert seen == [
        (0.25, "Downloading a/b: 1 of 4 MB"),
        (1.0, "Downloading a/b: 4 of 4 MB"),
    ]
