"""WebSockets whose client's connection comes later than their request, byte by byte, on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from portico.runtime.handover import Handover
from portico.wire.websocket import MAX_MESSAGE, close_frame

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n"
HEAD = b"HTTP/1.1 101 Switching Protocols\r\nx-request-id: 1\r\n\r\n"
MIB = 1024 * 1024


def text(payload: bytes) -> bytes:
    return bytes([0x81, len(payload)]) + payload


def large(size: int) -> bytes:
    return b"\x82\x7f" + size.to_bytes(8, "big") + b"x" * size


class App(asyncio.Protocol):
    """An app's protocol that keeps what it gets; `on_data` answers it."""

    def __init__(self) -> None:
        self.transport = cast("asyncio.Transport", None)
        self.heard = b""
        self.writable = True
        self.on_data: Callable[[bytes], None] = lambda data: None
        self.lost = asyncio.Event()
        self.changed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.changed.set()
        self.on_data(data)

    def pause_writing(self) -> None:
        self.writable = False
        self.changed.set()

    def resume_writing(self) -> None:
        self.writable = True
        self.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


class Case:
    """A container's side of one WebSocket; the test is the ingress, the client and the app."""

    def __init__(self) -> None:
        self.app = App()
        self.ended = asyncio.Event()
        self.ingress, self._request = socket.socketpair()
        self.client, self._connection = socket.socketpair()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for side in (self.ingress, self.client):
            side.setblocking(False)
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, self._request)
        self.handover = Handover(transport, self.app, MAX_MESSAGE, self.ended.set)
        self.app.transport = self.handover

    def take(self) -> None:
        """Hand the client's connection over."""
        self.handover.take(self._connection, HEAD)

    def drained(self) -> None:
        """Nothing more comes through the ingress."""
        self.ingress.shutdown(socket.SHUT_WR)

    async def open(self) -> None:
        """A WebSocket that is taken over and under way."""
        self.handover.write(SWITCH)
        assert await exactly(self.ingress, len(SWITCH)) == SWITCH
        self.drained()
        self.take()
        assert await exactly(self.client, len(HEAD)) == HEAD

    def close(self) -> None:
        self.handover.end()
        self.ingress.close()
        self.client.close()


async def exactly(side: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await asyncio.get_running_loop().sock_recv(side, size - len(data))
        assert piece, f"ended after {data!r}"
        data += piece
    return data


async def rest(side: socket.socket) -> bytes:
    data = b""
    while piece := await asyncio.get_running_loop().sock_recv(side, 65536):
        data += piece
    return data


async def send(side: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(side, data)


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    """Before the app has answered."""
    case = Case()
    await case.start()
    yield case
    case.close()
    await case.app.lost.wait()


async def test_the_answer_goes_to_the_ingress_and_all_that_follows_to_the_client(case: Case) -> None:
    """The client gets the head that the ingress has made of it, and what the app sent before there was a connection."""
    case.handover.write(SWITCH)
    case.handover.write(text(b"first"))
    case.drained()
    case.take()
    assert await exactly(case.client, len(HEAD) + 7) == HEAD + text(b"first")
    case.handover.write(text(b"second"))
    assert await exactly(case.client, 8) == text(b"second")
    assert await rest(case.ingress) == SWITCH


async def test_frames_behind_the_answer_in_one_write_go_to_the_client(case: Case) -> None:
    """As apps with a socket of their own may send them."""
    case.handover.write(SWITCH + text(b"first"))
    case.drained()
    case.take()
    assert await exactly(case.client, len(HEAD) + 7) == HEAD + text(b"first")
    assert await rest(case.ingress) == SWITCH


@pytest.mark.parametrize("cut", range(0, 24, 2))
async def test_what_came_through_the_ingress_is_read_first(case: Case, cut: int) -> None:
    """Wherever the client's bytes were when its connection was handed over, and whichever way is quicker."""
    stream = text(b"one") + text(b"") + text(b"three") + text(b"four")
    case.handover.write(SWITCH)
    await send(case.client, stream[cut:])
    case.take()
    assert await exactly(case.client, len(HEAD)) == HEAD  # it is here, and not read yet
    await send(case.ingress, stream[:cut])
    case.drained()
    await case.app.until(lambda: len(case.app.heard) >= len(stream))
    assert case.app.heard == stream


async def test_an_app_that_reads_nothing_may_still_write(case: Case) -> None:
    """What came early waits for it; its own messages do not."""
    case.handover.write(SWITCH)
    case.handover.pause_reading()
    await send(case.ingress, text(b"early"))
    case.drained()
    case.take()
    case.handover.write(text(b"hello"))
    assert await exactly(case.client, len(HEAD) + 7) == HEAD + text(b"hello")
    await send(case.client, text(b"late"))
    assert case.app.heard == b""
    case.handover.resume_reading()
    await case.app.until(lambda: len(case.app.heard) >= 13)
    assert case.app.heard == text(b"early") + text(b"late")


async def test_an_app_that_pauses_between_early_messages_gets_one_at_a_time(case: Case) -> None:
    """As servers do that hand over a message when the app asks for it."""
    case.app.on_data = lambda data: case.handover.pause_reading()
    case.handover.write(SWITCH)
    await send(case.client, text(b"two"))
    case.take()
    assert await exactly(case.client, len(HEAD)) == HEAD
    await send(case.ingress, text(b"one"))
    case.drained()
    await case.app.until(lambda: case.app.heard == text(b"one"))
    case.handover.resume_reading()
    await case.app.until(lambda: case.app.heard == text(b"one") + text(b"two"))


async def test_an_app_that_writes_much_before_there_is_a_connection_is_paused(case: Case) -> None:
    """And goes on when it is there."""
    case.handover.write(SWITCH)
    for _ in range(20):
        case.handover.write(large(10_000))
    assert not case.app.writable
    case.drained()
    case.take()
    assert await exactly(case.client, len(HEAD) + 20 * 10_010) == HEAD + large(10_000) * 20
    assert case.app.writable


async def test_a_slow_client_slows_the_app(case: Case) -> None:
    """Pausing comes from the client's own connection."""
    await case.open()
    written = 0
    while case.app.writable:
        case.handover.write(large(MIB))
        written += MIB + 10
        await asyncio.sleep(0)
    assert await exactly(case.client, written) == large(MIB) * (written // (MIB + 10))
    assert case.app.writable


async def test_a_slow_app_slows_the_client(case: Case) -> None:
    """While it does not read, little more than the kernel's buffers is taken from the client."""
    await case.open()
    case.handover.pause_reading()
    full = 0
    while full < 100:  # turns of the loop in which nothing was taken
        try:
            case.client.send(b"x" * 65536)
            full = 0
        except BlockingIOError:
            full += 1
        await asyncio.sleep(0)
    assert case.app.heard == b""


async def test_an_app_that_ends_at_once_is_heard(case: Case) -> None:
    """Its last words wait for the client's connection, and then it is closed."""
    case.handover.write(SWITCH)
    case.handover.write(text(b"bye") + close_frame(1000))
    case.handover.close()
    case.drained()
    case.take()
    assert await rest(case.client) == HEAD + text(b"bye") + close_frame(1000)
    case.client.close()
    await case.ended.wait()


async def test_closing_does_not_reset_a_client_that_still_sends(case: Case) -> None:
    """It reads all that was sent to it; its own Close ends the connection."""
    await case.open()
    await send(case.client, text(b"unread") * 1000)
    case.handover.write(close_frame(1000))
    case.handover.close()
    assert await rest(case.client) == close_frame(1000)
    await send(case.client, close_frame(1000, masked=True))
    await case.ended.wait()


async def test_a_client_that_leaves_is_heard(case: Case) -> None:
    """The app's protocol hears it once, and the container does."""
    await case.open()
    case.client.close()
    await case.ended.wait()
    assert case.app.lost.is_set()


async def test_a_client_that_leaves_before_the_answer_is_heard(case: Case) -> None:
    """The ingress then closes the request's connection."""
    case.ingress.close()
    await case.ended.wait()
    assert case.app.lost.is_set()


async def test_an_app_may_refuse(case: Case) -> None:
    """Any other answer goes to the ingress, whole, and nothing is awaited."""
    answer = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nnope"
    case.handover.write(answer[:50])
    case.handover.write(answer[50:])
    case.handover.close()
    assert await rest(case.ingress) == answer
    await case.ended.wait()


async def test_a_message_of_the_client_that_is_too_large_is_1009(case: Case) -> None:
    """Both sides get a Close frame; a message before it passes."""
    await case.open()
    await send(case.client, text(b"fine") + b"\x82\x7f" + (MAX_MESSAGE + 1).to_bytes(8, "big") + b"x")
    assert await exactly(case.client, 4) == close_frame(1009)
    await case.app.until(lambda: case.app.heard == text(b"fine") + close_frame(1009, masked=True))


async def test_a_message_of_the_app_that_is_too_large_is_1009(case: Case) -> None:
    """Also one that waits for the client's connection; nothing follows it."""
    case.handover.write(SWITCH)
    case.handover.write(text(b"fine"))
    case.handover.write(large(MAX_MESSAGE + 1))
    case.handover.write(text(b"after"))
    case.drained()
    case.take()
    assert await exactly(case.client, len(HEAD) + 10) == HEAD + text(b"fine") + close_frame(1009)
    case.handover.close()
    assert await rest(case.client) == b""


async def test_when_its_time_is_up_both_sides_hear_1001(case: Case) -> None:
    """The app's Close is one too many; the client's answer ends the connection."""
    await case.open()
    await send(case.client, text(b"fine"))
    await case.app.until(lambda: case.app.heard == text(b"fine"))
    case.handover.time_is_up()
    case.handover.time_is_up()
    assert case.app.heard == text(b"fine") + close_frame(1001, masked=True)
    case.handover.write(close_frame(1001))
    case.handover.close()
    await send(case.client, close_frame(1001, masked=True))
    assert await rest(case.client) == close_frame(1001)
    await case.ended.wait()


async def test_before_its_client_is_there_it_just_ends(case: Case) -> None:
    """There is nobody to speak to."""
    case.handover.write(SWITCH)
    case.handover.time_is_up()
    assert await rest(case.ingress) == SWITCH
    await case.ended.wait()


async def test_a_connection_that_comes_after_the_end_is_closed(case: Case) -> None:
    """Nobody is left to use it."""
    case.handover.write(SWITCH)
    case.handover.end()
    await case.ended.wait()
    case.take()
    assert await rest(case.client) == b""


async def test_what_ends_while_the_connection_comes_ends_that_too(case: Case) -> None:
    """The client is not left without an answer."""
    case.handover.write(SWITCH)
    case.take()
    case.handover.end()
    assert await rest(case.client) == b""
    await case.ended.wait()
