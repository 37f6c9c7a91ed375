"""Requests whose container dies before it has read them: nothing has happened, so another one gets them."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
import uvloop

from tests.unit.ingress.conftest import House

POST = b"POST /one HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nfirst"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The server's: what is written in one turn of its loop leaves in one piece."""
    return uvloop.EventLoopPolicy()


class Container:
    """A container that reads when the test says so. Each connection is the test's own socket."""

    def __init__(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen()
        self._listening.setblocking(False)
        self._loop = asyncio.get_running_loop()

    async def accept(self) -> socket.socket:
        return (await self._loop.sock_accept(self._listening))[0]

    async def read(self, connection: socket.socket, until: bytes) -> bytes:
        data = b""
        while not data.endswith(until):
            part = await self._loop.sock_recv(connection, 65536)
            assert part, data
            data += part
        return data

    def close(self) -> None:
        self._listening.close()


async def readable(connection: socket.socket) -> None:
    """Return when something has come."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_reader(connection, arrived.set)
    await arrived.wait()
    loop.remove_reader(connection)


@pytest.mark.parametrize("sent", ["all", "head", "in pieces"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_post_that_its_container_has_not_read_goes_elsewhere(house: House, sent: str, chunked: bool) -> None:
    """Whole, also where the rest of it comes later."""
    head, body = POST[: POST.index(b"first")], b"first"
    if chunked:
        head = head.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")
        body = b"5\r\nfirst\r\n0\r\n\r\n"
    container = Container(house.endpoint.address)
    client = await house.connect()
    for piece in {"all": [head + body], "head": [head], "in pieces": [head[:20], head[20:] + body]}[sent]:
        await client.send(piece)
    first = await container.accept()
    await readable(first)
    first.close()
    assert await house.endpoint.ends.get() == "broken"
    if sent == "head":
        await client.send(body)
    second = await container.accept()
    assert await container.read(second, body)
    second.sendall(ANSWER)
    assert (await client.response())[1] == b"ok"
    second.close()
    container.close()


async def test_a_post_on_a_connection_that_is_closed_already_goes_to_another_one(house: House) -> None:
    """The container has gone, and the ingress has not heard of it: its write fails."""
    container = Container(house.endpoint.address)
    client = await house.connect()
    await client.send(POST)
    first = await container.accept()
    await container.read(first, b"first")
    first.sendall(ANSWER)
    await client.response()
    assert await house.endpoint.ends.get() == "release"
    with socket.socket(fileno=os.dup(client.writer.get_extra_info("socket").fileno())) as raw:
        raw.send(POST)
    first.close()  # before the loop has seen either
    second = await container.accept()
    assert (await container.read(second, b"first")).startswith(b"POST /one ")
    second.sendall(ANSWER)
    assert (await client.response())[1] == b"ok"
    second.close()
    container.close()


async def test_a_post_that_was_read_in_part_is_not_sent_again(house: House) -> None:
    """The head was read: the function may have begun. 502, though the body was lost unread."""
    container = Container(house.endpoint.address)
    client = await house.connect()
    head, body = POST[: POST.index(b"first")], b"first"
    await client.send(head)
    first = await container.accept()
    await container.read(first, b"\r\n\r\n")
    await client.send(body)
    await readable(first)
    first.close()
    assert (await client.response())[0].startswith(b"HTTP/1.1 502 ")
    assert await house.endpoint.ends.get() == "broken"
    container.close()


async def test_a_post_that_was_read_is_not_sent_again(house: House) -> None:
    """It may have done something."""
    container = Container(house.endpoint.address)
    client = await house.connect()
    await client.send(POST)
    first = await container.accept()
    await container.read(first, b"first")
    first.close()
    assert (await client.response())[0].startswith(b"HTTP/1.1 502 ")
    container.close()


async def test_a_large_post_that_was_not_read_is_not_sent_again(house: House) -> None:
    """Nobody keeps it, and a part of it may have been read."""
    body = b"x" * 200_000
    container = Container(house.endpoint.address)
    client = await house.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    first = await container.accept()
    await readable(first)
    first.close()
    assert (await client.response())[0].startswith(b"HTTP/1.1 502 ")
    container.close()
