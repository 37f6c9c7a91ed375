"""Serves an ASGI app on a container's Unix socket until it is told to stop. The only file that knows uvicorn.

uvicorn's protocol classes run directly on the loop's own server: `uvicorn.Server` would wake up ten times a second.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from portico.model.naming import door_of
from portico.runtime.asgi import Receive, Scope, Send
from portico.runtime.guard import AlreadyLogged, Explain, Guard
from portico.runtime.handover import Handover
from portico.runtime.lifespan import Lifespan
from portico.runtime.tunnel import EXTENSION, Tunnel
from portico.runtime.web import Endpoint
from portico.wire.container import INPUT_HEADER, OFFER, Cancel, HandOver, Stop
from portico.wire.websocket import MAX_MESSAGE, allowance

_FOREVER = 10 * 365 * 86400  # seconds: when an idle connection closes is for the ingress to say
_SEND_BUFFER = 512 * 1024
_DEFAULT_GRACE = 30.0  # seconds, for a SIGTERM
_FRAMEWORK_THREADS = 40  # what FastAPI and Starlette have by themselves: files, background tasks, an app's own


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
        self._threads = max_inputs + _FRAMEWORK_THREADS
        self._max_message = max_message
        self._explain = explain
        self._guard = Guard(_nowhere, done=done, explain=explain, in_threads=self._in_threads)
        self._doors = [
            _Door(endpoint, socket_path + door_of(method), self._guard.beside(endpoint.app))
            for method, endpoint in endpoints.items()
        ]
        self._state = _State(self._max_message, self._guard.leave)
        self._stop: asyncio.Future[float] | None = None
        self._limiter: Any = None

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Start, call `on_ready`, serve until a `Stop`, and end in good order. Raises what the app's start raises."""
        loop = asyncio.get_running_loop()
        self._stop = loop.create_future()
        self._limiter = _thread_limiter(self._threads)
        for door in self._doors:
            if door.lifespan is not None:
                await door.lifespan.startup()
        servers = [await door.open(self._state) for door in self._doors]
        loop.add_signal_handler(signal.SIGTERM, self._stop_within, _DEFAULT_GRACE)
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

    def obey(self, message: Cancel | Stop) -> None:
        """What the server says."""
        if isinstance(message, Cancel):
            if handover := self._state.handovers.get(message.input_id):
                handover.end()
            self._guard.cancel(message.input_id)
        else:
            self._stop_within(message.grace)

    def _stop_within(self, grace: float) -> None:
        assert self._stop is not None
        if not self._stop.done():
            self._stop.set_result(grace)

    async def _drain(self, grace: float) -> None:
        """Let the running inputs finish. Near the end of the grace, cancel the rest."""
        deadline = asyncio.get_running_loop().call_later(max(grace - 1.0, grace / 2), self._give_up)
        for connection in list(self._state.connections):
            if isinstance(connection, HttpToolsProtocol):  # a WebSocket is one running input
                connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks))
        await self._connections.empty()
        deadline.cancel()

    def _give_up(self) -> None:
        """End what still runs. A request without an answer gets none from here: the ingress may ask elsewhere."""
        self._guard.cancel_all()
        for connection in list(self._state.connections):
            if isinstance(connection, HttpToolsProtocol):
                connection.transport.close()
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
        return () if self._limiter is None else self._limiter.statistics().borrowers


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
        config = _config(self._guard, "none" if self._tunnels else _websocket_protocol(), state.max_message)
        protocol = _TunnelProtocol if self._tunnels else _Protocol
        app_state = self.lifespan.state if self.lifespan is not None else {}
        return await loop.create_unix_server(lambda: protocol(config, state, app_state, loop), self._path, backlog=2048)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("inputs come through doors")


class _Protocol(HttpToolsProtocol):
    """Has room on its way out for what apps usually write at a time: so a writer seldom has to wait in its midst."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        super().connection_made(transport)

    def handle_websocket_upgrade(self) -> None:
        self._expect_connection()
        super().handle_websocket_upgrade()

    def _expect_connection(self) -> None:
        """If the ingress offers the client's connection, what follows goes by way of what will take that over."""
        name, value = self.headers[0]
        if name != INPUT_HEADER or not value.endswith(b" " + OFFER):
            return
        assert isinstance(self.server_state, _State)
        self.transport = self.server_state.expect(value.partition(b" ")[0].decode(), self.transport, self)


class _TunnelProtocol(_Protocol):
    """A request to upgrade is a request like any other here, with a tunnel: its app may take the connection over."""

    _tunnel: Tunnel | None = None

    def on_headers_complete(self) -> None:
        upgrade = self.parser.should_upgrade()
        if upgrade:
            self._expect_connection()
            self._tunnel = Tunnel(self.transport)
            self.scope["extensions"] = {EXTENSION: self._tunnel}  # type: ignore[dict-item]  # it goes no further than to us
        super().on_headers_complete()
        if upgrade:
            self.cycle.keep_alive = False  # what follows on the connection is not for the parser, whatever is answered

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.from_client(data)
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._tunnel is not None and (rest := data[upgrade.args[0] :]):
                self._tunnel.from_client(rest)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

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


def _config(app: Guard, ws: Any, max_message: int | None) -> uvicorn.Config:
    # with what a packed message may have more: the limit is on what is on the wire, too
    unpacked = sys.maxsize if max_message is None else max_message + allowance(max_message)
    config = uvicorn.Config(
        app,
        loop="none",
        interface="asgi3",
        lifespan="off",
        ws=ws,
        ws_max_size=unpacked,
        ws_ping_interval=None,  # it would end a WebSocket whose app, or client, reads nothing for a while
        log_config=None,
        access_log=False,
        proxy_headers=False,
        date_header=False,
        server_header=False,
        timeout_keep_alive=_FOREVER,
    )
    _quiet()
    config.load()
    return config


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


def _thread_limiter(threads: int) -> Any:
    """anyio's limit on worker threads, which FastAPI and Starlette go by; None where the image has no anyio."""
    try:
        from anyio import to_thread  # comes with FastAPI and Starlette; an app may do without
    except ImportError:
        return None
    limiter = to_thread.current_default_thread_limiter()
    limiter.total_tokens = threads
    return limiter
