"""What passes through the ingress, byte for byte, and what becomes of slots."""

import asyncio
import contextlib
import re

import pytest

from portico.ingress.ports import Refusal
from tests.unit.ingress.conftest import House, answering, read_request

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET /a?b=c HTTP/1.1\r\nHost: app.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello"


async def test_a_request_reaches_the_container_and_its_answer_the_client(house: House) -> None:
    """The plain road."""
    await house.container(answering(OK))
    client = await house.connect()
    await client.send(GET)
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nx-request-id: " in head
    assert b"\r\ndate: " in head
    assert body == b"ok"
    assert await house.endpoint.ends.get() == "release"


@pytest.mark.parametrize("cut", range(1, len(POST)))
async def test_a_request_may_arrive_in_pieces(house: House, cut: int) -> None:
    """Cut at every byte."""
    requests: list[bytes] = []
    await house.container(answering(OK, requests=requests))
    client = await house.connect()
    client.writer.transport.set_write_buffer_limits(0)
    await client.send(POST[:cut])
    await asyncio.sleep(0)
    await client.send(POST[cut:])
    assert (await client.response())[1] == b"ok"
    assert requests[0].endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("cut", range(1, len(OK)))
async def test_a_response_may_arrive_in_pieces(house: House, cut: int) -> None:
    """Cut at every byte."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK[:cut])
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(OK[cut:])
        await reader.read()
        writer.close()

    await house.container(script)
    client = await house.connect()
    await client.send(GET)
    assert (await client.response())[1] == b"ok"


async def test_the_containers_view_of_a_request_begins_with_our_own_header(house: House) -> None:
    """The input's id and the client's address come first, and cannot be forged."""
    requests: list[bytes] = []
    await house.container(answering(OK, requests=requests))
    client = await house.connect()
    await client.send(
        b"GET / HTTP/1.1\r\nHost: app.test\r\nX-Portico-Input: 1\r\nX-Forwarded-For: 1.2.3.4\r\nX-Mine: yes\r\n\r\n"
    )
    await client.response()
    lines = requests[0].split(b"\r\n")
    assert re.fullmatch(rb"x-portico-input: [0-9a-f]{16} 127\.0\.0\.1 \d+ http", lines[1])
    assert requests[0].lower().count(b"x-portico-input") == 1
    assert b"1.2.3.4" not in requests[0]
    assert b"X-Mine: yes" in requests[0]


async def test_headers_of_one_hop_are_not_passed_on(house: House) -> None:
    """Neither the standard ones nor those that Connection names."""
    requests: list[bytes] = []
    await house.container(answering(OK, requests=requests))
    client = await house.connect()
    await client.send(
        b"GET / HTTP/1.1\r\nHost: app.test\r\n"
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\r\n"
    )
    await client.response()
    lower = requests[0].lower()
    assert b"x-hop" not in lower
    assert b"keep-alive" not in lower
    assert b"\r\nte:" not in lower


async def test_connections_are_kept_on_both_sides(house: House) -> None:
    """Two requests, one connection to the container."""
    count = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await answering(OK, OK)(reader, writer)

    await house.container(script)
    client = await house.connect()
    for _ in range(2):
        await client.send(GET)
        await client.response()
    assert count == 1


async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    """One after the other, never two at once."""
    await house.container(
        answering(
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n3",
        )
    )
    client = await house.connect()
    await client.send(GET + POST + GET)
    assert [(await client.response())[1] for _ in range(3)] == [b"1", b"2", b"3"]


async def test_a_chunked_request_is_passed_on_chunked(house: House) -> None:
    """Framed anew from what was understood."""
    requests: list[bytes] = []
    await house.container(answering(OK, requests=requests))
    client = await house.connect()
    await client.send(
        b"POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
    )
    await client.response()
    assert requests[0].endswith(b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


async def test_each_piece_of_a_stream_reaches_the_client_when_it_is_written(house: House) -> None:
    """Nothing is held back until the end."""
    step = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await step.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await reader.read()
        writer.close()

    await house.container(script)
    client = await house.connect()
    await client.send(GET)
    assert b"transfer-encoding: chunked" in await client.head()
    assert await client.reader.readexactly(8) == b"3\r\none\r\n"
    step.set()
    assert await client.reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
    assert await house.endpoint.ends.get() == "release"


async def test_a_silent_stream_lives(house: House) -> None:
    """A day before the answer, or between two chunks of it, ends nothing. (A request's body has a minute a piece.)"""
    now = 0.0
    received, go_on = asyncio.Semaphore(0), asyncio.Semaphore(0)

    def sleep() -> None:
        nonlocal now
        for later in (1.0, 100.0, 86400.0):
            now += later
            house.ingress._tick()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"3\r\none\r\n")
        received.release()
        await reader.readuntil(b"0\r\n\r\n")
        received.release()
        await go_on.acquire()
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await go_on.acquire()
        writer.write(b"0\r\n\r\n")
        await reader.read()
        writer.close()

    await house.container(script)
    house.ingress.now = lambda: now
    client = await house.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
    await received.acquire()
    await client.send(b"0\r\n\r\n")
    await received.acquire()
    sleep()
    go_on.release()
    await client.reader.readuntil(b"3\r\none\r\n")
    sleep()
    go_on.release()
    assert await client.reader.readexactly(5) == b"0\r\n\r\n"
    assert await house.endpoint.ends.get() == "release"


async def test_an_http_1_0_client_gets_a_stream_without_chunks(house: House) -> None:
    """Its end is the connection's end."""
    await house.container(answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"))
    client = await house.connect()
    await client.send(b"GET / HTTP/1.0\r\nHost: app.test\r\n\r\n")
    head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b"one"


async def test_a_head_request_is_answered_without_a_body(house: House) -> None:
    """And the connection serves the next request."""
    await house.container(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n", OK))
    client = await house.connect()
    await client.send(b"HEAD / HTTP/1.1\r\nHost: app.test\r\n\r\n")
    assert b"content-length: 999" in await client.head()
    await client.send(GET)
    assert (await client.response())[1] == b"ok"


async def test_a_held_response_keeps_its_slot(house: House) -> None:
    """The container says later when the input has ended; clients never see the mark."""
    await house.container(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-portico-held: 1\r\n\r\nok"))
    client = await house.connect()
    await client.send(GET)
    head, _ = await client.response()
    assert b"held" not in head
    assert await house.endpoint.ends.get() == "hold"


async def test_a_client_that_leaves_while_it_waits_leaves_the_queue(house: House) -> None:
    """At once."""
    house.endpoint.open = False
    client = await house.connect()
    await client.send(GET)
    await house.endpoint.arrived.wait()
    client.writer.close()
    await house.endpoint.left.wait()
    assert not house.endpoint.waiters


async def test_a_client_that_leaves_before_the_answer_cancels_its_input(house: House) -> None:
    """The container's connection ends, the slot is asked back."""
    gone = asyncio.Event()
    began = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        began.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.set()
        writer.close()

    await house.container(script)
    client = await house.connect()
    await client.send(GET)
    await began.wait()
    client.writer.close()
    await gone.wait()
    assert await house.endpoint.ends.get() == "cancel"


async def test_a_request_is_sent_when_its_turn_comes(house: House) -> None:
    """With the body that came while it waited."""
    house.endpoint.open = False
    requests: list[bytes] = []
    await house.container(answering(OK, requests=requests))
    client = await house.connect()
    await client.send(POST)
    await house.endpoint.arrived.wait()
    house.endpoint.waiters.pop().granted(house.endpoint.new_lease())
    await client.response()
    assert requests[0].endswith(b"hello")


async def test_an_unreachable_container_is_broken_and_another_is_asked(house: House) -> None:
    """Nothing was sent, so nothing is lost."""
    client = await house.connect()
    house.endpoint.open = True
    await client.send(POST)
    assert await house.endpoint.ends.get() == "broken"
    await house.container(answering(OK))
    head, _ = await client.response()
    assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 502"))


async def test_a_container_that_dies_before_it_answers_a_post_gives_502(house: House) -> None:
    """It may have done its work: sending it again would not be safe."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.transport.abort()

    await house.container(script)
    client = await house.connect()
    await client.send(POST)
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 502")
    request_id = head.partition(b"x-request-id: ")[2].partition(b"\r\n")[0]
    assert request_id in body
    assert await house.endpoint.ends.get() == "broken"


async def test_a_container_that_dies_before_it_answers_a_get_is_forgiven(house: House) -> None:
    """A request that is safe to repeat goes to another one."""
    first = True

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        if first:
            first = False
            await read_request(reader)
            writer.transport.abort()
        else:
            await answering(OK)(reader, writer)

    await house.container(script)
    client = await house.connect()
    await client.send(GET)
    assert (await client.response())[1] == b"ok"


async def test_a_response_that_is_cut_short_does_not_look_whole(house: House) -> None:
    """The client's connection is reset."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await writer.drain()
        writer.close()

    await house.container(script)
    client = await house.connect()
    await client.send(GET)
    await client.head()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await client.reader.readuntil(b"0\r\n\r\n")


async def test_an_answer_that_is_not_http_gives_502(house: House) -> None:
    """The container is not asked again."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await reader.read()
        writer.close()

    await house.container(script)
    client = await house.connect()
    await client.send(GET)
    head, _ = await client.response()
    assert head.startswith(b"HTTP/1.1 502")
    assert await house.endpoint.ends.get() == "broken"


async def test_a_refusal_of_the_endpoint_is_answered(house: House) -> None:
    """With Retry-After, and the connection lives."""
    house.endpoint.refusal = Refusal(429, "modal-http: busy", retry_after=3)
    client = await house.connect()
    await client.send(GET)
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 429")
    assert b"retry-after: 3" in head
    assert body == b"modal-http: busy\n"
    house.endpoint.refusal = None
    await house.container(answering(OK))
    await client.send(GET)
    assert (await client.response())[1] == b"ok"


async def test_an_early_answer_reaches_a_client_that_still_sends(house: House) -> None:
    """Then its connection ends, for the rest of its request may never come."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    await house.container(script)
    client = await house.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000\r\n\r\nbegin")
    head, _ = await client.response()
    assert head.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in head
    assert await client.rest() == b""


async def test_after_an_upgrade_bytes_pass_both_ways(house: House) -> None:
    """A WebSocket is a tunnel."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        assert b"upgrade: websocket" in request
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x81\x03hey"
        )
        while data := await reader.read(100):
            writer.write(data.upper())
        writer.close()

    await house.container(script)
    client = await house.connect()
    await client.send(
        b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
    )
    assert (await client.head()).startswith(b"HTTP/1.1 101")
    assert await client.reader.readexactly(5) == b"\x81\x03hey"
    await client.send(b"\x81\x02ab")
    assert await client.reader.readexactly(4) == b"\x81\x02AB"
    client.writer.close()
    assert await house.endpoint.ends.get() == "cancel"


async def test_a_slow_reader_slows_the_container_down(house: House) -> None:
    """The ingress keeps only a window of a large response."""
    written = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 200000000\r\n\r\n")
        try:
            for _ in range(2000):
                writer.write(b"x" * 100_000)
                await writer.drain()
                written += 100_000
        except ConnectionError:
            pass
        writer.close()

    await house.container(script)
    client = await house.connect()
    client.writer.transport.pause_reading()
    await client.send(GET)
    before = -1
    while written != before:  # until it moves no more
        before = written
        for _ in range(2000):
            await asyncio.sleep(0)
    assert written < 50_000_000
    client.writer.transport.abort()
