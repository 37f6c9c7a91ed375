"""The ingress without sockets: bytes go in at one end, what a container and a client see comes out at the others.

Everything but the transports is the real thing. Nothing waits: `Memory.settle` does all that is due.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

import h11

from portico.ingress.client import ClientConnection
from portico.ingress.door import Hosts, Ingress
from portico.ingress.exchange import Exchange
from portico.ingress.ports import Lease, Refusal, Route, Waiter
from portico.ingress.upstream import UpstreamConnection, Upstreams

LIMIT = 2**20  # of a head that h11 takes: ours is smaller
QUIET, _ = socket.socketpair()  # what a line shows to those who ask for its socket: there is no news on it


class Line(asyncio.Transport):
    """A connection: what its protocol has written, and what waits to be read."""

    def __init__(self, memory: Memory) -> None:
        super().__init__({"peername": ("10.0.0.9", 4321), "socket": QUIET})
        self.written = bytearray()
        self.aborted = False
        self.ended = False  # it writes no more
        self.unread = 0  # bytes that the other side has not taken yet, as `get_write_buffer_size` says
        self._memory = memory
        self._protocol = cast("asyncio.Protocol", None)
        self._incoming: deque[bytes] = deque()
        self._reading = True
        self._closing = False
        self._lost = False

    def attach(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)

    def arrive(self, data: bytes) -> None:
        """The other side has sent this; b"" is its end."""
        self._incoming.append(data)
        self._memory.settle()

    def read(self) -> bool:
        """Hand on what has arrived; whether there was anything."""
        if not self._reading or self._closing or not self._incoming:
            return False
        data = self._incoming.popleft()
        if data:
            self._protocol.data_received(data)
        else:
            self._protocol.eof_received()
            self.close()
        return True

    def write(self, data: Any) -> None:
        assert not self.ended or self._closing, "written after the end"
        if not self._closing:
            self.written += data

    def writelines(self, pieces: Iterable[Any]) -> None:
        self.write(b"".join(pieces))

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return self.unread

    def close(self) -> None:
        self._closing = self.ended = True
        if not self.unread:
            self._lose()

    def abort(self) -> None:
        self.aborted = self.aborted or not self._lost
        self._closing = self.ended = True
        self._lose()

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._memory.soon(lambda: self._protocol.connection_lost(None))


class Origin:
    """A container: an HTTP server with a parser that is not ours. It answers each whole request with "ok"."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes, bytes]] = []  # method, target, body
        self.failure: str | None = None
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
        self._head: h11.Request | None = None
        self._body = b""

    def feed(self, data: bytes) -> bytes:
        """What it answers."""
        answers = b""
        try:
            self._connection.receive_data(data)
            while type(event := self._connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                answers += self._see(event)
        except h11.RemoteProtocolError as error:
            self.failure = str(error)
        return answers

    def _see(self, event: Any) -> bytes:
        if isinstance(event, h11.Request):
            self._head, self._body = event, b""
        elif isinstance(event, h11.Data):
            self._body += event.data
        elif isinstance(event, h11.EndOfMessage) and self._head is not None:
            self.requests.append((self._head.method, self._head.target, self._body))
            return self._answer(self._head.method)
        elif isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("closed")
        return b""

    def _answer(self, method: bytes) -> bytes:
        connection = self._connection
        status = 501 if method == b"CONNECT" else 200  # else all that follows would be another protocol to h11
        answer = connection.send(h11.Response(status_code=status, headers=[("content-length", "3")])) or b""
        if method != b"HEAD":
            answer += connection.send(h11.Data(data=b"ok\n")) or b""
        answer += connection.send(h11.EndOfMessage()) or b""
        if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
            connection.start_next_cycle()
        return answer


class CountedLease:
    """A lease that writes down how it ended."""

    def __init__(self, ends: list[str], *, foreign: bool) -> None:
        self.address = "127.0.0.1:80" if foreign else "/container"
        self.is_foreign = foreign
        self.takes_connections = False
        self.stopping = False
        self.overran = False
        self.queued = 0
        self._ends = ends
        self._over = False

    def _end(self, verb: str) -> None:
        assert not self._over, "a lease ends once"
        self._over = True
        self._ends.append(verb)

    def release(self) -> None:
        self._end("release")

    def hold(self) -> None:
        self._end("hold")

    def hand_over(self, descriptor: int, head: bytes) -> None:
        raise AssertionError("it takes none")

    def cancel(self) -> None:
        self._end("cancel")

    def broken(self) -> None:
        self._end("broken")


class Memory:
    """An ingress with one client and an endpoint that has a slot for everybody, at any host."""

    def __init__(self, *, foreign: bool = False) -> None:
        self.now = 1000.0
        self.ends: list[str] = []
        self.given = 0
        self.upstreams: list[tuple[UpstreamConnection, Line]] = []
        self.serve: Callable[[Line], bytes] = lambda line: b""  # what the container behind this line says now
        self.is_foreign = foreign
        self._due: deque[Callable[[], object]] = deque()
        self.ingress = Ingress(self, cast("asyncio.AbstractEventLoop", self))
        self.ingress.upstreams = Wires(self)
        self.ingress.date_line = lambda: b""  # type: ignore[method-assign]
        self.client = Line(self)
        self.connection = ClientConnection(self.ingress, Hosts(self))
        self.client.attach(self.connection)

    # -- as a loop
    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, action: Callable[[], object], *arguments: object) -> None:
        """The test turns the wheel itself; what else is for later comes at once."""
        if action != self.ingress._tick:
            self.soon(action)

    def soon(self, action: Callable[[], object]) -> None:
        self._due.append(action)

    # -- as directory and endpoint
    def find(self, host: str) -> Route | Refusal:
        return Route(self)

    def lease(self, waiter: Waiter, input_id: str) -> Lease | Refusal | None:
        self.given += 1
        return CountedLease(self.ends, foreign=self.is_foreign)

    def leave(self, waiter: Waiter) -> None:
        raise AssertionError("nobody waits")

    # -- for tests
    def settle(self) -> None:
        """Do all that is due."""
        busy = True
        while busy:
            busy = self.client.read()
            for connection, line in list(self.upstreams):
                if not line.is_closing() and (answer := self.serve(line)):
                    connection.data_received(answer)
                    busy = True
                busy = line.read() or busy
            while self._due:
                self._due.popleft()()
                busy = True

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.ingress._tick()
        self.settle()

    def connect(self, exchange: Exchange, address: str) -> None:
        connection = UpstreamConnection(self.ingress.upstreams, address)
        line = Line(self)
        line.attach(connection)
        self.upstreams.append((connection, line))
        connection.begin(exchange)


class Wires(Upstreams):
    """Connections to containers that are there at once."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(cast("asyncio.AbstractEventLoop", memory))
        self._memory = memory

    def carry(self, exchange: Exchange, address: str) -> None:
        idle = self._idle.get(address)
        if idle:
            idle.pop().begin(exchange)
        else:
            self._memory.soon(lambda: self._memory.connect(exchange, address))
