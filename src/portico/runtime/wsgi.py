"""Runs a WSGI app as an ASGI app: each request in a thread, its body and its response passed on piece by piece.

Laws:
1. A request has ended when the app's iterable is exhausted or given up, and closed, and its thread is free again.
2. At most `WINDOW` bytes wait between loop and thread, each way: a slow client slows the app, a slow app the client.
3. A client's leaving reaches the thread when it reads or writes next; nothing else can be done to a thread.
4. A response's last part goes out when the iterable is exhausted, or the Content-Length reached: closing may take time.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, NamedTuple

from portico.runtime.asgi import Message, Receive, Scope, Send
from portico.runtime.environ import make_environ
from portico.runtime.tunnel import EXTENSION, Tunnel

WsgiCallable = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

WINDOW: Final = 64 * 1024  # bytes
_SOCKET: Final = "werkzeug.socket"  # the name by which simple-websocket, and with it flask-sock, looks for it
_BODYLESS: Final = frozenset([204, 304])
_HOP_BY_HOP: Final = frozenset(["connection", "keep-alive", "transfer-encoding", "trailer", "te", "upgrade"])


class ClientLeftError(ConnectionError):
    """Nobody waits for the response any more."""


class WsgiApp:
    """An ASGI app made of a WSGI app, with so many threads. A request to upgrade finds its socket in the environ."""

    def __init__(self, app: WsgiCallable, threads: int) -> None:
        self._app = app
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="wsgi")
        self._multithread = threads > 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Raises what the app raises."""
        response = _Response(scope["method"])
        body = _Body(receive, response.give_up)
        environ = make_environ(scope, io.BufferedReader(body), multithread=self._multithread)
        tunnel: Tunnel | None = scope.get("extensions", {}).get(EXTENSION)
        connection = None
        if tunnel is not None:
            connection = environ[_SOCKET] = await tunnel.open()
        self._threads.submit(contextvars.copy_context().run, _run, self._app, environ, response, connection)
        try:
            await _pass_on(response, send, body, tunnel)
        except BaseException:
            body.give_up()
            if tunnel is not None:
                tunnel.end() if tunnel.taken else tunnel.refuse()
            await response.ended()
            raise
        finally:
            body.forget()
            if tunnel is not None and tunnel.taken:
                await tunnel.closed()


def _run(app: WsgiCallable, environ: dict[str, Any], response: _Response, connection: socket.socket | None) -> None:
    """The part in the thread, from the call to the end."""
    error: BaseException | None = None
    try:
        _iterate(app(environ, response.start), response)
    except ClientLeftError:
        pass
    except BaseException as raised:
        error = raised
    if connection is not None:
        with suppress(OSError):  # the app may have closed it
            connection.shutdown(socket.SHUT_RDWR)  # wakes a thread of the app's that still reads from it
        connection.close()
    response.end(error)


def _iterate(pieces: Iterable[bytes], response: _Response) -> None:
    try:
        for piece in pieces:
            response.write(piece)
            if response.bodyless:
                break
        response.finish()
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


async def _pass_on(response: _Response, send: Send, body: _Body, tunnel: Tunnel | None) -> None:
    """Send what the thread says, until it has ended."""
    while True:
        part = await response.take()
        if tunnel is not None and tunnel.taken:
            pass  # the app has spoken for itself; what it returns besides is for servers that need a response
        elif part.head is not None or part.body or part.last:
            if tunnel is not None:
                tunnel.refuse()
                tunnel = None
            if part.head is not None:
                await send(part.head)
            await send({"type": "http.response.body", "body": part.body, "more_body": not part.last})
        response.made_room(len(part.body))
        if part.error is not None:
            raise part.error
        if part.ended:
            return
        body.watch()


class _Part(NamedTuple):
    """What the thread has said since the last time."""

    head: Message | None
    body: bytes | memoryview
    last: bool  # this part of the body is the last one
    ended: bool
    error: BaseException | None


class _Response:
    """A response on its way from the thread to the loop."""

    def __init__(self, method: str) -> None:
        self.bodyless = False
        self._method = method
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._head: Message | None = None
        self._head_due: Message | None = None  # it goes out with the first piece
        self._sent = False  # the head is on its way, or has arrived
        self._pieces: list[bytes | memoryview] = []
        self._waiting = 0  # bytes that are not sent yet
        self._due: int | None = None  # bytes up to the Content-Length
        self._last = False
        self._last_due = False
        self._ended = False
        self._error: BaseException | None = None
        self._left = False
        self._news = False
        self._sleeper: asyncio.Future[None] | None = None

    # -- in the thread --------------------------------------------------------------------------------------------
    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """As PEP 3333's start_response."""
        if exc_info is not None:
            try:
                if self._sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # it holds this frame, which holds it
        elif self._head is not None:
            raise RuntimeError("The app has called start_response twice, and the second time without exc_info.")
        code = int(status[:3])
        if not 200 <= code <= 599:
            raise ValueError(f"The app has answered {status!r}, which is not the status of a response.")
        self.bodyless = self._method == "HEAD" or code in _BODYLESS
        self._due = None
        encoded = []
        for name, value in headers:
            lower = name.lower()
            if lower == "content-length":
                if code in _BODYLESS:
                    continue
                self._due = None if self.bodyless else int(value)
            elif lower in _HOP_BY_HOP:
                continue  # they are the server's business
            encoded.append((lower.encode("latin-1"), value.strip().encode("latin-1")))
        self._head = {"type": "http.response.start", "status": code, "headers": encoded}
        return self.write

    def write(self, data: bytes) -> None:
        """Pass on a piece of the body; waits while too much of it waits. Raises ClientLeftError."""
        if self._head is None:
            raise RuntimeError("The app has sent a part of the body before it called start_response.")
        if not isinstance(data, bytes):
            raise TypeError(f"The body of a WSGI response is made of bytes, not of {type(data).__name__}.")
        if self._left:
            raise ClientLeftError
        if self.bodyless or not data:
            return
        if self._due is not None and len(data) > self._due:
            raise RuntimeError("The app has sent more than its Content-Length says.")
        for piece in (data,) if len(data) <= WINDOW else _slices(data):
            self._put(piece)

    def _put(self, piece: bytes | memoryview) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._left or self._waiting < WINDOW)
            if self._left:
                raise ClientLeftError
            self._begin()
            self._pieces.append(piece)
            self._waiting += len(piece)
            if self._due is not None:
                self._due -= len(piece)
                if not self._due:
                    self._complete()
            self._tell()

    def finish(self) -> None:
        """The iterable is exhausted."""
        if self._head is None:
            raise RuntimeError("The app has not called start_response.")
        if self._due:
            raise RuntimeError(f"The app has sent {self._due} bytes less than its Content-Length says.")
        with self._changed:
            self._begin()
            self._complete()
            self._tell()

    def end(self, error: BaseException | None) -> None:
        """The thread has nothing more to do."""
        with self._changed:
            self._ended = True
            self._error = error
            self._tell()

    def _begin(self) -> None:
        if not self._sent:
            self._sent, self._head_due = True, self._head

    def _complete(self) -> None:
        if not self._last:
            self._last = self._last_due = True

    def _tell(self) -> None:
        self._news = True
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None:
            self._loop.call_soon_threadsafe(_wake, sleeper)

    # -- in the loop ----------------------------------------------------------------------------------------------
    async def take(self) -> _Part:
        """What has come since the last time, as soon as there is something."""
        with self._changed:
            sleeper = self._sleeper = None if self._news else self._loop.create_future()
        if sleeper is not None:
            await sleeper
        with self._changed:
            self._news = False
            head, self._head_due = self._head_due, None
            pieces, self._pieces = self._pieces, []
            last, self._last_due = self._last_due, False
            error, self._error = self._error, None
            return _Part(head, pieces[0] if len(pieces) == 1 else b"".join(pieces), last, self._ended, error)

    def made_room(self, size: int) -> None:
        """So many bytes are sent."""
        with self._changed:
            self._waiting -= size
            self._changed.notify_all()

    def give_up(self) -> None:
        """Nobody wants the rest, if there is one."""
        with self._changed:
            self._left = not self._last
            self._changed.notify_all()

    async def ended(self) -> None:
        """Returns when the thread has ended, and not before, whoever cancels."""
        while not self._ended:
            with suppress(asyncio.CancelledError):
                await self.take()


class _Body(io.RawIOBase):
    """A request's body as a file for the thread, filled by the loop as the thread reads."""

    def __init__(self, receive: Receive, on_leaving: Callable[[], None]) -> None:
        self._receive = receive
        self._on_leaving = on_leaving
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._bytes = bytearray()
        self._complete = False
        self._left = False
        self._room: asyncio.Future[None] | None = None  # what the loop waits for when there is enough
        self._filling: asyncio.Task[None] | None = None

    # -- in the thread --------------------------------------------------------------------------------------------
    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, target: Any) -> int:
        """As io.RawIOBase. Raises ClientLeftError."""
        with self._changed:
            if not self._has_news():
                self._loop.call_soon_threadsafe(self.watch)
                self._changed.wait_for(self._has_news)
            size = min(len(target), len(self._bytes))
            if not size and not self._complete:
                raise ClientLeftError("The client has left before it had sent the whole request.")
            target[:size] = self._bytes[:size]
            del self._bytes[:size]
            if self._room is not None and len(self._bytes) < WINDOW:
                room, self._room = self._room, None
                self._loop.call_soon_threadsafe(_wake, room)
            return size

    def _has_news(self) -> bool:
        return bool(self._bytes) or self._complete or self._left

    # -- in the loop ----------------------------------------------------------------------------------------------
    def watch(self) -> None:
        """Begin to receive: the body, and then the client's leaving."""
        if self._filling is None:
            self._filling = self._loop.create_task(self._fill())

    async def _fill(self) -> None:
        while (message := await self._receive())["type"] == "http.request":
            with self._changed:
                self._bytes += message.get("body", b"")
                self._complete = not message.get("more_body", False)
                self._changed.notify_all()
                if len(self._bytes) >= WINDOW and not self._complete:
                    self._room = self._loop.create_future()
                room = self._room
            if room is not None:
                await room
        self.give_up()

    def give_up(self) -> None:
        """The client has left."""
        with self._changed:
            self._left = True
            self._changed.notify_all()
        self._on_leaving()

    def forget(self) -> None:
        """Nobody reads it any more."""
        if self._filling is not None:
            self._filling.cancel()


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


def _slices(data: bytes) -> Iterable[memoryview]:
    view = memoryview(data)
    return (view[at : at + WINDOW] for at in range(0, len(data), WINDOW))
