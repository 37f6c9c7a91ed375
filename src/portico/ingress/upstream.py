"""Connections to containers: kept alive, one exchange at a time, found by the container's address."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import TYPE_CHECKING, Final, cast

import httptools

from portico.ingress.exchange import Exchange
from portico.ingress.head import LONG, MAX_HEAD, Answer, ResponseHead, learn_answer
from portico.wire.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from portico.ingress.ports import Lease

MOST_INTERIM: Final = 1000  # responses before the one that counts
SMALL: Final = 16 * 1024  # bytes of a response that is worth looking up
SEND_BUFFER: Final = 512 * 1024  # bytes: room for what is read at a time, so that a writer seldom has to wait


class Upstreams:
    """All connections to containers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answers: Memory[Answer] = Memory()
        self._loop = loop
        self._idle: dict[str, list[UpstreamConnection]] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._open: set[UpstreamConnection] = set()

    def carry(self, exchange: Exchange, address: str) -> None:
        """Give the exchange a connection to this container: an idle one at once, or a new one soon."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if not connection.has_news():
                connection.begin(exchange)
                return
        task = self._loop.create_task(self._connect(exchange, address))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, exchange: Exchange, address: str) -> None:
        connection = UpstreamConnection(self, address)
        try:
            if address.startswith("/"):
                transport, _ = await self._loop.create_unix_connection(lambda: connection, address)
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            else:
                host, _, port = address.rpartition(":")
                await self._loop.create_connection(lambda: connection, host.strip("[]"), int(port))
        except OSError:
            exchange.not_connected()
        else:
            connection.begin(exchange)

    def opened(self, connection: UpstreamConnection) -> None:
        """A connection is there."""
        self._open.add(connection)

    def rest(self, connection: UpstreamConnection) -> None:
        """A connection has ended its exchange, and can take another one."""
        self._idle.setdefault(connection.address, []).append(connection)

    def closed(self, connection: UpstreamConnection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        idle = self._idle.get(connection.address)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[connection.address]

    def close(self) -> None:
        """End all connections."""
        for task in self._connecting:
            task.cancel()
        for connection in list(self._open):
            connection.abandon()


class UpstreamConnection(asyncio.Protocol):
    """One connection to a container."""

    def __init__(self, upstreams: Upstreams, address: str) -> None:
        self.address = address
        self._upstreams = upstreams
        self._exchange: Exchange | None = None
        self._head: ResponseHead | None = None  # while it is being read
        self._interim = 0
        self._overhead = 0  # bytes that were read since the last that were of a body
        self._transport = cast("asyncio.Transport", None)
        self._parser = httptools.HttpResponseParser(self)
        self._reusable = True
        self._length = 0  # of the response's body, where that is known and long
        self._unparsed = 0  # bytes of it that the parser will not see: it would only copy them
        self._begun = False  # something of the response has come
        self._paused = False
        self._ended = False  # the response has come in whole; what follows belongs to nobody
        self._until_close = False  # the response ends when the connection does
        self._feed: Callable[[bytes], None] = self._parse
        self._poll: select.poll | None = None
        self._dismissed: Lease | None = None

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self.address} {self._exchange!r}>"

    def begin(self, exchange: Exchange) -> None:
        """Carry this exchange."""
        if self._transport.is_closing():  # the container has gone since we connected, and nobody would hear of it
            exchange.not_connected()
            return
        self._exchange = exchange
        self._begun = self._ended = False
        self._interim = 0
        self.resume()
        if not exchange.connected(self):
            self._exchange = None
            self._upstreams.rest(self)

    def write(self, data: bytes) -> None:
        """Send to the container."""
        self._transport.write(data)

    @property
    def is_waiting(self) -> bool:
        """Whether nothing of what was written for this exchange has left: it waits, or could not be written at all."""
        return self._transport.is_closing() or self._transport.get_write_buffer_size() > 0

    def writelines(self, pieces: Iterable[bytes]) -> None:
        """Send several pieces to the container."""
        self._transport.writelines(pieces)

    def abandon(self) -> None:
        """Nobody wants the rest."""
        self._exchange = None
        self._transport.abort()

    def part(self, last: bytes) -> None:
        """The container goes on without us, when it has read this; it closes the connection then."""
        self._exchange = None
        self._feed = lambda data: self._transport.abort()
        self.resume()
        if last:
            self._transport.write(last)
        self._transport.write_eof()

    def dismiss(self, lease: Lease) -> None:
        """Nobody waits for the answer of a foreign program: say so, and release the lease when it has ended this.

        It hears that the client has closed its side. Its end is the first byte of an answer, or of its own side.
        """
        self._exchange = None
        self._dismissed = lease
        self._feed = lambda data: self._transport.abort()
        self.resume()
        self._transport.write_eof()

    def has_news(self) -> bool:
        """Whether something has come on an idle connection that the loop has not read yet: most likely its end.

        Only for foreign programs, which close idle connections at times of their own.
        """
        return self._poll is not None and (self._transport.is_closing() or bool(self._poll.poll(0)))

    def pause(self) -> None:
        """The client reads more slowly than the container writes."""
        self._paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        """The client has caught up."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    # -- the transport's callbacks --------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._upstreams.opened(self)
        if not self.address.startswith("/"):
            self._poll = select.poll()
            self._poll.register(transport.get_extra_info("socket"), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstreams.closed(self)
        if self._until_close and exc is None:
            self._end()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            # what is written to a Unix socket is with the container; one that ends without having read it breaks the
            # connection, where one that has read everything closes it
            broken = isinstance(exc, BrokenPipeError | ConnectionResetError)
            exchange.upstream_lost(unread=broken and self.address.startswith("/"))
        dismissed, self._dismissed = self._dismissed, None
        if dismissed is not None:
            dismissed.release()

    def pause_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.client.pause()

    def resume_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.client.resume()

    # -- the parser -----------------------------------------------------------------------------------------------
    def _parse(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self._transport.abort()  # it speaks out of turn
            return
        fresh = not self._begun and len(data) < SMALL
        self._begun = True
        if fresh and self._pass_whole(exchange, data):
            return
        client = exchange.client
        client.cork()
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._reusable = False
            if not self._ended:
                self._garbled()
        if self._ended:
            if fresh and self._reusable and not self._interim and exchange.head.method != b"HEAD":
                learn_answer(self._upstreams.answers, self._parser.get_status_code(), data, exchange.response)
            self._end()
        elif self._overhead > MAX_HEAD:
            self._garbled()  # a head without end, or what stands between two pieces of a body
        client.uncork()

    def _pass_whole(self, exchange: Exchange, data: bytes) -> bool:
        """Pass on a response that is there at once, and whose head is known, without parsing it."""
        block, _, body = data.partition(b"\r\n\r\n")
        answer = self._upstreams.answers.known.get(block)
        if answer is None or len(body) != answer.length or not exchange.is_simple:
            return False
        self._exchange = None
        self._upstreams.rest(self)
        exchange.answered_at_once(answer, body)
        return True

    def _pass_by(self, data: bytes) -> None:
        """Count a long body, past the parser."""
        if self._exchange is None:
            self._transport.abort()
            return
        body = data[: self._unparsed]
        self._unparsed -= len(body)
        self._exchange.pass_on(body)
        if not self._unparsed:
            self._reusable = self._reusable and len(body) == len(data)
            self._parser = httptools.HttpResponseParser(self)
            self._feed = self._parse
            self._end()

    def _switch(self, rest: bytes) -> None:
        exchange, head = self._exchange, self._head
        if exchange is None or head is None:
            return
        if not exchange.head.is_websocket or head.upgrade != b"websocket":
            self._garbled()
            return
        tunnel = exchange.switched(head)
        if tunnel is not None:
            self._feed = tunnel.from_container
        if rest:
            self._feed(rest)

    def _garbled(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.garbled()
        self._transport.abort()

    # What comes after the end of the response in one read belongs to no request: the connection is not used again.
    # What is raised here ends as `_garbled`.
    def on_message_begin(self) -> None:
        if self._ended:
            self._reusable = False
        else:
            self._head = ResponseHead()

    def on_status(self, status: bytes) -> None:
        if self._head is not None:
            self._head.reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None:  # else it is a trailer, which is not passed on
            self._head.header(name, value)

    def on_headers_complete(self) -> None:
        exchange, head = self._exchange, self._head
        if exchange is None or head is None:
            return
        status = self._parser.get_status_code()
        head.check(status)
        if self._overhead > MAX_HEAD and sum(map(len, head.lines)) > MAX_HEAD:
            raise OverflowError
        self._overhead = 0
        if status < 200:
            self._interim += 1
            if self._interim > MOST_INTERIM:
                raise OverflowError
            if status != 101:
                exchange.informed(status, head)
            return
        self._head = None
        is_head = exchange.head.method == b"HEAD"
        no_body = is_head or status in (204, 304)
        self._until_close = not (no_body or head.transfer_coding or head.content_length is not None)
        self._reusable = self._parser.should_keep_alive() and not self._until_close
        if is_head:
            self._ended = True  # the parser would wait for a body that does not come
            self._reusable = self._reusable and self._poll is None  # of many programs it does, and may come late
        length = 0 if no_body else head.content_length or 0
        self._length = length if length > LONG else 0
        exchange.answered(status, head)

    def on_body(self, data: bytes) -> None:
        self._overhead = 0
        if self._head is not None:
            raise ValueError  # an interim response has no body
        if self._ended:
            self._reusable = False
        elif self._exchange is not None:
            self._exchange.pass_on(data)
            if self._length > len(data):
                self._unparsed = self._length - len(data)
                self._feed = self._pass_by

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self._ended = True

    def _end(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if exchange.head.method == b"HEAD":
            self._parser = httptools.HttpResponseParser(self)
        if self._reusable and exchange.complete:
            self._upstreams.rest(self)
        else:
            self._transport.abort()
        exchange.finished()
