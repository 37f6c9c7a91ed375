"""The ingress as a whole: listening sockets, connections with their deadlines, the way from a host to an endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from portico.core.wheel import Wheel
from portico.ingress import pages
from portico.ingress.client import ClientConnection
from portico.ingress.front import Front
from portico.ingress.head import RequestHead, host_of
from portico.ingress.moving import MovableConnection, Mover, Passenger
from portico.ingress.ports import Directory, Refusal, Route
from portico.ingress.proxies import Proxies
from portico.ingress.redirect import Result, Results
from portico.ingress.upstream import Upstreams
from portico.model.proxies import Network
from portico.wire.memory import Memory
from portico.wire.websocket import MAX_MESSAGE

log = logging.getLogger("portico.ingress")

TICK: Final = 1.0  # seconds between looks at the deadlines
_ROOM: Final = 0.95  # of the connections that there may be: with so many or fewer, new ones are accepted again
DOOR: Final = "door"  # the entrance of everybody
CALLS: Final = "calls"  # that of containers, and of this user's programs
FRONT: Final = "front"  # that of the server that speaks HTTPS
HOST_CACHE: Final = 4096  # Host headers whose meaning is remembered


class Hosts:
    """What a listening socket's Host headers mean, as its directory says; remembered until routes change."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._found: dict[bytes, Route | Refusal] = {}

    def find(self, host: bytes) -> Route | Refusal:
        """Where this Host header leads."""
        found = self._found.get(host)
        if found is None:
            name = host_of(host)
            if name is None:
                return pages.NO_HOST
            found = self._directory.find(name)
            if len(self._found) >= HOST_CACHE:
                self._found.clear()
            self._found[host] = found
        return found

    def forget(self) -> None:
        """They may lead elsewhere from now on."""
        self._found.clear()


@dataclass(frozen=True, slots=True)
class Entrance:
    """A kind of connections: what their hosts mean, and who connects, if it is not anybody."""

    name: str
    hosts: Hosts
    front: Front | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressOptions:
    """What a door lets pass.

    max_message: bytes of a WebSocket's message; None: any number. trusted: where the proxies are that are believed
    about the clients behind them. redirect_after: seconds without an answer, after which a client is sent to the URL of
    the result; None: never. max_connections: with so many clients, more of them wait until some have gone.
    """

    max_message: int | None = MAX_MESSAGE
    trusted: tuple[Network, ...] = ()
    redirect_after: float | None = None
    max_connections: int = sys.maxsize


class Ingress:
    """Accepts connections and leads their requests to endpoints. All of it runs on one event loop.

    `directory` knows the hosts of all sockets that bring none of their own. mover: where there are other ingress
    processes, takes connections that belong there.
    """

    def __init__(
        self, directory: Directory, loop: asyncio.AbstractEventLoop, options: IngressOptions | None = None
    ) -> None:
        options = options or IngressOptions()
        self.max_message = options.max_message
        self.proxies = Proxies(options.trusted)
        self.upstreams = Upstreams(loop)
        self.now = loop.time
        self.results = Results(self)
        self.heads: Memory[RequestHead] = Memory()
        self._loop = loop
        self.mover: Mover | None = None
        self.on_resting: Callable[[bool], None] = lambda resting: None
        self.on_routes_changed: Callable[[], None] = lambda: None
        self._hosts = [Hosts(directory)]
        self._entrances: dict[str, Entrance] = {}
        self._connections: set[ClientConnection] = set()
        self._wheel: Wheel[ClientConnection | Result] = Wheel()
        self._ticking = False
        self._sockets: list[tuple[socket.socket, Entrance]] = []
        self._servers: list[asyncio.Server] = []  # as many, while connections are accepted
        self._max_connections = options.max_connections
        self._resting = False
        self._closed = False
        self._idle = asyncio.Event()
        self._date = (0, b"")

    def __repr__(self) -> str:
        return f"<Ingress {len(self._connections)} connections>"

    def enter(self, name: str = DOOR, directory: Directory | None = None, *, front: Front | None = None) -> Entrance:
        """Take connections of this kind; `directory` knows what their hosts mean, `front` is who connects."""
        if directory is not None:
            self._hosts.append(Hosts(directory))
        hosts = self._hosts[0] if directory is None else self._hosts[-1]
        entrance = self._entrances[name] = Entrance(name, hosts, front)
        return entrance

    async def listen(
        self,
        sock: socket.socket,
        directory: Directory | None = None,
        *,
        front: Front | None = None,
        name: str = DOOR,
    ) -> None:
        """Accept connections of a kind, as `enter` says, from this bound socket."""
        entrance = self.enter(name, directory, front=front)
        self._sockets.append((sock, entrance))
        await self._accept(sock, entrance)

    async def adopt(self, passenger: Passenger) -> None:
        """Go on with a connection that another process has accepted, and has read so much of."""
        assert self.mover is not None
        entrance = self._entrances[passenger.entrance]
        connection = MovableConnection(self, entrance, self.mover, passenger.read, passenger.hops)
        sock = socket.socket(fileno=passenger.descriptor)
        sock.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except OSError:
            sock.close()  # its client has gone
            return
        if self._closed:
            connection.drain()

    def refuse(self) -> None:
        """Accept no more, and let connections end as soon as no exchange runs."""
        self._closed = True
        self._accept_none()
        for sock, _ in self._sockets:
            sock.close()  # else clients would wait there, in vain
        for connection in list(self._connections):
            connection.drain()

    async def close(self, grace: float) -> None:
        """Accept no more; let running exchanges end, for at most `grace` seconds; then close what is left."""
        self.refuse()
        if self._connections:
            self._idle.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace)
        for connection in list(self._connections):
            connection.abort()
        self.results.close()
        self.upstreams.close()

    def routes_changed(self) -> None:
        """Hosts may lead elsewhere from now on."""
        for hosts in self._hosts:
            hosts.forget()
        self.on_routes_changed()

    # -- for connections ------------------------------------------------------------------------------------------
    def opened(self, connection: ClientConnection) -> None:
        """A connection is there."""
        self._connections.add(connection)
        self.watch(connection)
        if len(self._connections) >= self._max_connections and not self._resting:
            self._resting = True
            self.on_resting(True)
            log.warning("%d connections are open: new ones wait, for want of descriptors", len(self._connections))
            self._accept_none()

    def closed(self, connection: ClientConnection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self.unwatch(connection)
        if not self._connections:
            self._idle.set()
        if self._resting and not self._closed and len(self._connections) <= self._max_connections * _ROOM:
            self._resting = False
            self.on_resting(False)
            for sock, entrance in self._sockets:
                self._loop.create_task(self._accept(sock, entrance))

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do this then; for what is rare."""
        self._loop.call_later(seconds, action)

    def watch(self, dated: ClientConnection | Result) -> None:
        """Look at its deadline from now on."""
        self._wheel.drop(dated)
        self._wheel.put(dated, self.now())
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK, self._tick)

    def unwatch(self, dated: ClientConnection | Result) -> None:
        """Its deadline does not matter any more."""
        self._wheel.drop(dated)

    def date_line(self) -> bytes:
        """The Date header of this second."""
        second = int(self.now())
        if self._date[0] != second:
            self._date = (second, b"date: %b\r\n" % formatdate(usegmt=True).encode())
        return self._date[1]

    async def _accept(self, sock: socket.socket, entrance: Entrance) -> None:
        """Until `_accept_none`; the socket itself stays open, and the kernel lets clients wait there meanwhile."""
        create = self._loop.create_unix_server if sock.family == socket.AF_UNIX else self._loop.create_server
        server = await create(self._connections_of(entrance), sock=sock.dup(), backlog=2048)
        self._servers.append(server)
        if self._closed or self._resting:  # by now
            self._accept_none()

    def _connections_of(self, entrance: Entrance) -> Callable[[], ClientConnection]:
        mover = self.mover
        if mover is None:
            return lambda: ClientConnection(self, entrance.hosts, entrance.front)
        return lambda: MovableConnection(self, entrance, mover)

    def _accept_none(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    def _tick(self) -> None:
        for late in self._wheel.turn(self.now()):
            late.expired()
        self._ticking = len(self._wheel) > 0
        if self._ticking:
            self._loop.call_later(TICK, self._tick)
