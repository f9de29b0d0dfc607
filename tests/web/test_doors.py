"""Limits and closed doors, on a small application inside; tests/e2e asks the real server."""

import asyncio
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from common.images import MAX_BYTES
from tests.site import Site
from web import doors
from web.doors import (
    MAX_BODY,
    MAX_POSTS,
    MAX_STREAMS,
    MAX_WAITING,
    Doors,
    Refused,
    Visits,
)

STRANGER, HOUSEMATE = "1.1.1.1", "192.168.0.9"
UPLOAD, JOIN = "/gradio_api/upload", "/gradio_api/queue/join"


async def _read(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture
def waiting() -> list[Any]:
    return []


@pytest.fixture
def inside(waiting: list[Any]) -> Starlette:
    """An application that answers how many bytes came, and has a queue like Gradio's."""
    route = Route("/{path:path}", _read, methods=["GET", "POST"])
    app = Starlette(routes=[route], middleware=[Middleware(Doors)])
    queue = SimpleNamespace(event_queue_per_concurrency_id={"a": SimpleNamespace(queue=waiting)})
    app.get_blocks = lambda: SimpleNamespace(_queue=queue)  # type: ignore[attr-defined]
    return app


def come(app: Starlette, address: str = STRANGER) -> TestClient:
    return TestClient(app, client=(address, 1))


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=https://example.com/a.png",  # the server as a proxy
        "/gradio_api/file=http://169.254.169.254/",
        "/gradio_api/file=HTTPS://example.com",
        "/gradio_api/file=https%3A%2F%2Fexample.com",  # percent-encoded
        "/gradio_api/file/https://example.com",  # the old spelling
        "/gradio_api/file= http://example.com",
        "/under/a/path/gradio_api/file=https://example.com",
        "/gradio_api/proxy=https://example.com",
        "/gradio_api/process_recording",
        "/gradio_api/deep_link?session_hash=a",
        "/gradio_api/component_server",
        "/gradio_api/vibe-edit",
        "/gradio_api/dev/reload",  # a stream without end
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_closed_doors(inside: Starlette, path: str, method: str) -> None:
    answer = come(inside).request(method, path)
    assert answer.status_code == 403
    assert method == "HEAD" or answer.json() == {"detail": "This is not offered here."}


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/gradio_api/file=/tmp/gradio/a.png", "/gradio_api/heartbeat/a", "/theme.css"],
)
def test_open_doors(inside: Starlette, path: str) -> None:
    assert come(inside).get(path).status_code == 200


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        (UPLOAD, 3 * MAX_BODY, 200),
        (UPLOAD, 3 * MAX_BODY + 1, 413),
        (JOIN, MAX_BODY, 200),
        (JOIN, MAX_BODY + 1, 413),
        ("/anything", MAX_BODY + 1, 413),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_size_of_what_comes_in(
    inside: Starlette,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    size: int,
    status: int,
    declared: bool,
) -> None:
    monkeypatch.setattr(doors, "MAX_UPLOAD", 3 * MAX_BODY)
    half = bytes(size // 2)
    content = bytes(size) if declared else iter([half, bytes(size - len(half))])
    answer = come(inside).post(path, content=content)
    assert answer.status_code == status
    assert status == 200 or "at most" in answer.text


def test_a_length_that_lies_is_not_believed(inside: Starlette) -> None:
    headers = {"content-length": "10"}
    answer = come(inside).post(JOIN, content=iter([bytes(MAX_BODY), b"x"]), headers=headers)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("address", "limited"),
    [
        (STRANGER, True),
        ("2606:4700::1111", True),
        ("::ffff:1.2.3.4", True),  # as a server that listens to both kinds sees it
        (HOUSEMATE, False),  # may be a proxy for everybody
        ("127.0.0.1", False),
    ],
)
def test_rate(inside: Starlette, address: str, limited: bool) -> None:
    client = come(inside, address)
    codes = [client.post(JOIN).status_code for _ in range(MAX_POSTS + 1)]
    assert codes == [200] * MAX_POSTS + [429 if limited else 200]
    assert client.get("/").status_code == 200, "looking is free"
    assert come(inside, "8.8.8.8").post(JOIN).status_code == 200, "others are not concerned"


def test_bytes_that_are_uploaded_count(inside: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "MAX_UPLOADED", 1000)
    client = come(inside)
    assert client.post(UPLOAD, content=bytes(900)).status_code == 200
    assert client.post(UPLOAD, content=bytes(101)).status_code == 429
    assert client.post(UPLOAD, content=bytes(100)).status_code == 200
    assert client.post(UPLOAD, content=iter([b"a"])).status_code == 429  # as if it were the most


def test_a_minute_later_all_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(doors.time, "monotonic", lambda: now)
    visits = Visits(1)
    visits.count(STRANGER)
    with pytest.raises(Refused):
        visits.count(STRANGER)
    now = 161.0
    visits.count(STRANGER)


def test_each_visit_is_forgotten_after_its_own_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([100.0, 150.0, 161.0, 161.0])  # the first is gone when the third comes
    monkeypatch.setattr(doors.time, "monotonic", lambda: next(moments))
    visits = Visits(2)
    for _ in range(3):
        visits.count(STRANGER)
    with pytest.raises(Refused):
        visits.count(STRANGER)


def test_who_came_last_is_remembered_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "MAX_CLIENTS", 2)
    visits = Visits(5)
    for last in (1, 2, 1, 3):
        visits.count(f"1.1.1.{last}")
    assert list(visits.amounts) == ["1.1.1.1", "1.1.1.3"]


def test_the_memory_for_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "MAX_CLIENTS", 3)
    visits = Visits(1)
    for last in range(1, 10):
        visits.count(f"1.1.1.{last}")
    assert list(visits.amounts) == ["1.1.1.7", "1.1.1.8", "1.1.1.9"]


@pytest.mark.parametrize("path", [JOIN, "/gradio_api/call/segment", "/gradio_api/call/v2/segment"])
def test_one_address_cannot_fill_the_queue(
    inside: Starlette, waiting: list[Any], path: str
) -> None:
    request = SimpleNamespace(client=SimpleNamespace(host=STRANGER))
    waiting.extend([SimpleNamespace(request=request)] * MAX_WAITING)
    answer = come(inside).post(path)
    assert answer.status_code == 429 and "too many requests waiting" in answer.text
    assert come(inside, "8.8.8.8").post(path).status_code == 200
    waiting.pop()
    assert come(inside).post(path).status_code == 200


STREAMS = [
    "/gradio_api/mcp/",
    "/gradio_api/mcp/sse",
    "/gradio_api/upload_progress",
    "/gradio_api/queue/data",
    "/gradio_api/heartbeat/abc",
    "/gradio_api/call/segment/abc",
    "/gradio_api/call/v2/segment/abc",
    "/under/a/path/gradio_api/queue/data",
]


class Listeners:
    """Clients that listen to an application that never ends its answers."""

    def __init__(self) -> None:
        self.doors = Doors(self.answer_without_end)
        self.tasks: list[asyncio.Task[None]] = []

    async def answer_without_end(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    async def listen(self, path: str, address: str = STRANGER, method: str = "GET") -> int:
        """Return the status of one more listener, who stays."""
        status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                status.set_result(message["status"])

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        queue = SimpleNamespace(event_queue_per_concurrency_id={})
        app = SimpleNamespace(get_blocks=lambda: SimpleNamespace(_queue=queue))
        scope = {"type": "http", "method": method, "path": path, "headers": [], "app": app}
        call = self.doors(scope | {"client": (address, 1)}, receive, send)
        self.tasks.append(asyncio.create_task(call))
        return await status

    async def hang_up(self, count: int) -> None:
        for task in self.tasks[:count]:
            task.cancel()
        await asyncio.gather(*self.tasks[:count], return_exceptions=True)
        del self.tasks[:count]


@pytest.mark.parametrize(
    ("address", "last"),
    [
        (STRANGER, 429),
        ("2606:4700::1111", 429),
        (HOUSEMATE, 200),  # may be a proxy for everybody
    ],
)
def test_streams_of_one_address_are_limited(address: str, last: int) -> None:
    async def crowd() -> None:
        listeners = Listeners()
        paths = [*STREAMS * MAX_STREAMS][:MAX_STREAMS]
        assert {await listeners.listen(path, address) for path in paths} == {200}
        assert [await listeners.listen(path, address) for path in STREAMS] == [last] * len(STREAMS)
        assert await listeners.listen("/gradio_api/queue/data", "8.8.8.8") == 200
        assert await listeners.listen("/config", address) == 200, "no stream"
        await listeners.hang_up(len(listeners.tasks))
        assert not listeners.doors.streams.open
        assert await listeners.listen("/gradio_api/queue/data", address) == 200
        await listeners.hang_up(1)

    asyncio.run(crowd())


@pytest.mark.parametrize("path", [JOIN, "/gradio_api/call/segment", "/gradio_api/mcp/"])
def test_requests_that_come_at_once_count_before_they_are_in_the_queue(path: str) -> None:
    """They enter it only when their body has been read."""

    async def crowd() -> None:
        listeners = Listeners()
        codes = [await listeners.listen(path, method="POST") for _ in range(MAX_WAITING + 2)]
        assert codes == [200] * MAX_WAITING + [429] * 2
        assert await listeners.listen(path, "8.8.8.8", method="POST") == 200
        await listeners.hang_up(len(listeners.tasks))

    asyncio.run(crowd())


def test_all_addresses_of_a_network_are_one_visitor() -> None:
    async def crowd() -> None:
        listeners = Listeners()
        addresses = [f"2a01:4f8:1:2::{i:x}" for i in range(MAX_STREAMS + 1)]
        codes = [await listeners.listen("/gradio_api/queue/data", a) for a in addresses]
        assert codes == [200] * MAX_STREAMS + [429]
        assert await listeners.listen("/gradio_api/queue/data", "2a01:4f8:1:3::1") == 200
        await listeners.hang_up(len(listeners.tasks))

    asyncio.run(crowd())


def test_a_stream_that_ends_leaves_room_for_another() -> None:
    async def crowd() -> None:
        listeners = Listeners()
        for _ in range(MAX_STREAMS):
            await listeners.listen("/gradio_api/heartbeat/abc")
        await listeners.hang_up(1)
        statuses = [await listeners.listen("/gradio_api/heartbeat/abc") for _ in range(2)]
        assert statuses == [200, 429]
        await listeners.hang_up(len(listeners.tasks))

    asyncio.run(crowd())


def test_uploads_leave_room_on_the_disk(inside: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    answer = come(inside).post(UPLOAD)
    # The page shows this as it is.
    said = "The server's disk is nearly full; please try again later."
    assert (answer.status_code, answer.text) == (507, said)
    assert come(inside).post("/gradio_api/mcp/").status_code == 507, "it may bring a picture"
    assert come(inside).post(JOIN).status_code == 200


def test_who_hangs_up_frees_the_stream(site: Site) -> None:
    """On the real server, where an answer ends when its client is gone."""
    headers = {"x-forwarded-for": "1.0.0.9"}

    def listen() -> int:
        with site.client.stream("GET", "/gradio_api/heartbeat/abc", headers=headers) as answer:
            return answer.status_code

    assert {listen() for _ in range(MAX_STREAMS + 10)} <= {200, 429}  # some still being closed
    deadline = time.monotonic() + 60
    while listen() != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_client_that_is_refused_may_finish_its_sentence(site: Site) -> None:
    """Closed before, the connection would break while the body is still on its way."""
    url = site.client.base_url
    with socket.create_connection((url.host, url.port), timeout=60) as line:
        line.sendall(
            b"POST /gradio_api/component_server HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n"
        )
        for _ in range(4):
            time.sleep(0.1)
            line.sendall(b"abcde")
        assert line.recv(1000).startswith(b"HTTP/1.1 403")


def test_limits_count_by_who_is_behind_the_proxy(site: Site) -> None:
    """On the real server, which takes a proxy's word on this machine for who the client is."""

    def post(address: str, path: str = "/gradio_api/reset") -> int:
        body, headers = {"event_id": "a", "data": []}, {"x-forwarded-for": address}
        return site.client.post(path, json=body, headers=headers).status_code

    assert post("1.0.0.1", JOIN) in (400, 422)  # let in, and found to be without a session
    assert [post("1.0.0.1") for _ in range(MAX_POSTS)] == [200] * (MAX_POSTS - 1) + [429]
    assert post("1.0.0.2") == 200


def test_a_network_cannot_fill_the_queue(inside: Starlette, waiting: list[Any]) -> None:
    """A customer with IPv6 has more addresses than anybody can count."""
    for number in range(MAX_WAITING):
        client = SimpleNamespace(host=f"2a01:4f8:1:2::{number}")
        waiting.append(SimpleNamespace(request=SimpleNamespace(client=client)))
    assert come(inside, "2a01:4f8:1:2::99").post(JOIN).status_code == 429


def test_behind_a_carrier_may_be_everybody() -> None:
    assert not doors.is_stranger("100.64.0.1")


def test_there_is_room_for_what_the_page_takes() -> None:
    assert doors.MAX_UPLOAD >= 2 * MAX_BYTES and doors.MIN_FREE >= doors.MAX_UPLOAD


def test_the_first_upload_finds_no_folder(
    inside: Starlette, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "none" / "yet"))
    monkeypatch.setattr(doors, "MIN_FREE", 0)
    assert come(inside).post(UPLOAD).status_code == 200
