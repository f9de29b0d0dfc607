"""The weights' way from a hub that is slow, broken or lying; it is a server on this machine."""

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest

from grounding import weights
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
    monkeypatch.setattr(f"{constants}HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr(weights, "ANSWER_SECONDS", 0.5)
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


FAULTS = [fail, talk_rubbish, say_nothing, hang_up, cut, stall, lose_the_weights]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_in_trouble(hub: Hub, fault: Callable[[Handler], bool]) -> None:
    """In time the bundled weights answer, and once the hub is well again, its own."""
    hub.fault = fault
    began = time.monotonic()
    assert locate().demo
    assert time.monotonic() - began < 20
    with pytest.raises(ValueError, match="the Hugging Face hub did not answer"):
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


def test_wrong_bytes_of_the_right_length(hub: Hub) -> None:
    right = hub.files[WEIGHTS]
    hub.files[WEIGHTS] = bytes(len(right))
    with pytest.raises(ValueError, match="damaged or incomplete"):
        ModelStore(Weights("full"), "cpu").get(NAME, "SAM 2.1 tiny")
