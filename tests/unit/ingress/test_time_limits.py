"""Clients that take their time: what they may hold up, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from portico.ingress import pages
from portico.ingress.client import BODY_TIMEOUT, HEAD_TIMEOUT, KEEP_ALIVE, LINGER, STUCK
from portico.ingress.progress import reading_of
from tests.fuzz.memory import Memory
from tests.unit.ingress.conftest import House

GET = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HOUR = 3600


def answer(memory: Memory) -> None:
    """The container answers what it has."""
    memory.upstreams[-1][0].data_received(OK)
    memory.settle()


def seconds_until_closed(memory: Memory, sending: bytes = b"", every: int = 1) -> int:
    """How long the client's connection stays when it sends this again and again."""
    for second in range(HOUR):
        if memory.client.ended:
            return second
        if sending and second % every == 0:
            memory.client.arrive(sending)
        memory.pass_time(1.0)
    return HOUR


@pytest.mark.parametrize("before", [b"", GET])
def test_a_head_has_30_seconds(before: bytes) -> None:
    """However many bytes come: then it is 408. On a connection that has been used, some more."""
    memory = Memory()
    if before:
        memory.client.arrive(before)
        answer(memory)
        memory.client.written.clear()
    memory.client.arrive(b"GET / HTTP/1.1\r\nX: ")
    assert HEAD_TIMEOUT <= seconds_until_closed(memory, b"a") <= HEAD_TIMEOUT + (62 if before else 2)
    assert memory.client.written.startswith(b"HTTP/1.1 408 ")
    memory.pass_time(LINGER + 2)
    assert memory.client.is_closing()


def test_a_connection_that_says_nothing_has_30_seconds() -> None:
    """Nothing is said to it either."""
    memory = Memory()
    assert HEAD_TIMEOUT <= seconds_until_closed(memory) <= HEAD_TIMEOUT + 2
    assert memory.client.written == b""
    assert memory.client.is_closing()


def test_empty_lines_are_no_request() -> None:
    """However many."""
    memory = Memory()
    assert seconds_until_closed(memory, b"\r\n") <= HEAD_TIMEOUT + 2


def test_an_idle_connection_has_75_seconds() -> None:
    """Between two requests."""
    memory = Memory()
    for _ in range(3):
        memory.client.arrive(GET)
        answer(memory)
        for _ in range(int(KEEP_ALIVE) - 1):
            memory.pass_time(1.0)
        assert not memory.client.ended
    assert memory.client.written.count(b" 200 OK") == 3
    assert seconds_until_closed(memory) <= 62
    assert memory.client.written.count(b"HTTP/1.1 ") == 3


@pytest.mark.parametrize(("head", "piece"), [(POST, b"x"), (CHUNKED, b"1\r\nx\r\n"), (CHUNKED, b"1;a=b\r\nx\r\n")])
def test_a_body_has_60_seconds_for_each_piece(head: bytes, piece: bytes) -> None:
    """Then it is 408, and the container's input ends."""
    memory = Memory()
    memory.client.arrive(head)
    for _ in range(10):
        memory.client.arrive(piece)
        memory.pass_time(BODY_TIMEOUT - 1)
    assert memory.client.written == b""
    assert seconds_until_closed(memory) <= BODY_TIMEOUT + 62
    assert memory.client.written.startswith(b"HTTP/1.1 408 ")
    assert memory.ends == ["cancel"]
    assert memory.upstreams[0][1].aborted


def test_a_long_body_has_60_seconds_for_each_piece() -> None:
    """Also where it passes by the parser."""
    memory = Memory()
    memory.client.arrive(POST.replace(b"1000", b"1000000") + b"x")
    for _ in range(10):
        memory.client.arrive(b"x" * 1000)
        memory.pass_time(BODY_TIMEOUT - 1)
    assert memory.client.written == b""
    assert seconds_until_closed(memory) <= BODY_TIMEOUT + 62
    assert memory.client.written.startswith(b"HTTP/1.1 408 ")


def test_the_time_of_a_body_does_not_run_while_the_container_does_not_read() -> None:
    """The client is told to wait, then; its time begins when it may send again."""
    memory = Memory()
    memory.client.arrive(POST + b"x")
    connection, _ = memory.upstreams[0]
    connection.pause_writing()
    assert seconds_until_closed(memory) == HOUR
    connection.resume_writing()
    assert BODY_TIMEOUT <= seconds_until_closed(memory) <= BODY_TIMEOUT + 2


def test_the_time_of_a_body_does_not_run_before_100_continue() -> None:
    """A client that asks may wait for it."""
    memory = Memory()
    memory.client.arrive(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert seconds_until_closed(memory) == HOUR
    memory.client.arrive(b"x")
    assert seconds_until_closed(memory) <= BODY_TIMEOUT + 62


def test_the_time_of_a_body_does_not_run_while_there_is_no_slot() -> None:
    """Who waits is not to blame."""
    memory = Memory()
    memory.lease = lambda waiter, input_id: None  # type: ignore[method-assign]
    memory.leave = lambda waiter: None  # type: ignore[method-assign]
    memory.client.arrive(POST)
    assert seconds_until_closed(memory) == HOUR


def test_an_answer_that_has_begun_is_bounded_by_the_functions_timeout_alone() -> None:
    """Some apps answer while they read."""
    memory = Memory()
    memory.client.arrive(POST)
    memory.upstreams[0][0].data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
    assert seconds_until_closed(memory) == HOUR


def test_a_client_that_goes_on_sending_what_was_refused_has_2_seconds() -> None:
    """To read why."""
    memory = Memory()
    memory.find = lambda host: pages.INVALID_CALL  # type: ignore[method-assign]
    memory.client.arrive(POST)
    assert memory.client.written.startswith(b"HTTP/1.1 404 ")
    assert memory.client.ended
    assert not memory.client.is_closing()
    for _ in range(int(LINGER) + 2):
        memory.client.arrive(b"x" * 100)
        memory.pass_time(1.0)
    assert memory.client.is_closing()


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
def test_a_client_that_does_not_read_what_is_left_is_cut(connection: bytes) -> None:
    """A minute after its connection was to end; each byte that it takes gives it another minute."""
    memory = Memory()
    memory.client.arrive(GET.replace(b"\r\n\r\n", b"\r\nConnection: %b\r\n\r\n" % connection))
    memory.client.unread = 1000
    answer(memory)
    while not memory.client.is_closing():
        memory.pass_time(1.0)
    for _ in range(5):
        memory.client.unread -= 1
        memory.pass_time(STUCK - 1)
        memory.pass_time(3.0)
    assert not memory.client.aborted
    memory.pass_time(STUCK + 62)
    assert memory.client.aborted


async def test_a_client_reads_when_its_side_confirms_what_was_sent(house: House) -> None:
    """Of what the kernel holds nothing is seen otherwise, and that may be megabytes."""
    client = await house.connect()
    await client.send(GET[:10])
    while not house.ingress._connections:
        await asyncio.sleep(0)
    (connection,) = house.ingress._connections
    waiting, before = reading_of(connection._transport)
    connection.write(b"x" * 1000)
    await client.reader.readexactly(1000)
    while (after := reading_of(connection._transport)) == (waiting, before):
        await asyncio.sleep(0.001)
    assert after == (0, before + 1000)
