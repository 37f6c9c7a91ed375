"""WebSockets through the ingress, byte for byte, with a container that speaks raw frames."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from portico.wire.websocket import CLOSING, MAX_MESSAGE, close_frame
from tests.unit.ingress.conftest import Client, House, Script, read_request

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
TOO_BIG = close_frame(1009)
TOO_BIG_MASKED = close_frame(1009, masked=True)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def switching(talk: Talk) -> Script:
    """A container that accepts the WebSocket, and talks."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        assert b"upgrade: websocket" in request
        writer.write(SWITCH)
        await talk(reader, writer)
        writer.close()

    return script


def text(payload: bytes) -> bytes:
    return bytes([0x81, len(payload)]) + payload


def large(size: int) -> bytes:
    return b"\x82\x7f" + size.to_bytes(8, "big") + b"x" * size


async def upgrade(house: House, more: bytes = b"") -> Client:
    """A client whose WebSocket is there."""
    client = await house.connect()
    await client.send(UPGRADE + more)
    assert (await client.head()).startswith(b"HTTP/1.1 101")
    return client


async def test_a_message_of_the_client_that_is_too_large_is_1009(house: House) -> None:
    """Both sides get a Close frame; one of just the right size passes before it."""
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(MAX_MESSAGE + 10) == large(MAX_MESSAGE)
        heard.append(await reader.readexactly(len(TOO_BIG_MASKED)))
        writer.write(close_frame(1009))

    await house.container(switching(talk))
    client = await upgrade(house)
    client.writer.write(large(MAX_MESSAGE) + large(MAX_MESSAGE + 1) + text(b"after"))
    assert await client.rest() == TOO_BIG
    assert heard == [TOO_BIG_MASKED]
    assert await house.endpoint.ends.get() == "cancel"


async def test_a_message_of_the_container_that_is_too_large_is_1009(house: House) -> None:
    """What it sent before reaches the client, and nothing of what it sends after."""
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text(b"before") + large(MAX_MESSAGE) + large(MAX_MESSAGE + 1) + text(b"after"))
        heard.append(await reader.readexactly(len(TOO_BIG_MASKED)))

    await house.container(switching(talk))
    client = await upgrade(house)
    assert await client.rest() == text(b"before") + large(MAX_MESSAGE) + TOO_BIG
    assert heard == [TOO_BIG_MASKED]


async def test_when_its_time_is_up_both_sides_hear_1001(house: House) -> None:
    """At the end of the frame that is on its way; the container's end of it is the input's end."""
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text(b"half")[:3])
        heard.append(await reader.readexactly(len(TOO_BIG_MASKED)))
        writer.write(text(b"half")[3:] + text(b"after"))

    await house.container(switching(talk))
    house.endpoint.open = False
    client = await house.connect()
    await client.send(UPGRADE)
    await house.endpoint.arrived.wait()
    (waiter,) = house.endpoint.waiters
    waiter.granted(house.endpoint.new_lease())
    assert (await client.head()).startswith(b"HTTP/1.1 101")
    assert await client.reader.readexactly(3) == text(b"half")[:3]
    waiter.timed_out()
    assert await client.rest() == text(b"half")[3:] + close_frame(1001)
    assert heard == [close_frame(1001, masked=True)]
    assert await house.endpoint.ends.get() == "cancel"


@pytest.mark.parametrize("sent", [b"", text(b"half")[:3], close_frame(1000)], ids=["nothing", "a half", "a close"])
async def test_a_container_that_had_to_go_is_excused(house: House, sent: bytes) -> None:
    """By a Close with 1012, where there is room for one; one that went by itself is not."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)

    await house.container(switching(talk))
    house.endpoint.stopping = True
    assert await (await upgrade(house)).rest() == sent + (b"" if sent else close_frame(1012))
    house.endpoint.stopping = False
    assert await (await upgrade(house)).rest() == sent


async def test_the_limit_can_be_set(house: House) -> None:
    """To less, or to none."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await house.container(switching(talk))
    house.ingress.max_message = 3
    client = await upgrade(house)
    await client.send(text(b"abc") + text(b"abcd"))
    assert await client.reader.readexactly(4) == TOO_BIG


async def test_no_limit_is_no_limit(house: House) -> None:
    """However large."""
    size = 2 * MAX_MESSAGE

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(size + 10)
        writer.write(text(b"thanks"))

    await house.container(switching(talk))
    house.ingress.max_message = None
    client = await upgrade(house)
    await client.send(large(size))
    assert await client.rest() == text(b"thanks")


async def test_what_comes_with_the_handshake_is_counted_too(house: House) -> None:
    """From a client that does not wait for the answer; it reaches the container behind the request."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(7) == text(b"early")
        assert await reader.readexactly(8) == TOO_BIG_MASKED

    await house.container(switching(talk))
    house.ingress.max_message = 5
    client = await upgrade(house, text(b"early") + text(b"too large"))
    assert await client.rest() == TOO_BIG


async def test_our_close_waits_for_the_end_of_a_frame(house: House) -> None:
    """The container is in the middle of one when the client's message is too large."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x81\x06abc")
        assert await reader.readexactly(8) == TOO_BIG_MASKED
        writer.write(b"def" + text(b"after"))

    await house.container(switching(talk))
    client = await upgrade(house)
    assert await client.reader.readexactly(5) == b"\x81\x06abc"
    client.writer.write(large(MAX_MESSAGE + 1))
    assert await client.rest() == b"def" + TOO_BIG


async def test_a_side_that_does_not_close_is_cut(house: House) -> None:
    """When its time is up; the slot is given back."""
    now = 0.0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await house.container(switching(talk))
    house.ingress.now = lambda: now
    client = await upgrade(house)
    client.writer.write(large(MAX_MESSAGE + 1))
    assert await client.reader.readexactly(4) == TOO_BIG
    now = CLOSING + 2
    house.ingress._tick()
    assert await house.endpoint.ends.get() == "cancel"


async def test_a_client_that_still_sends_reads_the_containers_close(house: House) -> None:
    """Closing the connection at once would reset it under what the client has not read."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(close_frame(1002))

    await house.container(switching(talk))
    client = await upgrade(house)
    assert await house.endpoint.ends.get() == "cancel"
    await client.send(large(MAX_MESSAGE))
    assert await client.rest() == close_frame(1002)


async def test_a_silent_websocket_lives(house: House) -> None:
    """A day without a byte ends nothing."""
    now = 0.0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)

    await house.container(switching(talk))
    house.ingress.now = lambda: now
    client = await upgrade(house)
    for later in (1.0, 100.0, 86400.0):
        now = later
        house.ingress._tick()
    await client.send(text(b"still here"))
    assert await client.reader.readexactly(12) == text(b"still here")


async def test_a_refused_handshake_has_its_status_and_body(house: House) -> None:
    """403, say; nothing that the client sends behind its request is taken for a request."""
    refusal = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 7\r\n\r\nmembers"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(refusal)
        assert await reader.read() == b""
        writer.close()

    await house.container(script)
    client = await house.connect()
    await client.send(UPGRADE + text(b"early"))
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.endswith(b"\r\n\r\nmembers")
    assert await house.endpoint.ends.get() == "release"
