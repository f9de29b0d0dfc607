import errno
import io
import re
import shutil
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import Mock

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from grounding.grounders import GROUNDERS
from grounding.hub import Downloads, reporting_bar
from grounding.store import ModelStore
from grounding.weights import BUNDLED, DEMO_ROOT, Source, Weights

REPO = "IDEA-Research/grounding-dino-tiny"
FILES = GROUNDERS["GroundingDINO tiny"].files
COMMIT = "0" * 40


def _quiet(_share: float, _text: str) -> None:
    pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out an empty hub cache and return it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    return tmp_path


def refuse(*_: Any, **__: Any) -> None:
    raise ConnectionError("no route")


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


class Answer(Exception):
    """An error of an HTTP library."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.response = Mock(status_code=status)


def refusal(status: int) -> Any:
    return Mock(status_code=status, headers={})


NO_DOWNLOAD = [
    # what the hub does, and what is said
    (ConnectionError("no route"), "the Hugging Face hub did not answer"),
    (Answer(500), "the Hugging Face hub did not answer"),
    (Answer(401), "refuses the token of this machine"),
    (Answer(403), "does not let this machine have them"),
    (Answer(429), "has been asked too often from here"),
    (GatedRepoError("gated", response=refusal(403)), "does not let this machine have them"),
    (GatedRepoError("gated", response=refusal(401)), "does not let this machine have them"),
    (RepositoryNotFoundError("none", response=refusal(404)), "does not have them"),
    (Answer(404), "does not have them"),  # of a file
    (PermissionError(errno.EACCES, "Permission denied"), "HF_HOME"),
    (OSError(errno.EROFS, "Read-only file system"), "the folder for downloads cannot be written"),
]


@pytest.mark.parametrize(("error", "why"), NO_DOWNLOAD)
def test_why_full_weights_cannot_be_had(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", Mock(side_effect=error))
    with pytest.raises(ValueError, match=f"cannot be downloaded: .*{why}"):
        Weights("full").locate(REPO, FILES, "grounding_dino", _quiet)
    assert why in Weights("auto").locate(REPO, FILES, "grounding_dino", _quiet).why


@pytest.mark.parametrize(
    ("mode", "offline", "variable", "why"),
    [
        ("demo", False, False, "--weights demo"),
        ("auto", True, False, "the app runs offline"),
        ("auto", False, True, "HF_HUB_OFFLINE is set"),
    ],
)
def test_why_the_hub_is_not_asked(
    cache: Path, monkeypatch: pytest.MonkeyPatch, mode: str, offline: bool, variable: bool, why: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", variable)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("asked"))
    assert why in Weights(mode, offline).locate(REPO, FILES, "grounding_dino", _quiet).why
    if mode == "auto":
        assert "Offline" in Weights(mode, offline).describe()
        with pytest.raises(ValueError, match=why):
            Weights("full", offline).locate(REPO, FILES, "grounding_dino", _quiet)


def test_a_cache_that_may_lack_files_is_taken_where_there_is_no_hub(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Mock(side_effect=ConnectionError("no route"))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", hub)
    _fill(cache, REPO, DEMO_ROOT / "grounding_dino", FILES)
    weights = Weights("auto")
    for _ in range(3):
        assert not weights.locate(REPO, FILES, "grounding_dino", _quiet).demo
    assert hub.call_count == 1, "not before every answer"


def test_a_cache_that_may_not_be_read_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denied = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr("huggingface_hub.snapshot_download", Mock(side_effect=denied))
    assert Weights("auto", offline=True).locate(REPO, FILES, "grounding_dino", _quiet).demo


@pytest.mark.parametrize(
    ("error", "others_are_asked_for"),
    [
        (ConnectionError("no route"), False),
        (Answer(503), False),
        (Answer(403), True),
        (GatedRepoError("gated", response=refusal(401)), True),  # somebody has to sign first
        (RepositoryNotFoundError("none", response=refusal(401)), True),
    ],
)
def test_whose_weights_a_failure_keeps_away(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, others_are_asked_for: bool
) -> None:
    hub = Mock(side_effect=error)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", hub)
    weights = Weights("auto")
    for repo in ("a/b", "a/b", "c/d"):
        assert weights.locate(repo, FILES, "grounding_dino", _quiet).demo
    assert [call.args[0] for call in hub.call_args_list] == ["a/b", "c/d"][
        : 1 + others_are_asked_for
    ]


@pytest.mark.parametrize(
    ("folder", "offline", "words"),
    [
        ("assets/demo/clipseg", True, "Get the folder assets/demo anew."),
        ("mine/a/b", True, "Put the files of a/b into the weights folder anew."),
        ("models--a--b/snapshots/1f", False, "Delete their folder .* and try again, so"),
        (
            "models--a--b/snapshots/1f",
            True,
            "Delete .* start the app once where it may ask the hub",
        ),
    ],
)
def test_what_to_do_about_damaged_weights(
    cache: Path, folder: str, offline: bool, words: str
) -> None:
    source = Source(BUNDLED if "demo" in folder else "a/b", Path(folder))
    assert re.match(words, Weights("auto", offline).remedy(source))
    # Without the rest of it, the hub's client would take the same bytes again.
    assert source.home == Path(folder.removesuffix("/snapshots/1f"))


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
    demo = weights.locate(REPO, FILES, "grounding_dino", _quiet)  # nothing in it yet
    assert demo.demo and demo.why.endswith(f"; the weights folder has no {REPO}/{FILES[-1]}")
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

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
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
    hub = Mock(side_effect=ConnectionError("no route"))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", hub)
    weights = Weights("auto")
    sources = [weights.locate(REPO, FILES, "grounding_dino", _quiet) for _ in range(3)]
    assert hub.call_count == 1
    assert {source.why for source in sources} == {"the Hugging Face hub did not answer"}


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="weights is 'tiny'; choose one of auto, full, demo"):
        Weights("tiny")


@pytest.mark.parametrize(
    ("mode", "offline", "words"),
    [
        ("demo", False, "Bundled demo weights"),
        ("full", False, "Public weights"),
        ("auto", True, "Offline"),
        ("auto", False, "downloaded at first use"),
    ],
)
def test_describe(monkeypatch: pytest.MonkeyPatch, mode: str, offline: bool, words: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert words in Weights(mode, offline).describe()


def test_download_reports_bytes() -> None:
    """Those that are on the disk; the hub's client counts those that come over the network, too."""
    seen: list[tuple[float, str]] = []
    stopping = Event()
    bar = reporting_bar(lambda share, text: seen.append((share, text)), "a/b", stopping)
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
    stopping.set()
    with bar(**looks) as shown, pytest.raises(InterruptedError):
        shown.update(1)


def test_a_stop_ends_downloads_of_the_other_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.utils._xet as xet

    monkeypatch.setattr(xet, "abort_xet_session", stopped := Mock())
    Weights().stop()
    stopped.assert_called_once_with()


def test_a_repository_without_the_weights_themselves(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grounding.hub.Downloads.fetch", lambda *_: cache)
    source = Weights("auto").locate(REPO, FILES, "grounding_dino", _quiet)
    assert source.demo and source.why == "the Hugging Face hub does not have them"


def test_a_download_that_is_stopped_is_no_failure_of_the_hub(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(downloads: Downloads, *_: Any) -> None:
        downloads.stopping.set()
        raise RuntimeError("stopped")

    monkeypatch.setattr("grounding.hub.Downloads.fetch", stop)
    with pytest.raises(RuntimeError, match="stopped"):
        Weights("auto").locate(REPO, FILES, "grounding_dino", _quiet)
