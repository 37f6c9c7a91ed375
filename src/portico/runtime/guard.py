"""The outermost ASGI layer of a container: it knows each input by its id, and says when one has ended.

Laws:
1. An input has ended when the app's callable has returned, not when the client has its response.
2. The ingress takes the response's end for the input's end, unless the response carries HELD_HEADER; then, and after
   every Cancel, the guard says Done. So a response that may end before its input is marked.
3. To know which responses those are, what the app sends waits until the app returns, or suspends: then it goes out,
   marked. So most responses cost nothing but a list, and none is late.
4. An exception is logged once, with the input's id; the client sees a plain 500 if nothing was sent, and a cut-off
   response otherwise.
"""

from __future__ import annotations

import asyncio
import copy
import sys
import types
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import Any

from portico.runtime.asgi import App, Message, Receive, Scope, Send
from portico.wire.container import HELD_HEADER, INPUT_HEADER

Explain = Callable[[BaseException], tuple[str, str]]  # an exception -> its first line, its traceback
_HELD = (HELD_HEADER, b"1")
_FAREWELL = 3.0  # seconds for a WebSocket's handler to end by itself when its client has gone
_FORGET = 1_000  # cancelled ids that are remembered in case their request is still on its way
_EXPIRED = b"Missing request, possibly due to expiry or cancellation"
_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss"}


class AlreadyLogged(Exception):  # noqa: N818 - it is no error of its own
    """Tells the server below to close the connection; the reason is in the log."""


class Guard:
    """Wraps the user's app.

    done: says that an input has ended. explain: turns an exception into text. in_threads: the tasks that wait for a
    worker thread right now.
    """

    def __init__(
        self,
        app: App,
        *,
        done: Callable[[str], None],
        explain: Explain,
        in_threads: Callable[[], Iterable[object]] = tuple,
    ) -> None:
        self._app = app
        self._done = done
        self._explain = explain
        self._in_threads = in_threads
        self._running: dict[str, asyncio.Task[Any] | None] = {}
        self._sockets: set[str] = set()  # those of them that are WebSockets
        self._kept: set[str] = set()  # WebSockets of which only this container knows
        self._cancelled: dict[str, None] = {}  # a set in order of arrival

    def __repr__(self) -> str:
        return f"<Guard {len(self._running)} running>"

    def beside(self, app: App) -> Guard:
        """A guard of another app in the same container. Each of the two knows, and can end, the inputs of both."""
        other = copy.copy(self)
        other._app = app
        return other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One input. A request without the ingress's headers is served as it is."""
        input_id = _identify(scope)
        if input_id in self._cancelled:
            del self._cancelled[input_id]
            await _refuse(scope, send)
            return
        response = _Response(send) if scope["type"] == "http" else _Socket(send)
        if input_id:
            self._running[input_id] = asyncio.current_task()
            if scope["type"] == "websocket":
                self._sockets.add(input_id)
        try:
            await response.run(self._app(scope, receive, response.send))
        except BaseException as error:
            if not (isinstance(error, asyncio.CancelledError) and input_id in self._cancelled):
                self._log(scope, input_id, error)
            await response.fail()
        finally:
            if input_id:
                self._ended(input_id, response.held)

    def runs(self, input_id: str) -> bool:
        """Whether this input has begun, and has not ended. Any thread may ask."""
        return input_id in self._running

    def cancel(self, input_id: str) -> None:
        """End this input. One whose thread works goes on until the thread is done: nothing can end a thread.

        A WebSocket's handler hears of the end of its connection, and gets some time to say goodbye to others.
        """
        if input_id in self._cancelled:
            return
        self._cancelled[input_id] = None
        task = self._running.get(input_id)
        if task is None:
            self._done(input_id)
            if len(self._cancelled) > _FORGET:
                self._forget()
        elif input_id in self._sockets:
            asyncio.get_running_loop().call_later(_FAREWELL, self._interrupt, input_id)
        else:
            self._interrupt(input_id)

    def keep(self, input_id: str) -> None:
        """The ingress knows no more of this input, which is a WebSocket: Done will say when it has ended."""
        if input_id in self._running:
            self._kept.add(input_id)
        else:
            self._done(input_id)

    def leave(self, input_id: str) -> None:
        """The client of a kept input has left."""
        if input_id in self._kept:
            self.cancel(input_id)

    def cancel_all(self) -> None:
        """End all inputs, at once."""
        for input_id in list(self._running):
            if input_id not in self._cancelled or input_id in self._sockets:
                self._cancelled[input_id] = None
                self._interrupt(input_id)

    def _interrupt(self, input_id: str) -> None:
        task = self._running.get(input_id)
        if task is not None and task not in self._in_threads():
            task.cancel()

    def _ended(self, input_id: str, held: bool) -> None:
        del self._running[input_id]
        self._sockets.discard(input_id)
        if held or input_id in self._cancelled or input_id in self._kept:
            self._cancelled.pop(input_id, None)
            self._kept.discard(input_id)
            self._done(input_id)

    def _forget(self) -> None:
        oldest = next(input_id for input_id in self._cancelled if input_id not in self._running)
        del self._cancelled[oldest]

    def _log(self, scope: Scope, input_id: str, error: BaseException) -> None:
        cause, text = self._explain(error)
        what = f"{scope.get('method', 'WEBSOCKET')} {scope['path']}"
        sys.stderr.write(f"Request {input_id or '-'}: {what} raised {cause}\n{text.rstrip()}\n")


class _Response:
    """What an app sends for one HTTP request. `held`: the input's end is not the response's end."""

    __slots__ = ("_complete", "_join", "_order", "_send", "_stepping", "_waiting", "held")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._join: Callable[[], None] = getattr(send, "join", _nothing)
        self._waiting: list[Message] = []
        self._order: asyncio.Lock | None = None
        self._stepping = False
        self._complete = False
        self.held = False

    @types.coroutine
    def run(self, app: Awaitable[None]) -> Generator[Any, Any, None]:
        """Await the app, step by step, and pass on what it has sent when it suspends or returns.

        A callback of the loop would do too, but costs a turn of the loop, a system call, for each request.
        """
        steps = app.__await__()
        error: BaseException | None = None
        while True:
            self._stepping = True
            try:
                suspended_on = next(steps) if error is None else steps.throw(error)
            except StopIteration:
                break
            finally:
                self._stepping = False
            error = None
            try:
                if self._waiting:
                    yield from self._pass_on(held=True).__await__()
                yield suspended_on
            except BaseException as raised:  # a cancellation, or a send that failed: the app's to handle
                error = raised
        yield from self._pass_on(held=self.held).__await__()

    async def send(self, message: Message) -> None:
        """As ASGI's send."""
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        self._waiting.append(message)
        if self.held or not self._stepping or not (last or message["type"] == "http.response.start"):
            await self._pass_on(held=True)
        self._complete = self._complete or last

    async def fail(self) -> None:
        """The app has raised. AlreadyLogged when the response cannot be saved."""
        if self._complete:
            await self._pass_on(held=self.held)
        elif self.held:
            raise AlreadyLogged
        else:
            await _answer(self._send, 500, b"Internal Server Error")

    async def _pass_on(self, *, held: bool) -> None:
        if not held:
            await self._send_waiting()
            return
        self.held = True
        if self._order is None:
            self._order = asyncio.Lock()
        async with self._order:  # the app's own tasks may send while the client keeps us waiting
            if self._waiting and self._waiting[0]["type"] == "http.response.start":
                head = self._waiting[0]
                self._waiting[0] = {**head, "headers": [*head.get("headers", ()), _HELD]}
            await self._send_waiting()

    async def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if len(waiting) > 1:
            self._join()
        for message in waiting:
            await self._send(message)


class _Socket:
    """What an app sends over one WebSocket: as it is, but its input may outlive the connection."""

    __slots__ = ("_send", "held")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.held = False

    async def send(self, message: Message) -> None:
        """As ASGI's send."""
        if message["type"] == "websocket.accept":
            self.held = True
            message = {**message, "headers": [*message.get("headers", ()), _HELD]}
        await self._send(message)

    async def run(self, app: Awaitable[None]) -> None:
        """Await the app."""
        await app

    async def fail(self) -> None:
        """The app has raised."""
        raise AlreadyLogged


def _nothing() -> None:
    """A server that writes each message by itself."""


def _identify(scope: Scope) -> str:
    """The input's id; the ingress's header becomes what it says about the client, and the id that the user may see."""
    headers = scope["headers"]
    if not headers or headers[0][0] != INPUT_HEADER:
        return ""
    identifier, address, port, scheme, *_ = headers[0][1].decode("latin-1").split(" ")
    headers[0] = (b"x-request-id", identifier.encode())
    scope["client"] = (address, int(port))
    scope["scheme"] = _WEBSOCKET_SCHEMES[scheme] if scope["type"] == "websocket" else scheme
    return str(identifier)


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1011})
    else:
        await _answer(send, 408, _EXPIRED)


async def _answer(send: Send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
