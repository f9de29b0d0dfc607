import contextlib
import gzip
import http.server
import io
import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from grounding import fetch
from grounding.fetch import FetchError, fetch_bytes, fetch_image, is_public

MEGABYTE = 2**20


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (255, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = png()


def refuse_to_resolve(host: str) -> list[str]:
    raise AssertionError(f"{host} must not be looked up")


def local(_: str) -> list[str]:
    """Every name is this machine."""
    return ["127.0.0.1"]


def is_local(address: str) -> bool:
    return address == "127.0.0.1"


# --- addresses -----------------------------------------------------------------------------------

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",  # carrier-grade NAT
    "100.100.100.200",  # Alibaba's metadata
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # Azure's host
    "169.254.169.254",  # metadata of AWS, Google, Azure
    "169.254.170.2",  # credentials of AWS containers
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",  # Oracle's metadata
    "192.0.2.1",  # documentation
    "192.88.99.1",  # 6to4 relay
    "192.168.0.1",
    "198.18.0.1",  # benchmarks
    "198.19.255.255",
    "198.51.100.1",  # documentation
    "203.0.113.1",  # documentation
    "224.0.0.1",  # multicast
    "239.255.255.250",
    "240.0.0.1",  # reserved
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # IPv4-compatible
    "::ffff:127.0.0.1",  # IPv4-mapped
    "::ffff:7f00:1",
    "::ffff:a9fe:a9fe",
    "::ffff:0:7f00:1",  # IPv4-translated
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",  # NAT64, local use
    "100::1",  # discard
    "2001::1",  # Teredo
    "2001:0:53aa:64c:0:0:80ff:fffe",  # Teredo of 127.0.0.1
    "2001:20::1",  # ORCHID
    "2001:db8::1",  # documentation
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "2002:a9fe:a9fe::1",
    "3fff::1",  # documentation
    "5f00::1",  # segment routing
    "fc00::1",  # unique local
    "fd00:ec2::254",  # metadata of AWS
    "fe80::1",  # link-local
    "fe80::1%1",
    "fec0::1",  # site-local
    "ff02::1",  # multicast
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "192.0.1.1"]
PUBLIC += ["198.20.0.1", "223.255.255.1", "2606:4700::1111", "2a00:1450:4001::1", "2001:4860::8888"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(FetchError, match="private network"):
        fetch_bytes("http://picture.test/a.png", MEGABYTE, resolve=lambda _: [address])


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", ["::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"])
def test_public_ipv4_in_disguise_is_refused_too(address: str) -> None:
    assert not is_public(address)


NOT_LEFT_TO_PYTHON = ["100.100.100.200", "168.63.129.16", "169.254.169.254", "192.0.0.192"]
NOT_LEFT_TO_PYTHON += ["192.88.99.1", "198.18.0.1", "224.0.0.1", "2001::1", "2002::1", "3fff::1"]


@pytest.mark.parametrize("address", NOT_LEFT_TO_PYTHON)
def test_the_list_does_not_lean_on_the_python_version(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipaddress.IPv4Address, "is_global", True)
    monkeypatch.setattr(ipaddress.IPv6Address, "is_global", True)
    assert not is_public(address)


SPELLINGS = [
    # what stands in the address; the system's own resolver reads it
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "0",
    "0.0.0.0",
    "2130706433",  # decimal
    "0x7f.1",  # hexadecimal
    "0x7f000001",
    "0X7F.0x0.0x0.0x1",
    "017700000001",  # octal
    "0177.0.0.01",
    "3232235777",  # 192.168.1.1
    "2852039166",  # 169.254.169.254
    "0xa9.0xfe.0xa9.0xfe",
    "①②⑦.⓪.⓪.①",  # folded to digits on the way to ASCII
    "１２７.0.0.1",
    "127。0。0。1",  # ideographic full stops
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::FFFF:7F00:1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "localhost",
    "LOCALHOST",
]


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.parametrize("scheme", ["http", "HTTPS"])
def test_private_addresses_are_refused_in_all_spellings(scheme: str, host: str) -> None:
    with pytest.raises(FetchError, match="private network"):
        fetch_bytes(f"{scheme}://{host}/a.png", MEGABYTE)


BY_NAME = [
    # what the resolver answers
    ["127.0.0.1"],
    ["1.1.1.1", "10.0.0.1"],  # one private address refuses them all
    ["10.0.0.1", "1.1.1.1"],
    ["2606:4700::1111", "1.1.1.1", "::1"],
]


@pytest.mark.parametrize("addresses", BY_NAME)
@pytest.mark.parametrize("host", ["localtest.me", "metadata.google.internal", "127.0.0.1.nip.io"])
def test_names_of_private_addresses_are_refused(host: str, addresses: list[str]) -> None:
    with pytest.raises(FetchError, match="private network") as caught:
        fetch_bytes(f"http://{host}/", MEGABYTE, resolve=lambda _: addresses)
    assert not any(address in str(caught.value) for address in addresses)


# --- the text of an address ----------------------------------------------------------------------

NO_SCHEME = "must begin with http:// or https://"
NOT_VALID = "not a valid address"
USER = "user name or password"
PORT = "port"
TEXTS = [
    # what is pasted, what the message says
    ("", NO_SCHEME),
    ("   ", NO_SCHEME),
    ("example.com/a.png", NO_SCHEME),
    ("//example.com/a.png", NO_SCHEME),
    ("/etc/passwd", NO_SCHEME),
    ("file:///etc/passwd", NO_SCHEME),
    ("ftp://example.com/a.png", NO_SCHEME),
    ("gopher://127.0.0.1:6379/_INFO", NO_SCHEME),
    ("javascript:alert(1)", NO_SCHEME),
    ("data:image/png;base64,iVBORw0KGgo=", NO_SCHEME),
    ("http:example.com", NO_SCHEME),
    ("http:/example.com", NO_SCHEME),
    (r"http:\\127.0.0.1", NO_SCHEME),
    ("http://", NOT_VALID),
    ("http:///a.png", NOT_VALID),
    ("http://?a", NOT_VALID),
    (r"http://example.com\@127.0.0.1/", NOT_VALID),
    (r"http://127.0.0.1\example.com/", NOT_VALID),
    (r"http://example.com/\..\a.png", NOT_VALID),
    ("http://exam ple.com/", NOT_VALID),
    ("http://exam\tple.com/", NOT_VALID),
    ("http://example.com/a\r\nHost: 127.0.0.1", NOT_VALID),
    ("http://example.com/\x00", NOT_VALID),
    ("http://example.com/\x7f", NOT_VALID),
    ("http://%31%32%37.0.0.1/", NOT_VALID),  # percent-encoded host
    ("http://exa%00mple.com/", NOT_VALID),
    ("http://example..com/", NOT_VALID),
    (f"http://{64 * 'a'}.com/", NOT_VALID),
    ("http://[::1/", NOT_VALID),
    ("http://::1]/", NOT_VALID),
    ("http://[fe80::1%25eth0]/", NOT_VALID),  # zone
    ("http://[example.com]/", NOT_VALID),
    ("http://example.com<script>/", NOT_VALID),
    ("http://ex℀mple.com/", NOT_VALID),  # folds to a slash
    ("http://example.com:65536/", NOT_VALID),
    ("http://example.com:-80/", NOT_VALID),
    ("http://example.com:http/", NOT_VALID),
    ("http://example.com:0/", PORT),
    ("http://example.com:22/", PORT),
    ("http://example.com:25/", PORT),
    ("http://example.com:6379/", PORT),
    ("http://example.com:7860/", PORT),
    ("http://user@example.com/", USER),
    ("http://user:pass@example.com/", USER),
    ("http://example.com@127.0.0.1/", USER),
    ("http://example.com:80@127.0.0.1/", USER),
    ("http://@127.0.0.1/", USER),
    (f"http://example.com/{2048 * 'a'}", "longer than 2048 characters"),
]


@pytest.mark.parametrize(("url", "said"), TEXTS)
def test_other_addresses_are_refused_without_looking_them_up(url: str, said: str) -> None:
    with pytest.raises(FetchError, match=said):
        fetch_bytes(url, MEGABYTE, resolve=refuse_to_resolve)


# --- a real server -------------------------------------------------------------------------------

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Server(http.server.ThreadingHTTPServer):
    """Answers each path by the function that a test puts there, and records the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.scheme = "http"

    def url(self, path: str = "/a.png", host: str = "picture.test") -> str:
        return f"{self.scheme}://{host}:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what many tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.answers.get(self.path, answer())(self)

    def log_message(self, *_: object) -> None:
        pass


def answer(body: bytes = PICTURE, status: int = 200, **headers: str) -> Answer:
    def send(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def raw(*parts: bytes, pause: float = 0) -> Answer:
    def send(handler: http.server.BaseHTTPRequestHandler) -> None:
        for part in parts:
            handler.wfile.write(part)
            time.sleep(pause)

    return send


def forever(start: bytes, again: bytes, pause: float = 0) -> Answer:
    """Send until the client hangs up."""

    def send(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        while True:
            handler.wfile.write(again)
            time.sleep(pause)

    return send


def redirect(location: str, status: int = 302) -> Answer:
    return answer(b"secret body", status, Location=location)


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as running:
        yield running


def get(server: Server, path: str = "/a.png", max_bytes: int = MEGABYTE) -> bytes:
    """Fetch from the local server, as if it were on the internet."""
    ports = frozenset({server.server_port})
    return fetch_bytes(server.url(path), max_bytes, ports=ports, resolve=local, allow=is_local)


def refusal(server: Server, path: str = "/a.png", max_bytes: int = MEGABYTE) -> str:
    with pytest.raises(FetchError) as caught:
        get(server, path, max_bytes)
    text = str(caught.value)
    for internal in ("127.0.0.1", "picture.test", str(server.server_port), "secret", "Error"):
        assert internal not in text
    return text


def get_image(server: Server) -> Image.Image:
    ports = frozenset({server.server_port})
    return fetch_image(server.url(), ports=ports, resolve=local, allow=is_local)


def test_a_picture_arrives(server: Server) -> None:
    image = get_image(server)
    assert image.size == (3, 2)
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_the_request_is_honest_and_plain(server: Server) -> None:
    get(server, "/a.png")
    [(_, headers)] = server.requests
    assert headers["Host"] == f"picture.test:{server.server_port}"
    assert headers["User-Agent"] == fetch.USER_AGENT
    assert "Mozilla" not in headers["User-Agent"]
    assert headers["Accept-Encoding"] == "identity"
    assert not {"Cookie", "Authorization", "Referer"} & set(headers)


PATHS = [
    # what is pasted after the host, what the server is asked for
    ("", "/"),
    ("/a.png", "/a.png"),
    ("/a.png#part", "/a.png"),
    ("?size=1&b=%20", "/?size=1&b=%20"),
    ("/gr\u00fcn bild.png", "/gr%C3%BCn%20bild.png"),
    ("/a%2Fb.png", "/a%2Fb.png"),
    ('/"<b>"', "/%22%3Cb%3E%22"),
    ("/a.png \n", "/a.png"),
]


@pytest.mark.parametrize(("pasted", "asked"), PATHS)
def test_paths_are_encoded_once(server: Server, pasted: str, asked: str) -> None:
    get(server, pasted)
    assert [path for path, _ in server.requests] == [asked]


def test_international_names_are_looked_up_in_ascii(server: Server) -> None:
    asked: list[str] = []

    def resolve(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    url = server.url(host="B\u00fccher.test")
    ports = frozenset({server.server_port})
    assert fetch_bytes(url, MEGABYTE, ports=ports, resolve=resolve, allow=is_local) == PICTURE
    assert asked == ["xn--bcher-kva.test"]


def test_the_checked_address_is_the_one_connected_to(server: Server) -> None:
    """A name that is rebound right after the check."""
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    ports = frozenset({server.server_port})
    url = server.url()
    data = fetch_bytes(url, MEGABYTE, ports=ports, resolve=lambda _: next(answers), allow=is_local)
    assert data == PICTURE
    assert next(answers) == ["127.0.0.2"]  # nobody asked again


def test_a_name_that_is_rebound_between_redirects_is_refused(server: Server) -> None:
    server.answers["/a.png"] = redirect("/b.png")
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    ports = frozenset({server.server_port})
    with pytest.raises(FetchError, match="private network"):
        fetch_bytes(
            server.url(), MEGABYTE, ports=ports, resolve=lambda _: next(answers), allow=is_local
        )
    assert len(server.requests) == 1


def test_the_next_address_is_tried(server: Server) -> None:
    ports = frozenset({server.server_port})
    data = fetch_bytes(
        server.url(),
        MEGABYTE,
        ports=ports,
        resolve=lambda _: ["127.0.0.3", "127.0.0.1"],  # nobody listens at the first
        allow=lambda address: address.startswith("127."),
    )
    assert data == PICTURE


def test_proxies_of_the_environment_are_not_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get(server) == PICTURE


# --- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: Server, status: int) -> None:
    server.answers["/a.png"] = redirect("b/c.png?d#e", status)
    assert get(server) == PICTURE
    assert [path for path, _ in server.requests] == ["/a.png", "/b/c.png?d"]


def test_redirects_may_hold_raw_utf8(server: Server) -> None:
    server.answers["/a.png"] = raw("HTTP/1.1 302 .\r\nLocation: /gr\u00fcn.png\r\n\r\n".encode())
    assert get(server) == PICTURE
    assert server.requests[-1][0] == "/gr%C3%BCn.png"


@pytest.mark.parametrize(("count", "arrives"), [(5, True), (6, False)])
def test_five_redirects_are_the_limit(server: Server, count: int, arrives: bool) -> None:
    for step in range(count):
        server.answers[f"/{step}"] = redirect(f"/{step + 1}")
    if arrives:
        assert get(server, "/0") == PICTURE
    else:
        assert "redirects more than 5 times" in refusal(server, "/0")
    assert len(server.requests) == 6


def test_a_loop_of_redirects_ends(server: Server) -> None:
    server.answers["/a.png"] = redirect("/a.png")
    assert "redirects more than 5 times" in refusal(server)


FORBIDDEN = [
    # where a redirect leads to, what the message says
    ("http://127.0.0.2/", PORT),
    ("http://127.0.0.2:{port}/", "private network"),
    ("//127.0.0.2:{port}/", "private network"),
    ("http://[::1]:{port}/", "private network"),
    ("http://2130706434:{port}/", "private network"),
    ("http://user:pass@127.0.0.1:{port}/", USER),
    ("http://127.0.0.1:22/", PORT),
    ("file:///etc/passwd", NO_SCHEME),
    ("ftp://127.0.0.1/", NO_SCHEME),
    ("data:image/png;base64,iVBORw0KGgo=", NO_SCHEME),
    (r"\\127.0.0.2\a", NOT_VALID),
    ("http://[::1", "cannot be reached"),
    (f"/{2048 * 'a'}", "longer than 2048 characters"),
    ("", "redirects to nowhere"),
]


@pytest.mark.parametrize(("location", "said"), FORBIDDEN)
def test_redirects_are_checked_like_the_first_address(
    server: Server, location: str, said: str
) -> None:
    server.answers["/a.png"] = redirect(location.format(port=server.server_port))

    def resolve(host: str) -> list[str]:
        return ["127.0.0.1"] if host == "picture.test" else fetch.resolve_host(host)

    ports = frozenset({server.server_port})
    with pytest.raises(FetchError, match=said):
        fetch_bytes(server.url(), MEGABYTE, ports=ports, resolve=resolve, allow=is_local)
    assert len(server.requests) == 1


def test_a_redirect_without_location_is_refused(server: Server) -> None:
    server.answers["/a.png"] = answer(b"", 302)
    assert "redirects to nowhere" in refusal(server)


# --- what servers answer -------------------------------------------------------------------------

STATUSES = [
    # status, what the message says
    (204, "did not answer with a picture"),
    (206, "did not answer with a picture"),
    (300, "did not answer with a picture"),
    (304, "did not answer with a picture"),
    (400, "did not answer with a picture"),
    (401, "does not let programs download"),
    (403, "does not let programs download this picture. Save the picture on your device"),
    (404, "does not find it"),
    (410, "any more"),
    (418, "did not answer with a picture"),
    (429, "too many requests"),
    (500, "problem of its own"),
    (503, "problem of its own"),
]


@pytest.mark.parametrize(("status", "said"), STATUSES)
def test_statuses_are_explained(server: Server, status: int, said: str) -> None:
    server.answers["/a.png"] = answer(b"" if status in (204, 304) else b"secret", status)
    assert said in refusal(server)


HTML = b"<!doctype html><meta http-equiv=refresh content='0;url=http://127.0.0.1/'>"


@pytest.mark.parametrize("content_type", ["text/html", "image/png"])
def test_a_web_page_is_named(server: Server, content_type: str) -> None:
    server.answers["/a.png"] = answer(HTML, Content_Type=content_type)
    with pytest.raises(ValueError, match="This address is a web page, not a picture"):
        get_image(server)


@pytest.mark.parametrize(
    ("body", "said"), [(b"{}", "a text file"), (b"%PDF-", "a PDF"), (b"", "an empty file")]
)
def test_other_files_are_named(server: Server, body: bytes, said: str) -> None:
    server.answers["/a.png"] = answer(body, Content_Type="image/png")
    with pytest.raises(ValueError, match=said):
        get_image(server)


@pytest.mark.parametrize("content_type", ["text/html", "image/jpeg", "nonsense"])
def test_the_content_type_does_not_matter(server: Server, content_type: str) -> None:
    server.answers["/a.png"] = answer(Content_Type=content_type)
    assert get_image(server).size == (3, 2)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip"])
def test_compressed_answers_are_refused(server: Server, encoding: str) -> None:
    bomb = gzip.compress(bytes(10 * MEGABYTE))
    server.answers["/a.png"] = answer(bomb, Content_Encoding=encoding)
    assert "sent the picture compressed" in refusal(server)


def test_identity_is_not_compression(server: Server) -> None:
    for value in ("Identity", ""):
        server.answers["/a.png"] = answer(Content_Encoding=value)
        assert get(server) == PICTURE


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ARRIVES = [
    # what, answer
    ("no length", raw(OK + b"\r\n" + PICTURE)),
    ("HTTP/1.0", raw(b"HTTP/1.0 200 OK\r\n\r\n" + PICTURE)),
    ("chunks", raw(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(PICTURE), PICTURE))),
    ("in pieces", raw(OK + b"\r\n", PICTURE[:9], PICTURE[9:], pause=0.01)),
    ("length too large", raw(OK + b"Content-Length: 99999\r\n\r\n" + PICTURE)),
    ("length of nonsense", raw(OK + b"Content-Length: many\r\n\r\n" + PICTURE)),
    ("length below zero", raw(OK + b"Content-Length: -1\r\n\r\n" + PICTURE)),
    ("continue first", raw(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\n" + PICTURE)),
]


@pytest.mark.parametrize("send", [row[1] for row in ARRIVES], ids=[row[0] for row in ARRIVES])
def test_bodies_of_all_kinds_arrive(server: Server, send: Answer) -> None:
    server.answers["/a.png"] = send
    assert get(server) == PICTURE


def test_a_length_too_small_is_a_cut_picture(server: Server) -> None:
    server.answers["/a.png"] = raw(OK + b"Content-Length: 20\r\n\r\n" + PICTURE)
    with pytest.raises(ValueError, match="cut off or damaged"):
        get_image(server)


BROKEN = [
    # what, answer
    ("nothing", raw()),
    ("not HTTP", raw(b"SSH-2.0-OpenSSH_9.6 secret\r\n")),
    ("half a status", raw(b"HTTP/1.1 2")),
    ("status of letters", raw(b"HTTP/1.1 two OK\r\n\r\n")),
    ("101 headers", raw(OK + 101 * b"A: secret\r\n" + b"\r\n")),
    ("endless header", raw(OK + b"A: " + 70_000 * b"a")),
    ("chunks of nonsense", raw(CHUNKED + b"secret\r\n\r\n")),
    ("chunk cut off", raw(CHUNKED + b"ff\r\nabc")),
    ("chunk of size -5", raw(CHUNKED + b"-5\r\nabc")),
]


@pytest.mark.parametrize("send", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_answers_are_refused(server: Server, send: Answer) -> None:
    server.answers["/a.png"] = send
    assert "cannot be reached or broke the connection" in refusal(server)


def reset(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(OK + b"Content-Length: 500\r\n\r\n" + PICTURE[:20])
    handler.wfile.flush()
    linger = b"\1\0\0\0\0\0\0\0"  # on, 0 seconds: closing sends a reset
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


def test_a_connection_reset_in_the_middle_is_refused(server: Server) -> None:
    server.answers["/a.png"] = reset
    assert "broke the connection" in refusal(server)


BLOCK = bytes(65536)
OVERSIZE = [
    # what, answer
    ("honest", answer(bytes(MEGABYTE + 1))),
    ("only the length is huge", raw(OK + b"Content-Length: 99999999999\r\n\r\n" + PICTURE)),
    ("no length", forever(OK + b"\r\n", BLOCK)),
    ("chunks", forever(CHUNKED, b"10000\r\n" + BLOCK + b"\r\n")),
    ("chunk of size -1", forever(CHUNKED + b"-1\r\n", BLOCK)),  # http.client reads to the end
]


@pytest.mark.parametrize("send", [row[1] for row in OVERSIZE], ids=[row[0] for row in OVERSIZE])
def test_bytes_are_counted_whatever_is_declared(server: Server, send: Answer) -> None:
    server.answers["/a.png"] = send
    assert refusal(server) == "The file at this address is larger than 1 MB."


def test_bytes_around_the_file_are_counted_too(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_FRAMING", 1000)
    server.answers["/a.png"] = forever(OK, b"A: " + 60_000 * b"a" + b"\r\n")
    assert "larger than" in refusal(server, max_bytes=1000)


def test_the_limit_of_bytes_is_exact(server: Server) -> None:
    assert get(server, max_bytes=len(PICTURE)) == PICTURE
    assert "larger than" in refusal(server, max_bytes=len(PICTURE) - 1)


# --- time ----------------------------------------------------------------------------------------

SLOW = [
    # what, answer
    ("silence", raw(b"", pause=2)),
    ("dripping status", forever(b"HTTP/1.1 200 ", b"O", pause=0.05)),
    ("dripping headers", forever(OK + b"A: ", b"a", pause=0.05)),
    ("dripping body", forever(OK + b"\r\n", b"a", pause=0.05)),
    ("dripping body of known length", forever(OK + b"Content-Length: 999\r\n\r\n", b"a", 0.05)),
    ("dripping chunks", forever(CHUNKED, b"1\r\na\r\n", pause=0.05)),
    ("endless continue", forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.05)),
    ("slow redirects", lambda handler: (time.sleep(0.2), redirect("/a.png")(handler))[1]),
]


@pytest.mark.parametrize("send", [row[1] for row in SLOW], ids=[row[0] for row in SLOW])
def test_the_deadline_is_for_everything_together(
    server: Server, monkeypatch: pytest.MonkeyPatch, send: Answer
) -> None:
    monkeypatch.setattr(fetch, "MAX_SECONDS", 0.3)
    server.answers["/a.png"] = send
    started = time.monotonic()
    assert "takes too long" in refusal(server)
    assert 0.25 < time.monotonic() - started < 10  # seconds; left alone, the deadline is 15


def test_a_slow_name_server_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_SECONDS", 0.3)
    answered = threading.Event()
    with pytest.raises(FetchError, match="takes too long"):
        fetch_bytes("http://picture.test/", MEGABYTE, resolve=lambda _: [str(answered.wait(5))])
    answered.set()


def test_a_server_that_does_not_accept_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue of one is full: a connection to it hangs as behind a firewall."""
    monkeypatch.setattr(fetch, "CONNECT_SECONDS", 0.2)
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        url = f"http://picture.test:{address[1]}/"
        started = time.monotonic()
        with pytest.raises(FetchError, match="takes too long"):
            fetch_bytes(url, MEGABYTE, ports=frozenset({address[1]}), resolve=local, allow=is_local)
        assert time.monotonic() - started < 10  # seconds; the deadline is 15


# --- no connection -------------------------------------------------------------------------------


def test_a_name_that_does_not_exist_is_said() -> None:
    def resolve(_: str) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(FetchError, match="no server with this name"):
        fetch_bytes("http://picture.test/", MEGABYTE, resolve=resolve)


def test_a_closed_port_is_said() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(FetchError, match="cannot be reached"):
            fetch_bytes(
                f"http://picture.test:{port}/",
                MEGABYTE,
                ports=frozenset({port}),
                resolve=local,
                allow=is_local,
            )


def test_a_name_without_addresses_is_said() -> None:
    with pytest.raises(FetchError, match="cannot be reached"):
        fetch_bytes("http://picture.test/", MEGABYTE, resolve=lambda _: [])


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate, signed by itself, for the name picture.test; with its key in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
    command += "-subj /CN=picture.test -addext subjectAltName=DNS:picture.test "
    command += f"-keyout {folder}/key.pem -out {folder}/certificate.pem"
    subprocess.run(command.split(), check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "certificate.pem").read_text() + (folder / "key.pem").read_text())
    return both


@pytest.fixture
def secure_server(certificate: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Server()
    server.scheme = "https"
    server.names = []
    context.sni_callback = lambda _socket, name, _context: server.names.append(name)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    with serving(server):
        yield server


def test_tls_checks_the_name_not_the_address(
    secure_server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get(secure_server) == PICTURE
    assert secure_server.names == ["picture.test"]


def test_a_certificate_for_another_name_is_refused(
    secure_server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    port = secure_server.server_port
    with pytest.raises(FetchError, match="no valid secure connection"):
        fetch_bytes(
            f"https://other.test:{port}/",
            MEGABYTE,
            ports=frozenset({port}),
            resolve=local,
            allow=is_local,
        )
    assert secure_server.requests == []


def test_a_certificate_that_nobody_vouches_for_is_refused(secure_server: Server) -> None:
    assert "no valid secure connection" in refusal(secure_server)
    assert secure_server.requests == []


def test_a_server_without_tls_is_refused(server: Server) -> None:
    server.scheme = "https"
    assert "no valid secure connection" in refusal(server)


@pytest.mark.parametrize("location", ["http://picture.test/a.png", "file:///etc/passwd"])
def test_redirects_to_an_insecure_address_are_refused(
    secure_server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    secure_server.answers["/a.png"] = redirect(location)
    assert "not secure" in refusal(secure_server)


def test_a_dripping_handshake_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(FetchError, match="takes too long"):
            fetch_bytes(
                f"https://picture.test:{port}/",
                MEGABYTE,
                ports=frozenset({port}),
                resolve=local,
                allow=is_local,
            )
        assert time.monotonic() - started < 10  # seconds; left alone, the deadline is 15
