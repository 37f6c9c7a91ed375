"""What an intermediary owes both sides, however well they behave."""

from __future__ import annotations

import pytest

from tests.fuzz.memory import Memory
from tests.fuzz.targets import send

HOST = b"Host: app.test\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("version", "header", "stays", "said"),
    [
        (b"1.1", b"", True, None),
        (b"1.1", b"Connection: close\r\n", False, b"close"),
        (b"1.1", b"Connection: x, CLOSE\r\n", False, b"close"),
        (b"1.0", b"", False, b"close"),
        (b"1.0", b"Connection: keep-alive\r\n", True, b"keep-alive"),
    ],
)
def test_a_clients_connection_stays_if_it_may(version: bytes, header: bytes, stays: bool, said: bytes | None) -> None:
    """By default since HTTP/1.1; and it is said when it ends."""
    memory = Memory()
    memory.client.arrive(b"GET / HTTP/%b\r\n%b%b\r\n" % (version, HOST, header))
    memory.upstreams[0][0].data_received(OK)
    lines = bytes(memory.client.written).lower().split(b"\r\n")
    assert memory.client.ended != stays
    assert [line for line in lines if line.startswith(b"connection:")] == ([b"connection: " + said] if said else [])


@pytest.mark.parametrize(
    ("head", "stays"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_a_containers_connection_stays_if_it_may(head: bytes, stays: bool) -> None:
    """That is no affair of the client's: its own stays."""
    memory = Memory()
    memory.client.arrive(GET)
    memory.upstreams[0][0].data_received(head + b"Content-Length: 2\r\n\r\nok")
    memory.client.arrive(GET)
    assert len(memory.upstreams) == (1 if stays else 2)
    assert not memory.client.ended


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_both_sides_are_spoken_to_in_http_1_1(version: bytes) -> None:
    """Whatever the other one speaks."""
    memory = Memory()
    memory.client.arrive(b"GET / HTTP/%b\r\n%b\r\n" % (version, HOST))
    assert memory.upstreams[0][1].written.startswith(b"GET / HTTP/1.1\r\n")
    memory.upstreams[0][0].data_received(OK.replace(b"1.1", version))
    assert memory.client.written.startswith(b"HTTP/1.1 200 OK\r\n")


def test_headers_keep_their_order_and_number() -> None:
    """None is joined with another, none is lost; case and value are as they came."""
    memory = Memory()
    memory.client.arrive(b"GET / HTTP/1.1\r\n" + HOST + b"X-B: 1\r\nCookie: a\r\nx-b: 2, 3\r\nX-Unknown: \r\n\r\n")
    connection, line = memory.upstreams[0]
    assert line.written.endswith(b"\r\nhost: app.test\r\nX-B: 1\r\nCookie: a\r\nx-b: 2, 3\r\nX-Unknown: \r\n\r\n")
    connection.data_received(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX-A: 1\r\nset-cookie: b\r\nContent-Length: 0\r\n\r\n"
    )
    assert b"\r\nSet-Cookie: a\r\nX-A: 1\r\nset-cookie: b\r\n" in memory.client.written


@pytest.mark.parametrize(("header", "date"), [(b"", b"date: today\r\n"), (b"Date: then\r\n", b"date: then\r\n")])
def test_a_response_without_a_date_gets_one(header: bytes, date: bytes) -> None:
    """One that has one keeps it."""
    memory = Memory()
    memory.ingress.date_line = lambda: b"date: today\r\n"  # type: ignore[method-assign]
    memory.client.arrive(GET)
    memory.upstreams[0][0].data_received(b"HTTP/1.1 200 OK\r\n%bContent-Length: 0\r\n\r\n" % header)
    assert memory.client.written.count(b"date: ") == memory.client.written.count(date) == 1


def test_a_request_without_a_length_has_no_body() -> None:
    """Whatever its method: what follows is the next request."""
    stream = b"POST /a HTTP/1.1\r\n" + HOST + b"\r\n" + GET
    assert send([stream]).requests == ((b"POST", b"/a", b""), (b"GET", b"/", b""))


@pytest.mark.parametrize("status", [200, 206, 404, 451, 500, 599, 600, 999])
def test_a_status_passes_as_it_is(status: int) -> None:
    """With its reason, also one that nobody knows."""
    memory = Memory()
    memory.client.arrive(GET)
    memory.upstreams[0][0].data_received(b"HTTP/1.1 %d It is so\r\nContent-Length: 0\r\n\r\n" % status)
    assert memory.client.written.startswith(b"HTTP/1.1 %d It is so\r\n" % status)
