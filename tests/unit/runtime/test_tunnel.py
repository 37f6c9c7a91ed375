"""Connections that a WSGI app takes over, byte by byte; the app here speaks raw WebSocket frames."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from portico.wire.websocket import close_frame
from tests.unit.runtime.wsgi_server import Connection, WsgiFunction, request, serving

UPGRADE = request("GET", "/", "connection: upgrade", "upgrade: websocket")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
BOUND = 4 * 1024 * 1024  # bytes: more than all buffers between a client and an app


def speaking(talk: Callable[[socket.socket], Any]) -> WsgiFunction:
    """An app that takes the socket and talks; what it returns besides has to be dropped."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        talk(environ["werkzeug.socket"])
        start_response("200 OK", [])
        return [b"of no interest"]

    return app


def switching(talk: Callable[[socket.socket], Any]) -> WsgiFunction:
    """An app that accepts the WebSocket, and talks."""

    def switch(connection: socket.socket) -> None:
        connection.sendall(SWITCH)
        talk(connection)

    return speaking(switch)


def echo(connection: socket.socket) -> None:
    """Sends all back until the client ends it."""
    while data := connection.recv(65536):
        connection.sendall(data)


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    return data


def text(payload: bytes) -> bytes:
    return bytes([0x81, len(payload)]) + payload


def large(size: int) -> bytes:
    return b"\x82\x7f" + size.to_bytes(8, "big") + b"x" * size


async def switched(connection: Connection) -> None:
    """The app's answer has come as it was written."""
    assert await connection.until(b"\r\n\r\n") == SWITCH


async def test_the_app_speaks_for_itself(tmp_path: Path) -> None:
    """Its own 101 goes out, then bytes go both ways, and no HTTP response comes after them."""
    async with serving(switching(lambda connection: connection.sendall(exactly(connection, 7))), tmp_path) as served:
        connection = await served.connect(UPGRADE)
        await switched(connection)
        connection.send(text(b"hello"))
        assert await connection.rest() == text(b"hello")


async def test_what_is_sent_with_the_handshake_is_not_lost(tmp_path: Path) -> None:
    """A client that does not wait for the answer."""
    async with serving(switching(lambda connection: connection.sendall(exactly(connection, 7))), tmp_path) as served:
        connection = await served.connect(UPGRADE + text(b"early"))
        await switched(connection)
        assert await connection.rest() == text(b"early")


@pytest.mark.parametrize("size", [1, 2, 3, 11, 1000])
async def test_bytes_may_be_cut_anywhere(tmp_path: Path, size: int) -> None:
    """In the app's answer, in frames, and in the handshake."""
    stream = SWITCH + text(b"one") + text(b"") + large(200)

    def talk(connection: socket.socket) -> None:
        for at in range(0, len(stream), size):
            connection.sendall(stream[at : at + size])
        echo(connection)

    async with serving(speaking(talk), tmp_path) as served:
        connection = await served.connect()
        for at in range(0, len(UPGRADE), size):
            connection.send(UPGRADE[at : at + size])
            await asyncio.sleep(0)
        assert await connection.exactly(len(stream)) == stream
        for at in range(0, 212, size):
            connection.send((text(b"two") * 53)[at : at + size][: 212 - at])
            await asyncio.sleep(0)
        assert await connection.exactly(212) == (text(b"two") * 53)[:212]


async def test_an_app_may_answer_a_handshake_with_a_response(tmp_path: Path) -> None:
    """One that does not use the socket; nothing may follow on this connection."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("404 Not Found", [("Content-Length", "2")])
        return [b"no"]

    async with serving(app, tmp_path) as served:
        answer = await (await served.connect(UPGRADE + text(b"early"))).rest()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nno")


async def test_an_app_that_fails_before_it_answers_is_a_500(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As for any other request."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        raise ValueError("no")

    async with serving(app, tmp_path) as served:
        answer = await (await served.connect(UPGRADE)).rest()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert "raised ValueError: no" in capsys.readouterr().err


async def test_an_ordinary_request_has_no_socket(tmp_path: Path) -> None:
    """Only one that asks to upgrade."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "0")])
        assert "werkzeug.socket" not in environ
        return []

    async with serving(app, tmp_path) as served:
        assert (await served.ask())[0].startswith(b"HTTP/1.1 200")


async def test_the_apps_end_waits_for_the_clients_close(tmp_path: Path) -> None:
    """The connection closes when both Close frames have passed, with nothing left unread."""
    async with serving(switching(lambda connection: connection.sendall(close_frame(1000))), tmp_path) as served:
        connection = await served.connect(UPGRADE)
        await switched(connection)
        assert await connection.exactly(4) == close_frame(1000)
        connection.send(text(b"still on its way"))
        connection.send(close_frame(1000, masked=True))
        assert await connection.rest() == b""


async def test_both_close_frames_end_the_connection(tmp_path: Path) -> None:
    """Also when the app goes on; it finds its socket at its end."""
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        exactly(connection, 8)
        connection.sendall(close_frame(1000))
        assert connection.recv(1) == b""
        over.set()

    async with serving(switching(talk), tmp_path) as served:
        connection = await served.connect(UPGRADE)
        await switched(connection)
        connection.send(close_frame(1000, masked=True))
        assert await connection.rest() == close_frame(1000)
        await asyncio.to_thread(over.wait)


async def test_a_client_that_leaves_ends_the_apps_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it had sent still comes; the input ends when the app has."""
    heard: list[bytes] = []
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            heard.append(data)
        over.set()

    async with serving(switching(talk), tmp_path) as served:
        connection = await served.connect(UPGRADE)
        await switched(connection)
        connection.send(text(b"last words"))
        connection.writer.close()
        await asyncio.to_thread(over.wait)
        served.cancel("in-1")
        assert await served.done.get() == "in-1"
    assert b"".join(heard) == text(b"last words")
    assert capsys.readouterr().err == ""


async def test_a_client_that_leaves_at_once_ends_the_apps_socket_too(tmp_path: Path) -> None:
    """The app finds it at its end, and the input ends."""
    async with serving(speaking(echo), tmp_path) as served:
        connection = await served.connect(UPGRADE)
        await connection.writer.drain()
        connection.leave()
        await asyncio.sleep(0)
        served.cancel("in-1")
        assert await served.done.get() == "in-1"


async def test_cancel_ends_a_websocket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both sides hear 1012, and the input ends with the connection."""
    heard: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            heard.append(data)

    async with serving(switching(talk), tmp_path) as served:
        connection = await served.connect(UPGRADE)
        await switched(connection)
        served.cancel("in-1")
        assert await connection.exactly(4) == close_frame(1012)
        connection.send(close_frame(1012, masked=True))
        assert await connection.rest() == b""
        assert await served.done.get() == "in-1"
    assert heard == [close_frame(1012, masked=True)]
    assert capsys.readouterr().err == ""


async def test_a_slow_client_slows_a_websocket(tmp_path: Path) -> None:
    """The app is never more than some buffers ahead of what the client has read."""
    produced = 0
    frame = large(1024 * 1024)

    def talk(connection: socket.socket) -> None:
        nonlocal produced
        for _ in range(32):
            connection.sendall(frame)
            produced += len(frame)

    async with serving(switching(talk), tmp_path) as served:
        connection = await served.connect(UPGRADE)
        await switched(connection)
        for number in range(32):
            assert produced - number * len(frame) < BOUND
            await connection.exactly(len(frame))


async def test_a_slow_app_slows_a_websocket(tmp_path: Path) -> None:
    """What it does not read is not taken from the client."""
    read = threading.Event()

    def talk(connection: socket.socket) -> None:
        assert read.wait(10)
        echo(connection)

    async with serving(switching(talk), tmp_path) as served:
        connection = await served.connect(UPGRADE)
        await switched(connection)
        connection.send(large(1024 * 1024) * 16)
        unsent = connection.writer.transport.get_write_buffer_size
        turns = 0
        while turns < 1_000:  # until the server, which runs in this loop, has stopped taking
            before = unsent()
            await asyncio.sleep(0)
            turns = turns + 1 if unsent() == before else 0
        assert unsent() > 16 * 1024 * 1024 - BOUND
        read.set()
        assert await connection.exactly(16 * (1024 * 1024 + 10)) == large(1024 * 1024) * 16
