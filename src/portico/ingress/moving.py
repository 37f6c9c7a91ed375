"""Connections that go on in another ingress process: there is more than one, and each function lives in one of them.

Laws:
1. A connection moves between requests only: when all answers before are with the kernel, with the bytes of the next
   request that were read, from its first byte on. Whoever gets it goes on as if it had read them itself.
2. What was read is kept only while nobody knows yet where the request belongs, and what waits so is bounded.
3. A request that came in behind another one, before that was answered, has no first byte that we know of. It is
   refused with 421, which says that nothing was done for it, and its client asks again on another connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from portico.ingress import pages
from portico.ingress.client import STUCK, ClientConnection

if TYPE_CHECKING:
    from portico.ingress.door import Entrance, Ingress
    from portico.ingress.exchange import Exchange

MOST_HOPS: Final = 16  # of one request; by then its function would have been found if there were one


@dataclass(frozen=True, slots=True)
class Passenger:
    """A connection on its way: by which entrance it came, its descriptor, what was read of it since the first byte of a
    request, that request's Host header, and how often it has moved with this request."""

    entrance: str
    descriptor: int
    read: bytes
    host: bytes = b""
    hops: int = 0


Mover = Callable[[Passenger, int], None]  # takes it to that process


class MovableConnection(ClientConnection):
    """One that may leave for elsewhere. inherited: what was read there, of one that has come; hops: see `Passenger`."""

    def __init__(
        self, ingress: Ingress, entrance: Entrance, mover: Mover, inherited: bytes = b"", hops: int = 0
    ) -> None:
        super().__init__(ingress, entrance.hosts, entrance.front)
        self._entrance = entrance.name
        self._mover = mover
        self._inherited = inherited
        self._hops = hops
        self._read: list[bytes] | None = None  # since the first byte of a request
        self._started = 0  # exchanges, since then
        self._parsing = False
        self._leaving: tuple[Exchange, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        inherited, self._inherited = self._inherited, b""
        if inherited:
            self.data_received(inherited)

    def data_received(self, data: bytes) -> None:
        if self._parsing:  # what is behind a parser's end begins anew there
            super().data_received(data)
            return
        if self._leaving is not None:
            assert self._read is not None
            self._read.append(data)
            return
        if self._current is None and self._head is None and self._reading is None:
            self._read, self._started = [data], 0
        elif self._read is not None:
            self._read.append(data)
        self._parsing = True
        super().data_received(data)
        self._parsing = False
        if self._leaving is not None:
            self._leave()
        elif self._read is not None and not self._is_undecided:
            self._read = None
            self._hops = 0

    def move(self, exchange: Exchange, process: int) -> None:
        if self._read is None or self._started != 1:
            super().move(exchange, process)
            return
        if self._hops >= MOST_HOPS:
            exchange.keep_alive = False
            exchange.refused(pages.NOWHERE)
            return
        self._leaving = (exchange, process)
        self._deaf = True  # to what the parser still says
        if not self._parsing:
            self._leave()

    def resume_writing(self) -> None:
        if self._leaving is not None:
            self._leave()
        else:
            super().resume_writing()

    def expired(self) -> None:
        if self._leaving is not None:
            self.abort()  # its client does not read the answers before
        else:
            super().expired()

    # -- inside ---------------------------------------------------------------------------------------------------
    def _start(self, exchange: Exchange) -> None:
        self._started += 1
        super()._start(exchange)

    @property
    def _is_undecided(self) -> bool:
        """Whether it may still turn out that the request belongs elsewhere."""
        if self._current is None:
            return self._head is not None
        return self._current.is_unplaced

    def _leave(self) -> None:
        assert self._leaving is not None
        assert self._read is not None
        if self._transport.is_closing():
            return
        if not self.is_flushed:
            self._transport.pause_reading()
            self.close_within(STUCK)
            self._transport.set_write_buffer_limits(0)  # and `resume_writing` tells when it is empty
            return
        exchange, process = self._leaving
        read, self._read = self._read, None
        host = exchange.head.hosts[0]
        self._mover(Passenger(self._entrance, self.detach(), b"".join(read), host, self._hops + 1), process)
