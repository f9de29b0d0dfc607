"""Download one small file from the public internet, and from nowhere else.

A server that opens addresses for strangers must not become their way into its own network
(server-side request forgery, CWE-918). So: a name is resolved once, every address it has must be
public, and the connection goes to an address that was checked, not to the name, which could
resolve to something else a moment later (DNS rebinding). Redirects start again from the top.
"""

import concurrent.futures
import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from PIL import Image

from common.images import HTML, MAX_BYTES, decode_image, kind_of

MAX_URL = 2048
MAX_REDIRECTS = 5
MAX_SECONDS = 15.0  # for everything together: names, connections, redirects, download
CONNECT_SECONDS = 5.0  # for one of several addresses of a server, before the next is tried
PORTS = frozenset({80, 443})
USER_AGENT = "text-segmentation-demo/1.0 (fetches one picture for one person)"

Resolve = Callable[[str], list[str]]
Allow = Callable[[str], bool]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]\\"  # those that need no percent-encoding
_FRAMING = 1024 * 1024  # bytes that headers and chunk sizes may take on top of the file
_SAVE_AND_UPLOAD = "Save the picture on your device and upload it instead."

# All that IANA has given out for the public use of IPv6 lies here (RFC 4291; IANA "IPv6 Global
# Unicast Address Assignments"). Outside are loopback, unique local, link-local and multicast, and
# IPv4 addresses in disguise: mapped ::ffff:0:0/96, compatible ::/96, NAT64 64:ff9b::/96, :1::/48.
_IPV6_PUBLIC = ipaddress.ip_network("2000::/3")
# Not public, though `is_global` of some Python version lets them through.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "100.64.0.0/10",  # carrier-grade NAT (RFC 6598); Alibaba's metadata service
        "168.63.129.16/32",  # Azure's host service
        "169.254.0.0/16",  # link-local (RFC 3927); metadata service of most clouds
        "192.0.0.0/24",  # IETF protocol assignments (RFC 6890); Oracle's metadata service
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "198.18.0.0/15",  # benchmarks (RFC 2544)
        "224.0.0.0/4",  # multicast (RFC 5771)
        "2001::/23",  # IETF protocol assignments (RFC 2928), Teredo's IPv4 in disguise
        "2002::/16",  # 6to4: IPv4 in disguise (RFC 3056)
        "3fff::/20",  # documentation (RFC 9637)
    )
)
_STATUS = {
    401: f"The server does not let programs download this picture. {_SAVE_AND_UPLOAD}",
    403: f"The server does not let programs download this picture. {_SAVE_AND_UPLOAD}",
    404: "There is no picture at this address: the server does not find it.",
    410: "There is no picture at this address any more.",
    429: f"The server gets too many requests and does not answer this one. {_SAVE_AND_UPLOAD}",
}


class FetchError(ValueError):
    """A download that was refused or that failed; its text is a sentence for the user."""


class _Target(NamedTuple):
    scheme: str
    host: str  # ASCII, lower case, IPv6 without brackets
    port: int
    path: str  # percent-encoded, with the query

    @property
    def host_and_port(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def resolve_host(host: str) -> list[str]:
    """List the addresses of a host name; an address in any spelling gives itself.

    Raises:
        socket.gaierror: if there are none.
    """
    return [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the public internet.

    >>> is_public("1.1.1.1"), is_public("169.254.169.254"), is_public("::ffff:1.1.1.1")
    (True, False, False)
    """
    ip = ipaddress.ip_address(address)
    if ip.version == 6 and ip not in _IPV6_PUBLIC:
        return False
    return ip.is_global and not any(ip in network for network in _NOT_PUBLIC)


def fetch_bytes(
    url: str,
    max_bytes: int,
    *,
    ports: frozenset[int] = PORTS,
    resolve: Resolve = resolve_host,
    allow: Allow = is_public,
) -> bytes:
    """Download a file by http or https within `MAX_SECONDS`, not honouring proxy variables.

    Args:
        url: address as a person pastes it, at most `MAX_URL` characters.
        max_bytes: largest size of the file in bytes.
        ports: the ports that may be connected to.
        resolve: host name -> addresses; called once for each request, also after a redirect.
        allow: address -> whether it may be connected to; one refusal refuses the host.

    Raises:
        FetchError: with a sentence for the user, free of answers and addresses of servers.
    """
    deadline = time.monotonic() + MAX_SECONDS
    with _plain_words():
        for _ in range(MAX_REDIRECTS + 1):
            target = _parse(url, ports)
            addresses = _checked_addresses(target.host, resolve, allow, deadline)
            with (
                _connect(target, addresses, deadline) as connection,
                _request(target, _Wire(connection, deadline, max_bytes)) as response,
            ):
                response.begin()
                if response.status not in (301, 302, 303, 307, 308):
                    return _body(response, max_bytes)
                url = _redirected(target, response.getheader("Location"))
        raise FetchError(f"This address redirects more than {MAX_REDIRECTS} times.")


def fetch_image(
    url: str,
    *,
    ports: frozenset[int] = PORTS,
    resolve: Resolve = resolve_host,
    allow: Allow = is_public,
) -> Image.Image:
    """Fetch a picture from the public internet; `fetch_bytes` has the rules and arguments.

    Raises:
        ValueError: with a sentence for the user.
    """
    data = fetch_bytes(url, MAX_BYTES, ports=ports, resolve=resolve, allow=allow)
    if kind_of(data) == HTML:
        raise FetchError(
            "This address is a web page, not a picture. "
            "Right-click the picture on that page and copy its image address."
        )
    return decode_image(data)


@contextmanager
def _plain_words() -> Iterator[None]:
    """Turn every error of the network into a `FetchError`."""
    try:
        yield
    except FetchError:
        raise
    except TimeoutError as error:
        raise FetchError(
            f"The server does not answer or takes too long. {_SAVE_AND_UPLOAD}"
        ) from error
    except socket.gaierror as error:
        raise FetchError("There is no server with this name. Is the address right?") from error
    except ssl.SSLError as error:
        raise FetchError(
            f"The server offers no valid secure connection. {_SAVE_AND_UPLOAD}"
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise FetchError(
            f"The server cannot be reached or broke the connection. {_SAVE_AND_UPLOAD}"
        ) from error


def _parse(url: str, ports: frozenset[int]) -> _Target:
    url = url.strip()
    if len(url) > MAX_URL:
        raise FetchError(f"This address is longer than {MAX_URL} characters.")
    if not re.match("https?://", url, re.IGNORECASE):
        raise FetchError("The address of a picture must begin with http:// or https://.")
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError as error:
        raise FetchError("This is not a valid address.") from error
    # urlsplit drops tabs and newlines, and people and programs disagree about backslashes.
    if re.search(r"[\x00-\x1f\x7f\\]", url) or not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
        raise FetchError("This is not a valid address.")
    if "@" in parts.netloc:
        raise FetchError("An address with a user name or password is not allowed.")
    if port not in ports:
        raise FetchError("This address names a port of the server that is not allowed.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(parts.scheme, host, port, quote(path, safe=_URL_CHARACTERS))


def _checked_addresses(host: str, resolve: Resolve, allow: Allow, deadline: float) -> list[str]:
    # In a thread, because the system's resolver has no time limit that could be set.
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    try:
        addresses = pool.submit(resolve, host).result(_seconds_left(deadline))
    finally:
        pool.shutdown(wait=False)
    if not all(map(allow, addresses)):
        raise FetchError("This address leads to a private network, which is not allowed.")
    return addresses


def _connect(target: _Target, addresses: list[str], deadline: float) -> socket.socket:
    connection = _connect_to_any(addresses, target.port, deadline)
    if target.scheme == "http":
        return connection
    connection.settimeout(_seconds_left(deadline))
    # The connection goes to an address; the certificate must be the name's all the same.
    return ssl.create_default_context().wrap_socket(connection, server_hostname=target.host)


def _connect_to_any(addresses: list[str], port: int, deadline: float) -> socket.socket:
    failure = OSError("no address")
    for address in addresses:
        try:
            seconds = min(CONNECT_SECONDS, _seconds_left(deadline))
            return socket.create_connection((address, port), seconds)
        except OSError as error:
            failure = error
    raise failure


class _Wire(io.RawIOBase):
    """What a socket receives, until the deadline and up to a number of bytes.

    A timeout of the socket alone would start again with every byte of a server that drips; and
    a limit on the body alone would trust the lengths that the server declares.
    """

    def __init__(self, connection: socket.socket, deadline: float, max_bytes: int) -> None:
        self.connection = connection
        self.deadline = deadline
        self.max_bytes = max_bytes
        self.bytes_left = max_bytes + _FRAMING

    def makefile(self, mode: str) -> io.BufferedReader:
        """Be the one method of a socket that `http.client.HTTPResponse` uses."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self.connection.settimeout(_seconds_left(self.deadline))
        count = self.connection.recv_into(buffer)
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise _too_large(self.max_bytes)
        return count


def _request(target: _Target, wire: _Wire) -> http.client.HTTPResponse:
    """Ask for a file; return what reads the answer, which has not begun yet."""
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.host_and_port}",
        f"User-Agent: {USER_AGENT}",
        "Accept: image/*,*/*;q=0.5",
        "Accept-Encoding: identity",  # nothing to unpack, so no bomb to unpack
        "Connection: close",
    )
    wire.connection.settimeout(_seconds_left(wire.deadline))
    wire.connection.sendall("\r\n".join((*lines, "", "")).encode("ascii"))
    return http.client.HTTPResponse(wire)  # type: ignore[arg-type]


def _redirected(target: _Target, location: str | None) -> str:
    if not location:
        raise FetchError("This address redirects to nowhere.")
    # http.client decodes headers as Latin-1; quoted like this, its bytes are the server's again.
    location = quote(location, safe=_URL_CHARACTERS, encoding="latin-1")
    url = urljoin(f"{target.scheme}://{target.host_and_port}{target.path}", location)
    if target.scheme == "https" and urlsplit(url).scheme != "https":
        raise FetchError("This address redirects to one that is not secure.")
    return url


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if response.status >= 500:
        raise FetchError("The server has a problem of its own. Try again later.")
    if response.status != 200:
        raise FetchError(_STATUS.get(response.status, "The server did not answer with a picture."))
    if (response.getheader("Content-Encoding") or "identity").lower() != "identity":
        raise FetchError(f"The server sent the picture compressed. {_SAVE_AND_UPLOAD}")
    if (response.length or 0) > max_bytes:
        raise _too_large(max_bytes)
    body = response.read(max_bytes + 1)  # the declared length may be missing or a lie
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return body


def _too_large(max_bytes: int) -> FetchError:
    return FetchError(f"The file at this address is larger than {max_bytes // 2**20} MB.")


def _seconds_left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
