"""The weights' way from a hub that is slow, broken or lying; it is a server on this machine."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from PIL import Image

from grounding import weights
from grounding.events import _report
from grounding.grounders import GROUNDERS
from grounding.store import ModelStore
from grounding.weights import DEMO_ROOT, Source, Weights

NAME = "CLIPSeg"
REPO, FILES = GROUNDERS[NAME].repo, GROUNDERS[NAME].files
COMMIT = "0" * 40
WEIGHTS = "model.safetensors"


class Hub(http.server.ThreadingHTTPServer):
    """Serve the bundled demo weights as the hub serves its own; a test says what goes wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        folder = DEMO_ROOT / GROUNDERS[NAME].module
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.requests = 0
        self.dripping = threading.Event()
        self.fault: Callable[[Handler], bool] = lambda _: False

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that is cut is what these tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.requests += 1
        if not self.server.fault(self):
            self.answer()

    do_HEAD = do_GET

    def answer(self) -> None:
        if self.path.startswith(f"/api/models/{REPO}/tree/"):
            rows = self.server.files.items()
            self.send([{"type": "file", "path": n, "size": len(c), "oid": n} for n, c in rows])
        elif self.path.startswith(f"/api/models/{REPO}"):
            self.send({"id": REPO, "sha": COMMIT, "siblings": []})
        else:
            name = self.path.rpartition("/")[2]
            self.send_file(name, self.server.files[name])

    def send(self, value: object) -> None:
        self.send_file("json", json.dumps(value).encode())

    def send_file(self, name: str, content: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{name}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def is_for(self, name: str) -> bool:
        return self.command == "GET" and self.path.endswith(name)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    constants = "huggingface_hub.constants."
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(f"{constants}ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(f"{constants}HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(f"{constants}HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(f"{constants}HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{constants}HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr("grounding.hub.ANSWER_SECONDS", 0.5)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()  # one of before would not know of NO_PROXY
    yield server
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()
    thread.join()


def locate(mode: str = "auto", offline: bool = False) -> Source:
    return Weights(mode, offline).locate(REPO, FILES, "clipseg", lambda *_: None)


def test_a_download_is_whole_and_kept(hub: Hub) -> None:
    source = locate()
    assert not source.demo and source.name == REPO
    assert (source.folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    asked = hub.requests
    assert locate() == source and hub.requests == asked, "the hub is not asked again"


def fail(handler: Handler) -> bool:
    handler.send_error(503)
    return True


def talk_rubbish(handler: Handler) -> bool:
    handler.send_file("rubbish", b"<html>Please log in to this network</html>")
    return True


def say_nothing(handler: Handler) -> bool:
    return handler.connection.recv(1) == b""  # until the client hangs up


def say_nothing_of_revisions(handler: Handler) -> bool:
    return "/revision/" in handler.path and say_nothing(handler)


def say_nothing_of_files(handler: Handler) -> bool:
    return "/tree/" in handler.path and say_nothing(handler)


def ask_for_patience(handler: Handler) -> bool:
    if "/tree/" not in handler.path:
        return False
    handler.send_response(429)
    handler.send_header("Retry-After", "600")
    handler.end_headers()
    return True


def hang_up(handler: Handler) -> bool:
    handler.connection.close()
    return True


def cut(handler: Handler) -> bool:
    if not handler.is_for(WEIGHTS):
        return False
    content = handler.server.files[WEIGHTS]
    handler.send_file(WEIGHTS, content[:1000], len(content))
    handler.connection.close()
    return True


def stall(handler: Handler) -> bool:
    if not handler.is_for(WEIGHTS):
        return False
    handler.send_file(WEIGHTS, b"some bytes", 10**6)
    return say_nothing(handler)


def lose_the_weights(handler: Handler) -> bool:
    if handler.path.endswith(WEIGHTS):
        handler.send_error(404)
    return handler.path.endswith(WEIGHTS)


FAULTS = [
    fail,
    talk_rubbish,
    say_nothing,
    say_nothing_of_revisions,
    say_nothing_of_files,
    ask_for_patience,
    hang_up,
    cut,
    stall,
    lose_the_weights,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_in_trouble(hub: Hub, fault: Callable[[Handler], bool]) -> None:
    """In time the bundled weights answer, and once the hub is well again, its own."""
    hub.fault = fault
    began = time.monotonic()
    assert locate().demo
    assert time.monotonic() - began < 20
    with pytest.raises(ValueError, match="cannot be downloaded: the Hugging Face hub"):
        locate("full")
    assert locate(offline=True).demo, "what has come so far is not taken for the whole"
    hub.fault = lambda _: False
    assert (locate("full").folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_repository_that_is_not_there_does_not_speak_for_others(hub: Hub) -> None:
    def know_nothing(handler: Handler) -> bool:
        missing = "nobody" in handler.path
        if missing:
            handler.send_response(404)
            handler.send_header("X-Error-Code", "RepoNotFound")
            handler.end_headers()
        return missing

    hub.fault, weights = know_nothing, Weights("auto")
    assert weights.locate("nobody/nothing", FILES, "clipseg", lambda *_: None).demo
    assert not weights.locate(REPO, FILES, "clipseg", lambda *_: None).demo


def test_a_hub_that_goes_away_after_half_a_download(hub: Hub) -> None:
    hub.fault = cut
    assert locate().demo
    hub.fault = hang_up
    assert locate().demo, "the folder of before has no weights in it"


def test_wrong_bytes_of_the_right_length(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    right = hub.files[WEIGHTS]
    hub.files[WEIGHTS] = bytes(len(right))
    store = ModelStore(Weights("full"), "cpu")
    source = locate("full")
    with pytest.raises(ValueError, match=r"incomplete\. Delete their folder"):
        store._load("grounder", NAME, source)
    hub.files[WEIGHTS] = right
    shutil.rmtree(source.home)  # which the console has named
    assert str(source.home) in capsys.readouterr().out
    store._load("grounder", NAME, locate("full"))


def fill_as_another_program(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out a cache with the weights alone, without the list of all files that there are.

    Returns:
        Where the hub's client would keep that list.
    """
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    locate()
    other = cache.with_name("other")  # of which the client knows nothing yet
    ignored = shutil.ignore_patterns("trees", "tokenizer.json", ".locks")
    shutil.copytree(cache, other, ignore=ignored, symlinks=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(other))
    return other / f"models--{REPO.replace('/', '--')}" / "trees"


def has_words(source: Source) -> bool:
    assert not source.demo
    return (source.folder / "tokenizer.json").exists()


def test_what_is_missing_in_the_cache_is_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_as_another_program(monkeypatch)
    assert not has_words(locate(offline=True))
    assert has_words(locate())
    asked = hub.requests
    assert has_words(locate()) and hub.requests == asked, "now it is known to be whole"


def test_the_cache_is_completed_after_another_repositorys_failure(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_as_another_program(monkeypatch)
    mine, hub.fault = Weights(), fail
    assert mine.locate("a/b", FILES, "clipseg", lambda *_: None).demo
    hub.fault = lambda _: False
    find = partial(mine.locate, REPO, FILES, "clipseg", lambda *_: None)
    assert not has_words(find()), "nobody is asked for a minute"
    monkeypatch.setattr(weights, "RETRY_SECONDS", 0.0)
    assert has_words(find())


def test_the_cache_is_completed_after_its_own_failure(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_as_another_program(monkeypatch)
    mine, hub.fault = Weights(), fail
    find = partial(mine.locate, REPO, FILES, "clipseg", lambda *_: None)
    assert not has_words(find())
    hub.fault = lambda _: False
    assert not has_words(find()), "nobody is asked for a minute"
    monkeypatch.setattr(weights, "RETRY_SECONDS", 0.0)
    assert has_words(find())


def test_a_cache_that_cannot_be_listed_is_asked_for_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_as_another_program(monkeypatch).touch()  # a file in the place of the folder
    mine, asked = Weights(), []
    monkeypatch.setattr("grounding.hub.is_listed", lambda _: False)  # as in another process
    for _ in range(3):
        assert has_words(mine.locate(REPO, FILES, "clipseg", lambda *_: None))
        asked.append(hub.requests)
    assert asked[1:] == asked[:-1]


def test_progress_is_told_in_the_context_of_who_waits(hub: Hub) -> None:
    """The hub's client reports from threads of its own, where Gradio does not know whom to tell."""
    visitor: ContextVar[str] = ContextVar("visitor", default="nobody")
    told: list[tuple[str, str]] = []

    def progress(_share: float, desc: str) -> None:
        told.append((visitor.get(), desc))

    visitor.set("me")
    Weights().locate(REPO, FILES, "clipseg", _report(progress))
    assert {who for who, _ in told} == {"me"}
    assert any("Downloading" in text for _, text in told)


def begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client begin anew, as it does when a line is lost, also of another download."""
    told = huggingface_hub.HfApi.repo_info

    def lose_the_line(*asked: Any, **more: Any) -> Any:
        answer = told(*asked, **more)
        huggingface_hub.close_session()
        return answer

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lose_the_line)


def test_a_client_that_begins_anew_does_not_wait_either(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_anew(monkeypatch)
    hub.fault = say_nothing_of_files
    began = time.monotonic()
    assert locate().demo and time.monotonic() - began < 20


def drip(handler: Handler) -> bool:
    """Send the weights for minutes."""
    if not handler.is_for(WEIGHTS):
        return False
    handler.server.dripping.set()
    content = handler.server.files[WEIGHTS]
    handler.send_file(WEIGHTS, b"", len(content))
    for start in range(0, len(content), 1000):
        handler.wfile.write(content[start : start + 1000])
        threading.Event().wait(0.05)  # time.sleep is away
    return True


def test_a_download_that_is_stopped(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.fault, weights = drip, Weights()
    threading.Thread(target=lambda: (hub.dripping.wait(60), weights.stop())).start()
    with pytest.raises(InterruptedError):
        weights.locate(REPO, FILES, "clipseg", lambda *_: None)
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    assert not list(cache.rglob("*.incomplete")), "nothing of it is left"


def test_a_stop_does_not_call_a_silent_hub_again(hub: Hub) -> None:
    """Left alone, the client would do so five times."""
    calls = []

    def fault(handler: Handler) -> bool:
        if handler.is_for(WEIGHTS):
            calls.append(handler.path)
            hub.dripping.set()
        return stall(handler)

    hub.fault, weights = fault, Weights()
    threading.Thread(target=lambda: (hub.dripping.wait(60), weights.stop())).start()
    with pytest.raises(InterruptedError):
        weights.locate(REPO, FILES, "clipseg", lambda *_: None)
    assert len(calls) == 1


def test_ctrl_c_ends_a_download(hub: Hub, tmp_path: Path) -> None:
    code = """if True:
        import runpy, signal
        import huggingface_hub.constants
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
        huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1000  # as often as of a large file
        runpy.run_module("grounding", run_name="__main__")
    """
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    asked = [str(tmp_path / "a.png"), "--prompt", "a dog", "--grounder", NAME]
    command = [sys.executable, "-c", code, *asked, "--out", str(tmp_path / "out")]
    where = {"HF_ENDPOINT": huggingface_hub.constants.ENDPOINT, "HF_HOME": str(tmp_path)}
    hub.fault = drip
    log = tmp_path / "log.txt"
    with (
        log.open("w") as said,
        subprocess.Popen(
            command,
            cwd=DEMO_ROOT.parents[1],
            env=os.environ | where | {"HF_HUB_OFFLINE": "0"},
            stdout=said,
            stderr=said,
        ) as process,
    ):
        try:
            assert hub.dripping.wait(60)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
    text = log.read_text()
    assert "Stopped. The same command goes on from here." in text and "Traceback" not in text
