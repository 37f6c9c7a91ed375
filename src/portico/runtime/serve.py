"""Serves an ASGI app on a container's Unix socket until it is told to stop. The only file that knows uvicorn.

uvicorn speaks WebSockets. Its protocol classes run directly on the loop's own server: `uvicorn.Server` would wake up
ten times a second. What is HTTP, is `http`'s.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from portico.model.naming import door_of
from portico.runtime import plain
from portico.runtime.asgi import Receive, Scope, Send
from portico.runtime.guard import AlreadyLogged, Explain, Guard
from portico.runtime.handover import Handover
from portico.runtime.http import HttpProtocol
from portico.runtime.lifespan import Lifespan
from portico.runtime.threads import InThreads, limit_frameworks
from portico.runtime.tunnel import EXTENSION, Tunnel
from portico.runtime.web import Endpoint
from portico.wire.container import INPUT_HEADER, OFFER, Cancel, HandOver, Stop
from portico.wire.websocket import MAX_MESSAGE, allowance

_SEND_BUFFER = 512 * 1024
_DEFAULT_GRACE = 30.0  # seconds, for a SIGTERM


class Server:
    """The apps of one container, each on a socket of its own. `done` and `explain` are the guard's.

    endpoints: by the name of the method, which is "" for a function. max_message: what a WebSocket's message may have,
    in bytes, or None; the ingress sees to that, but for messages that grow when they are unpacked.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        socket_path: str,
        *,
        max_inputs: int,
        max_message: int | None = MAX_MESSAGE,
        done: Callable[[str], None],
        explain: Explain,
    ) -> None:
        self._max_inputs = max_inputs
        self._max_message = max_message
        self._explain = explain
        self._done = done
        self._guard = Guard(_nowhere, done=done, explain=explain, in_threads=self._in_threads)
        self._doors = [
            _Door(endpoint, socket_path + door_of(method), self._guard.beside(endpoint.app))
            for method, endpoint in endpoints.items()
        ]
        self._state = _State(self._max_message, self._guard.leave)
        self._stop: asyncio.Future[float] | None = None
        self._borrowers: InThreads = tuple

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Start, call `on_ready`, serve until a `Stop`, and end in good order. Raises what the app's start raises."""
        loop = self._loop = asyncio.get_running_loop()
        self._stop = loop.create_future()
        self._borrowers = limit_frameworks(self._max_inputs)
        for door in self._doors:
            if door.lifespan is not None:
                await door.lifespan.startup()
        servers = [await door.open(self._state) for door in self._doors]

        async def heed() -> None:  # signals come to the user's loop
            stop = partial(loop.call_soon_threadsafe, self._stop_within, _DEFAULT_GRACE)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)

        away = plain.here()
        await (heed() if away is None else away.at_home(heed()))
        on_ready()
        grace = await self._stop
        for server in servers:
            server.close()
        await self._drain(grace)
        await self._shut_down()

    def take_over(self, message: HandOver, connection: socket.socket) -> None:
        """The client's connection of a WebSocket that an app here has accepted."""
        handover = self._state.handovers.get(message.input_id)
        if handover is None:
            connection.close()
        else:
            handover.take(connection, message.head)
        self._guard.keep(message.input_id)

    def hear(self, message: Cancel | Stop) -> None:
        """What the server says, on the user's loop: a plain function keeps the other one waiting."""
        if self._loop is asyncio.get_running_loop():
            self.obey(message)
            return
        if isinstance(message, Cancel) and not self._guard.runs(message.input_id):
            self._done(message.input_id)  # and, at the latest when `obey` runs, once more: that does no harm
        self._loop.call_soon_threadsafe(self.obey, message)

    def obey(self, message: Cancel | Stop) -> None:
        """The same on the loop that serves."""
        if isinstance(message, Cancel):
            if handover := self._state.handovers.get(message.input_id):
                handover.time_is_up()
            self._guard.cancel(message.input_id)
        else:
            self._stop_within(message.grace)

    def _stop_within(self, grace: float) -> None:
        assert self._stop is not None
        if not self._stop.done():
            self._stop.set_result(grace)

    async def _drain(self, grace: float) -> None:
        """Let the running inputs finish. Near the end of the grace, cancel the rest, and leave alone what goes on."""
        for connection in list(self._state.connections):
            if isinstance(connection, HttpProtocol):  # a WebSocket is one running input
                connection.shutdown()
        finishing = asyncio.ensure_future(self._finish())
        until_cut, until_left = last_moments(grace)
        if not await _within(until_cut, finishing):
            self._give_up()
            await _within(until_left - until_cut, finishing)

    async def _finish(self) -> None:
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks))
        await self._connections.empty()

    def _give_up(self) -> None:
        """End what still runs. A request without an answer gets none from here: the ingress may ask elsewhere."""
        self._guard.cancel_all()
        for connection in list(self._state.connections):
            if isinstance(connection, _Protocol):
                connection.give_up()
            else:
                connection.shutdown()

    @property
    def _connections(self) -> _Connections:
        assert isinstance(self._state.connections, _Connections)
        return self._state.connections

    async def _shut_down(self) -> None:
        for lifespan in [door.lifespan for door in reversed(self._doors) if door.lifespan is not None]:
            try:
                await lifespan.shutdown()
            except Exception as error:
                cause, text = self._explain(error)
                sys.stderr.write(f"Shutdown raised {cause}\n{text.rstrip()}\n")

    def _in_threads(self) -> Iterable[object]:
        return self._borrowers()


class _Door:
    """One app and its socket."""

    def __init__(self, endpoint: Endpoint, path: str, guard: Guard) -> None:
        self.lifespan = Lifespan(endpoint.app) if endpoint.lifespan else None
        self._tunnels = endpoint.tunnels
        self._path = path
        self._guard = guard

    async def open(self, state: _State) -> asyncio.Server:
        """Listen."""
        loop = asyncio.get_running_loop()
        app_state = self.lifespan.state if self.lifespan is not None else {}
        protocol = _TunnelProtocol if self._tunnels else _web_protocol(self._guard, state, app_state)
        create = partial(protocol, state, self._guard, app_state)
        return await loop.create_unix_server(create, self._path, backlog=2048)


def last_moments(grace: float) -> tuple[float, float]:
    """In how many seconds what still runs is cut off, and in how many what goes on all the same is left alone.

    The rest of the grace is for exit handlers.
    """
    rest = min(1.0, grace / 2)
    return grace - rest, grace - rest / 2


async def _within(seconds: float, work: asyncio.Future[None]) -> bool:
    """Whether it is done by then."""
    done, _ = await asyncio.wait({work}, timeout=seconds)
    return bool(done)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("inputs come through doors")


class _Protocol(HttpProtocol):
    """Has room on its way out for what apps usually write at a time: so a writer seldom has to wait in its midst."""

    def __init__(self, state: _State, app: Guard, app_state: dict[str, Any]) -> None:
        super().__init__(app, app_state, state.connections, state.tasks)
        self._server_state = state

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        super().connection_made(transport)

    def give_up(self) -> None:
        """What runs on it is to end now."""
        self.transport.close()

    def _expect_connection(self) -> None:
        """If the ingress offers the client's connection, what follows goes by way of what will take that over."""
        name, value = self.headers[0]
        if name == INPUT_HEADER and value.endswith(b" " + OFFER):
            self.transport = self._server_state.expect(value.partition(b" ")[0].decode(), self.transport, self)


class _WebProtocol(_Protocol):
    """A request for a WebSocket is one for uvicorn's protocol."""

    _websockets: Callable[[], Any] | None = None  # makes such a protocol; None: there is none in this image

    def takes_over(self) -> bool:
        headers = dict(self.headers)
        offers = [token.strip() for token in headers.get(b"connection", b"").lower().split(b",")]
        is_websocket = b"upgrade" in offers and headers.get(b"upgrade", b"").lower() == b"websocket"
        self._takes_over = is_websocket and self._websockets is not None
        return self._takes_over

    def upgraded(self, rest: bytes) -> None:
        if not self._takes_over or self._websockets is None:
            super().upgraded(rest)
            return
        self._expect_connection()
        self._connections.discard(self)
        lines = [b"%b %b HTTP/1.1\r\n" % (self.scope["method"].encode(), self.url)]
        lines += [b"%b: %b\r\n" % header for header in self.headers]
        protocol = self._websockets()
        protocol.connection_made(self.transport)
        protocol.data_received(b"".join([*lines, b"\r\n", rest]))
        self.transport.set_protocol(protocol)


class _TunnelProtocol(_Protocol):
    """A request to upgrade is a request like any other here, with a tunnel: its app may take the connection over."""

    _tunnel: Tunnel | None = None

    def takes_over(self) -> bool:
        self._expect_connection()
        self._tunnel = Tunnel(self.transport)
        self.scope["extensions"] = {EXTENSION: self._tunnel}
        return False

    def give_up(self) -> None:
        if self._tunnel is not None and self._tunnel.taken:
            self._tunnel.end()
        else:
            super().give_up()

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.from_client(data)
        else:
            super().data_received(data)

    def upgraded(self, rest: bytes) -> None:
        super().upgraded(rest)
        if self._tunnel is not None and rest:
            self._tunnel.from_client(rest)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._tunnel is not None:
            self._tunnel.client_is_slow()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._tunnel is not None:
            self._tunnel.client_is_ready()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._tunnel is not None:
            self._tunnel.client_has_gone()


class _State(ServerState):
    """What the connections of a server share, and the WebSockets whose clients' connections are, or will be, here.

    max_message: what a WebSocket's message may have, in bytes, or None. on_left: hears whose clients have left.
    """

    def __init__(self, max_message: int | None, on_left: Callable[[str], None]) -> None:
        super().__init__()
        self.connections = _Connections()
        self.handovers: dict[str, Handover] = {}
        self.max_message = max_message
        self._on_left = on_left

    def expect(self, input_id: str, transport: asyncio.Transport, protocol: asyncio.Protocol) -> Handover:
        """Let this input's protocol go on with the client's connection."""

        def ended() -> None:
            self.handovers.pop(input_id, None)
            self._on_left(input_id)

        handover = self.handovers[input_id] = Handover(transport, protocol, self.max_message, ended)
        return handover


class _Connections(set[Any]):
    """The open connections, as uvicorn's protocols keep them; one can wait for the last to go."""

    def __init__(self) -> None:
        super().__init__()
        self._emptied: asyncio.Future[None] | None = None

    def discard(self, connection: Any) -> None:
        super().discard(connection)
        self._notify()

    def remove(self, connection: Any) -> None:
        super().remove(connection)
        self._notify()

    async def empty(self) -> None:
        """Returns when none is open."""
        if self:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied

    def _notify(self) -> None:
        if self._emptied is not None and not self and not self._emptied.done():
            self._emptied.set_result(None)


def _web_protocol(app: Guard, state: _State, app_state: dict[str, Any]) -> type[_WebProtocol]:
    # with what a packed message may have more: the limit is on what is on the wire, too
    unpacked = sys.maxsize if state.max_message is None else state.max_message + allowance(state.max_message)
    config = uvicorn.Config(
        app,
        loop="none",
        interface="asgi3",
        lifespan="off",
        ws=_websocket_protocol(),
        ws_max_size=unpacked,
        ws_ping_interval=None,  # it would end a WebSocket whose app, or client, reads nothing for a while
        log_config=None,
        access_log=False,
        proxy_headers=False,
        date_header=False,
        server_header=False,
    )
    _quiet()
    config.load()
    websockets: Any = config.ws_protocol_class

    class Protocol(_WebProtocol):
        if websockets is not None:
            _websockets = partial(websockets, config=config, server_state=state, app_state=app_state)

    return Protocol


def _websocket_protocol() -> Any:
    try:
        module = importlib.import_module("uvicorn.protocols.websockets.websockets_sansio_impl")
    except ImportError:  # an older uvicorn or websockets in the user's image
        return "auto"
    return module.WebSocketsSansIOProtocol


def _quiet() -> None:
    """uvicorn's own words go to stderr, unless the guard has said it better."""
    logger = logging.getLogger("uvicorn.error")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.addFilter(_is_news)
    logger.setLevel(logging.WARNING)
    logger.propagate = False


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], AlreadyLogged))
