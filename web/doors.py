"""The doors that strangers may come in by: which requests the server takes, how large, how often.

Gradio's own server has doors that this app does not need (it fetches addresses for API clients and
for anybody who asks `/file=https://…`, keeps screen recordings and deep links), takes JSON of any
size, and knows no limit for one client.
"""

import ipaddress
import re
import shutil
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLOSED = re.compile(
    r"/gradio_api/"
    r"(file[=/]\s*https?:|proxy=|process_recording|deep_link|component_server|vibe|dev/)",
    re.IGNORECASE,
)
# What a page or a program listens to; each takes a connection and a task while it is open.
STREAM = re.compile(r"/gradio_api/(queue/data|heartbeat/|call/([^/]+/)+|mcp(/|$)|upload_progress)")
# What brings a request for the models, or for an answer without the queue.
ASKING = re.compile(r"/gradio_api/(queue/join|call/|mcp(/|$))")
MEGABYTE = 2**20
MAX_UPLOAD = 200 * MEGABYTE  # several files at once; Gradio itself limits each of them
MAX_BODY = MEGABYTE  # of anything else, all of which is short JSON
MIN_FREE = 1000 * MEGABYTE  # that uploads leave on the disk
SECONDS = 60.0
MAX_UPLOADED = 400 * MEGABYTE  # from one address within `SECONDS`
MAX_POSTS = 300  # from one address; a slider that is dragged sends several a second
MAX_WAITING = 8  # in the queue, from one address
MAX_STREAMS = 40  # open at once, to one address; a page has two or three
MAX_CLIENTS = 2_000  # addresses that are remembered, some 30 kB each at worst


class Refused(Exception):
    """A request that is not taken: HTTP status, and a sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Visits:
    """Remember how much each address asked for within the last minute.

    Only addresses of the public internet count. Behind any other may be everybody: a tunnel or a
    proxy that does not say for whom it speaks.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.amounts: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()

    def count(self, address: str, amount: int = 1) -> None:
        """Count what is asked for.

        Raises:
            Refused: If it is too much.
        """
        if not is_stranger(address):
            return
        now = time.monotonic()
        amounts = self.amounts.setdefault(address, deque())
        self.amounts.move_to_end(address)
        while amounts and now - amounts[0][0] > SECONDS:
            amounts.popleft()
        if sum(before for _, before in amounts) + amount > self.limit:
            raise Refused(429, "This is too much at once; please wait a minute.")
        amounts.append((now, amount))
        if len(self.amounts) > MAX_CLIENTS:
            self.amounts.popitem(last=False)


class Streams:
    """Know how much each address of the public internet has open right now."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()

    @contextmanager
    def listen(self, address: str) -> Iterator[None]:
        """Count a stream for as long as it is open.

        Raises:
            Refused: If it is one too many.
        """
        if not is_stranger(address):
            yield
            return
        if self.open[address] >= MAX_STREAMS:
            raise Refused(429, "You are listening to too much at once; please close some pages.")
        self.open[address] += 1
        try:
            yield
        finally:
            self.open[address] -= 1
            self.open += Counter()  # forgets those who listen to nothing


def is_stranger(address: str) -> bool:
    """Tell whether an address is one of the public internet.

    >>> is_stranger("1.1.1.1"), is_stranger("127.0.0.1"), is_stranger("testclient")
    (True, False, False)
    """
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


class Doors:
    """ASGI middleware that refuses what must not come in."""

    def __init__(self, app: ASGIApp) -> None:
        """Take the application inside."""
        self.app = app
        self.posts, self.uploads = Visits(MAX_POSTS), Visits(MAX_UPLOADED)
        self.streams, self.joining = Streams(), Streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it in."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
            with (
                self.streams.listen(_address(scope) if _is_stream(scope) else ""),
                self.joining.listen(_address(scope) if _is_asking(scope) else ""),
            ):
                await self.app(scope, _limited(receive, _max_bytes(scope)), send)
        except Refused as error:
            # The page shows the answer to an upload as it is.
            if _is_upload(scope):
                answer = PlainTextResponse(error.detail, error.status)
            else:
                answer = JSONResponse({"detail": error.detail}, error.status)
            await answer(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        if CLOSED.search(scope["path"]):
            raise Refused(403, "This is not offered here.")
        if scope["method"] != "POST":
            return
        size, limit = _declared_size(scope), _max_bytes(scope)
        if size > limit:
            raise _too_large(limit)
        address = _address(scope)
        self.posts.count(address)
        if _is_upload(scope):
            self.uploads.count(address, size)
            _check_room()
        elif _is_asking(scope):
            if "/mcp" in scope["path"]:  # a picture in a call of a tool becomes a file
                _check_room()
            _check_waiting(scope["app"], address, self.joining.open[address])


def _address(scope: Scope) -> str:
    return visitor((scope.get("client") or ("",))[0])


def visitor(address: str) -> str:
    """Return the address by which a visitor is known: of IPv6 the network, as all of it is theirs.

    >>> [visitor(a) for a in ("1.2.3.4", "::ffff:1.2.3.4", "2a01:4f8:1:2:3:4:5:6", "testclient")]
    ['1.2.3.4', '1.2.3.4', '2a01:4f8:1:2::', 'testclient']
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return address
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False)[0])


def _is_asking(scope: Scope) -> bool:
    return scope["method"] == "POST" and bool(ASKING.search(scope["path"]))


def _is_stream(scope: Scope) -> bool:
    return scope["method"] == "GET" and bool(STREAM.search(scope["path"]))


def _declared_size(scope: Scope) -> int:
    """Return the length of the body; without a word about it, the most that it may be."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else _max_bytes(scope)


def _is_upload(scope: Scope) -> bool:
    return scope["path"].rstrip("/").endswith("/gradio_api/upload")


def _max_bytes(scope: Scope) -> int:
    return MAX_UPLOAD if _is_upload(scope) else MAX_BODY


def _too_large(limit: int) -> Refused:
    return Refused(413, f"This is too large; at most {limit // MEGABYTE} MB are taken.")


def _limited(receive: Receive, limit: int) -> Receive:
    """Count what arrives, whatever length was declared."""
    left = limit

    async def take() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            refused = _too_large(limit)
            raise HTTPException(refused.status, refused.detail)
        return message

    return take


def _check_room() -> None:
    folder = Path(get_upload_folder())  # made with the first upload
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if shutil.disk_usage(there).free < MIN_FREE:
        raise Refused(507, "The server's disk is nearly full; please try again later.")


def _check_waiting(app: Any, address: str, joining: int) -> None:
    if not is_stranger(address):
        return
    queues = app.get_blocks()._queue.event_queue_per_concurrency_id.values()
    events = [event for queue in queues for event in queue.queue]
    waiting = sum(visitor(event.request.client.host) == address for event in events)
    if joining + waiting >= MAX_WAITING:
        raise Refused(429, "You have too many requests waiting; please wait for an answer.")
