"""Which words of a proxy are believed."""

from __future__ import annotations

import pytest

from portico.ingress.head import RequestHead
from portico.ingress.proxies import Proxies
from portico.model.proxies import parse_networks
from tests.unit.ingress.conftest import House, answering

PROXY = b"10.0.0.1 4000 http"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def proxies(networks: str = "10.0.0.0/8, 2001:db8::/32, 127.0.0.1") -> Proxies:
    return Proxies(parse_networks(networks, "it"))


def head(**said: str) -> RequestHead:
    """The head of a request with these headers, behind a Host header."""
    made = RequestHead()
    for name, value in {"host": "inside", **said}.items():
        made.header(name.replace("_", "-").encode(), value.encode())
    return made


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("203.0.113.9", b"203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", b"203.0.113.9"),
        ("6.6.6.6, 203.0.113.9, 10.9.9.9", b"203.0.113.9"),
        ("10.1.1.1, 10.9.9.9", b"10.1.1.1"),
        ("203.0.113.9:5123", b"203.0.113.9"),
        ("2a00::1", b"2a00::1"),
        ("[2a00::1]:443, 2001:db8::7", b"2a00::1"),
        ("::ffff:203.0.113.9", b"203.0.113.9"),
        ("6.6.6.6, unknown, 10.9.9.9", b"10.9.9.9"),
        ("unknown", b"10.0.0.1"),
        ("1.2.3.4 6666 https", b"10.0.0.1"),
        (" , ", b"10.0.0.1"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_proxy(said: str, client: bytes) -> None:
    """What stands left of it, the client may have written itself; what is no address says nothing."""
    assert proxies().origin(head(x_forwarded_for=said), PROXY).split(b" ")[0] == client


@pytest.mark.parametrize(
    ("said", "scheme"), [("https", b"https"), ("WSS", b"https"), ("gopher", b"http"), ("http, https", b"https")]
)
def test_the_scheme_is_what_the_proxy_saw(said: str, scheme: bytes) -> None:
    """One that we know; of several, what the last proxy added."""
    assert proxies().origin(head(x_forwarded_for="203.0.113.9", x_forwarded_proto=said), PROXY).endswith(b" " + scheme)


def test_each_list_is_read_from_the_right() -> None:
    """Two proxies: the outer one has seen the client, and said so one place further left."""
    made = head(
        x_forwarded_for="6.6.6.6, 203.0.113.9, 10.9.9.9",
        x_forwarded_proto="http, https, http",
        x_forwarded_host="forged.example, app.example, inner.example",
    )
    assert proxies().origin(made, PROXY) == b"203.0.113.9 0 https"
    assert made.hosts == [b"app.example"]
    assert made.lines == [b"host: app.example\r\n"]


def test_without_a_word_nothing_changes() -> None:
    """The peer stays what it is."""
    made = head(x_forwarded_host="")
    assert proxies().origin(made, PROXY) == PROXY
    assert made.hosts == [b"inside"]


def test_who_is_trusted() -> None:
    """By address and by network, of both families; nobody by default."""
    for address in ("10.1.2.3", "2001:db8::1", "127.0.0.1", "::ffff:10.1.2.3"):
        assert proxies().trusts(address)
        assert not proxies("").trusts(address)
    for address in ("11.0.0.1", "2001:db9::1", "nobody", ""):
        assert not proxies().trusts(address)


@pytest.mark.parametrize("trusted", [True, False])
async def test_only_a_trusted_sender_is_believed(house: House, trusted: bool) -> None:
    """Its words reach the container as facts, and lead to the host; from others, not a byte of them."""
    house.ingress.proxies = proxies("127.0.0.1" if trusted else "10.0.0.0/8")
    requests: list[bytes] = []
    await house.container(answering(OK, requests=requests))
    client = await house.connect()
    await client.send(
        b"GET / HTTP/1.1\r\nHost: %b\r\nX-Forwarded-For: 2a00::1\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: %b\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\r\n"
        % ((b"inside", b"app.test") if trusted else (b"app.test", b"forged.test"))
    )
    assert (await client.response())[1] == b"ok"
    lines = requests[0].split(b"\r\n")
    assert lines[1].split(b" ", 2)[2].endswith(b" https" if trusted else b" http")
    assert lines[1].split(b" ")[2] == (b"2a00::1" if trusted else b"127.0.0.1")
    assert lines[2] == b"host: app.test"
    assert b"6.6.6.6" not in requests[0]
    assert b"forwarded" not in requests[0].lower()
