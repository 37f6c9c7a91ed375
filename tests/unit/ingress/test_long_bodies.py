"""Bodies of known length that are long enough to pass by the parsers."""

import asyncio

import pytest

from portico.ingress.head import LONG
from tests.unit.ingress.conftest import House, answering, read_request

BODY = bytes(range(256)) * (4 * LONG // 256)
GET = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: %d\r\n\r\n" % len(BODY)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LONG_OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY)


async def test_a_request_right_behind_a_long_body_is_answered_in_its_turn(house: House) -> None:
    """What follows the body, in the same packet too, is a request again."""
    requests: list[bytes] = []
    await house.container(answering(OK, OK, OK, requests=requests))
    client = await house.connect()
    await client.send(POST + BODY + POST + BODY + GET)
    for _ in range(3):
        assert (await client.response())[1] == b"ok"
        assert await house.endpoint.ends.get() == "release"
    assert [request.partition(b"\r\n\r\n")[2] for request in requests] == [BODY, BODY, b""]


async def test_a_connection_carries_further_responses_after_long_ones(house: House) -> None:
    """On both sides, and every byte arrives."""
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for response in (LONG_OK + BODY, OK, LONG_OK + BODY):
            await read_request(reader)
            writer.write(response)
        await reader.read()
        writer.close()

    await house.container(script)
    client = await house.connect()
    for body in (BODY, b"ok", BODY):
        await client.send(GET)
        assert (await client.response())[1] == body
        assert await house.endpoint.ends.get() == "release"
    assert connections == 1


async def test_what_follows_a_long_response_belongs_to_nobody(house: House) -> None:
    """The container's connection is not used again."""
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(LONG_OK + BODY + OK)
        await reader.read()
        writer.close()

    await house.container(script)
    client = await house.connect()
    for _ in range(2):
        await client.send(GET)
        assert (await client.response())[1] == BODY
    assert connections == 2


@pytest.mark.parametrize("missing", [1, len(BODY) // 2])
async def test_a_long_response_that_is_cut_short_does_not_look_whole(house: House, missing: int) -> None:
    """The client's connection breaks."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(LONG_OK + BODY[:-missing])
        await writer.drain()
        writer.close()

    await house.container(script)
    client = await house.connect()
    await client.send(GET)
    await client.head()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await client.reader.readexactly(len(BODY))
    assert await house.endpoint.ends.get() == "cancel"


async def test_a_client_that_leaves_amid_a_long_body_cancels_its_input(house: House) -> None:
    """The container's connection ends, and the body with it."""
    received = asyncio.get_running_loop().create_future()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read())
        writer.close()

    await house.container(script)
    client = await house.connect()
    await client.send(POST + BODY[:-1])
    client.writer.transport.abort()
    assert await house.endpoint.ends.get() == "cancel"
    assert len((await received).partition(b"\r\n\r\n")[2]) < len(BODY)


@pytest.mark.parametrize("size", [10, 5_000, 20_000])
async def test_a_chunk_of_any_size_passes_unchanged_in_both_directions(house: House, size: int) -> None:
    """Copied together with its framing, or sent beside it."""
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (size, BODY[:size])
    requests: list[bytes] = []
    await house.container(
        answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked, requests=requests)
    )
    client = await house.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)
    await client.head()
    answer = await client.reader.readuntil(b"\r\n0\r\n\r\n")
    assert _dechunked(answer) == _dechunked(requests[0].partition(b"\r\n\r\n")[2]) == BODY[:size]


def _dechunked(data: bytes) -> bytes:
    parts = []
    while data:
        size, _, data = data.partition(b"\r\n")
        parts.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return b"".join(parts)
