"""What comes from the server in front that speaks HTTPS."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from portico.ingress.front import Front
from portico.ingress.head import RequestHead
from tests.unit.ingress.conftest import Client, House, answering

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
PLAIN = b"203.0.113.9 0 http"


def head(host: str, target: str = "/x?y=1") -> RequestHead:
    made = RequestHead()
    made.target = target.encode()
    made.header(b"host", host.encode())
    return made


async def visitor(house: House, folder: Path) -> Client:
    """A connection to the socket of the server in front."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(folder / "front.sock"))
    await house.ingress.listen(sock, front=Front(443, lambda _: True))
    return Client(*await asyncio.open_unix_connection(folder / "front.sock"))


@pytest.mark.parametrize(
    ("port", "host", "target", "there"),
    [
        (443, "app.test", "/x?y=1", b"https://app.test/x?y=1"),
        (8443, "App.test:8080", "/x", b"https://app.test:8443/x"),
        (443, "app.test", "*", b"https://app.test/"),
    ],
)
def test_a_plain_request_is_sent_to_https(port: int, host: str, target: str, there: bytes) -> None:
    """To the port where it is spoken, keeping method and body."""
    refusal = Front(port, lambda _: True).redirect(head(host, target), PLAIN)
    assert refusal is not None
    assert (refusal.status, refusal.lines) == (308, b"location: %b\r\n" % there)


def test_a_secure_request_is_where_it_belongs() -> None:
    """It is not sent anywhere."""
    assert Front(443, lambda _: True).redirect(head("app.test"), b"203.0.113.9 0 https") is None


def test_names_without_a_certificate_are_answered_as_they_are() -> None:
    """Until one can be had; and so are names for which HTTPS is not meant."""
    front = Front(443, lambda host: host != "127.0.0.1")
    front.set_failed("app.test", True)
    assert front.redirect(head("app.test"), PLAIN) is None
    assert front.redirect(head("other.test"), PLAIN) is not None
    assert front.redirect(head("127.0.0.1"), PLAIN) is None
    front.set_failed("app.test", False)
    assert front.redirect(head("app.test"), PLAIN) is not None


async def test_only_its_own_socket_is_believed(house: House, tmp_path: Path) -> None:
    """What it says reaches the container; the same words at the public door do not."""
    requests: list[bytes] = []
    await house.container(answering(OK, OK, requests=requests))
    words = b"GET / HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: 2a00::1\r\nX-Forwarded-Proto: https\r\n\r\n"
    for client in (await visitor(house, tmp_path), await house.connect()):
        await client.send(words)
        assert (await client.response())[1] == b"ok"
    seen = [request.split(b"\r\n")[1].split(b" ")[2:] for request in requests]
    assert seen[0] == [b"2a00::1", b"0", b"https"]
    assert (seen[1][0], seen[1][2]) == (b"127.0.0.1", b"http")


async def test_what_leads_nowhere_is_refused_and_not_redirected(house: House, tmp_path: Path) -> None:
    """Over plain HTTP, too."""
    client = await visitor(house, tmp_path)
    for host, status in ((b"nowhere.test", b"404"), (b"app.test", b"308")):
        await client.send(b"GET / HTTP/1.1\r\nHost: %b\r\nX-Forwarded-Proto: http\r\n\r\n" % host)
        assert b" %b " % status in (await client.response())[0]
