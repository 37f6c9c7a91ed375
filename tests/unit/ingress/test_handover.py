"""WebSockets whose client's connection the container gets: what it is offered, what it is given, and when."""

from __future__ import annotations

import asyncio
import socket

import pytest

from portico.wire.container import OFFER
from tests.unit.ingress.conftest import Client, House, answering, read_request
from tests.unit.ingress.test_tunnel import SWITCH, UPGRADE, switching, text


def offered(request: bytes) -> bool:
    """Whether the container may expect the client's connection."""
    first = request.split(b"\r\n")[1]
    assert first.startswith(b"x-portico-input: ")
    return first.endswith(b" http " + OFFER)


@pytest.fixture(autouse=True)
def _container_takes_connections(house: House) -> None:
    house.endpoint.takes_connections = True


async def handed_over(house: House) -> tuple[socket.socket, bytes]:
    """The client's connection, and the head that is due there."""
    assert await house.endpoint.ends.get() == "hand over"
    descriptor, head = house.endpoint.handed_over.pop()
    connection = socket.socket(fileno=descriptor)
    connection.setblocking(False)
    return connection, head


async def test_the_container_gets_the_connection_and_the_answer_that_is_due(house: House) -> None:
    """The ingress sends nothing itself, and keeps nothing; its own connection to the container ends."""
    requests: list[bytes] = []
    ended = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(SWITCH)
        assert await reader.read() == b""
        writer.close()
        ended.set()

    await house.container(script)
    client = await house.connect()
    await client.send(UPGRADE)
    connection, head = await handed_over(house)
    with connection:
        assert offered(requests[0])
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"x-request-id: " in head
        connection.send(head)
        assert await client.head() == head
        await client.send(text(b"hello"))
        assert await asyncio.get_running_loop().sock_recv(connection, 100) == text(b"hello")
        await ended.wait()
        assert repr(house.ingress) == "<Ingress 0 connections>"
    assert await client.rest() == b""


async def test_what_the_client_sent_before_reaches_the_container_before(house: House) -> None:
    """On the connection of the request, up to its end."""
    early = asyncio.get_running_loop().create_future()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        early.set_result(await reader.read())

    await house.container(switching(talk))
    client = await house.connect()
    await client.send(UPGRADE + text(b"early"))
    connection, _ = await handed_over(house)
    with connection:
        assert await early == text(b"early")


async def test_a_refused_websocket_is_answered_as_ever(house: House) -> None:
    """The connection stays with the ingress."""
    await house.container(answering(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nnope"))
    client = await house.connect()
    await client.send(UPGRADE)
    head, body = await client.response()
    assert (head.split(b" ")[1], body) == (b"403", b"nope")
    assert await house.endpoint.ends.get() == "release"


async def test_a_connection_with_an_answer_before_is_handed_over_like_any_other(house: House) -> None:
    """Proxies keep connections for more than one request."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        assert offered(await read_request(reader))
        writer.write(SWITCH)
        await reader.read()
        writer.close()

    await house.container(script)
    client = await house.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
    await client.response()
    assert await house.endpoint.ends.get() == "release"
    await client.send(UPGRADE)
    connection, head = await handed_over(house)
    connection.close()
    assert head.startswith(b"HTTP/1.1 101")


async def test_requests_that_are_no_websockets_are_offered_nothing(house: House) -> None:
    """Their answers pass through the ingress."""
    requests: list[bytes] = []
    await house.container(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", requests=requests))
    client = await house.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
    await client.response()
    assert not offered(requests[0])


async def test_a_client_that_leaves_before_the_answer_cancels_the_input(house: House) -> None:
    """As ever; nothing is handed over."""
    asked = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await reader.read()
        writer.close()

    await house.container(script)
    client: Client = await house.connect()
    await client.send(UPGRADE)
    await asked.wait()
    client.writer.close()
    assert await house.endpoint.ends.get() == "cancel"
    assert house.endpoint.handed_over == []
