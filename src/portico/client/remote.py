"""A server on another machine: where it is, and with which token it is asked."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from portico.model.errors import ConnectionError, InvalidError
from portico.wire.calls import RELAYED_HOST, RELAYED_PATH

if TYPE_CHECKING:
    import http.client

CONNECT_TIMEOUT: Final = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Remote:
    """url: "http://host:port" or "https://host", nothing behind it. token: "<id>.<secret>"; None: none was set."""

    url: str
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.url

    @property
    def parts(self) -> SplitResult:
        """Scheme, host and port."""
        return urlsplit(self.url)

    @property
    def host(self) -> str:
        """A name or an address, without the brackets of IPv6."""
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        """The given one, or the scheme's."""
        return self.parts.port or (443 if self.parts.scheme == "https" else 80)

    @property
    def headers(self) -> dict[str, str]:
        """What each request says of who asks."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}


def check_url(url: str, source: str) -> str:
    """The URL without a final "/", or InvalidError that names where it comes from."""
    text = url.rstrip("/")
    if not _is_origin(text):
        raise InvalidError(f"{source} is not a server's URL: {url!r}.", hint="For example http://192.0.2.1:7777")
    return text


def _is_origin(text: str) -> bool:
    """Whether it is scheme, host and perhaps port, and nothing else."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    again = f"{parts.scheme}://{parts.netloc}"
    plain = text.isascii() and text.isprintable() and " " not in text and "@" not in text
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and text == again and port != 0


def check_token(token_id: str | None, secret: str | None, source: str) -> str | None:
    """Both halves as one, None where neither is there; InvalidError for half a token, or what is none."""
    if not token_id and not secret:
        return None
    if not token_id or not secret:
        raise InvalidError(f"Half a token is set in {source}.", hint="A token has an id, ak-…, and a secret, as-….")
    if not token_id.startswith("ak-") or not secret.startswith("as-") or not f"{token_id}{secret}".isascii():
        raise InvalidError(
            f"What is set in {source} is no token of the control API.",
            hint="Its id begins with ak-, its secret with as-. (wk- and ws- are proxy tokens, for endpoints.)",
        )
    return f"{token_id}.{secret}"


def open_connection(remote: Remote, timeout: float) -> http.client.HTTPConnection:
    """A connection to it; ConnectionError where nobody answers there."""
    import http.client  # 15 ms that calls inside one machine need not pay

    connect = http.client.HTTPSConnection if remote.parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(remote.host, remote.port, timeout=CONNECT_TIMEOUT)
    try:
        connection.connect()
    except OSError as error:
        raise unreachable(remote, error) from None
    keep_alive(connection.sock)
    connection.sock.settimeout(timeout)
    return connection


def unreachable(remote: Remote, error: OSError) -> ConnectionError:
    """Nobody answers there, or nobody whose certificate is trusted."""
    untrusted = getattr(error, "verify_message", None)  # of ssl, which plain HTTP need not load
    if untrusted:
        return ConnectionError(
            f"The certificate of the server at {remote} is not trusted here: {untrusted}.",
            hint="SSL_CERT_FILE names a file with the certificates of an authority of your own.",
        )
    reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
    return ConnectionError(
        f"The server at {remote} cannot be reached: {reason}.",
        hint="Does it listen there (`portico up --listen 0.0.0.0:7777`), and does a firewall let you through?",
    )


def through(address: str | Remote, request: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """A request to the calls' socket at this address; to another machine, as the control API there passes it on.

    The first piece begins with the request's line and the line of its host.
    """
    if isinstance(address, Remote):
        line, host, rest = bytes(next(request)).split(b"\r\n", 2)
        method, target = line.split(b" ", 1)
        own = b"".join(b"\r\n%b: %b" % (name.encode(), value.encode()) for name, value in address.headers.items())
        yield b"%b %b%b\r\nhost: %b\r\n%b: %b%b\r\n%b" % (
            method,
            RELAYED_PATH,
            target,
            address.parts.netloc.encode(),
            RELAYED_HOST,
            host.removeprefix(b"host: "),
            own,
            rest,
        )
    yield from request


def keep_alive(sock: socket.socket) -> None:
    """Notice within two minutes that the other machine is gone, also where nothing is said."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def not_a_server(remote: Remote, response: http.client.HTTPResponse) -> ConnectionError:
    """The error for an answer that is none of the control API."""
    target = response.getheader("location")
    if target and 300 <= response.status < 400:
        return ConnectionError(
            f"The server at {remote} says that it is elsewhere: {target}", hint="Set that address as its URL."
        )
    return ConnectionError(
        f"What answers at {remote} is not Portico's control API (status {response.status}).",
        hint="A server answers it at its addresses, its machine's name and its own domain; "
        "and it speaks this version of it only.",
    )
