"""A client's connection: reads requests, starts their exchanges in order, writes their answers."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import httptools

from portico.ingress import pages
from portico.ingress.exchange import Exchange
from portico.ingress.head import LONG, MAX_HEAD, RequestHead
from portico.ingress.ports import Refusal

if TYPE_CHECKING:
    from portico.ingress.door import Hosts, Ingress
    from portico.wire.websocket import Tunnel

HEAD_TIMEOUT: Final = 30.0  # seconds for a request's head
KEEP_ALIVE: Final = 75.0  # seconds that an idle connection stays
JOINED: Final = 16 * 1024  # bytes in several pieces that are copied together for one write; more go out as they are
LINGER: Final = 2.0  # seconds for a client to read an answer that came before it had sent everything
NEVER: Final = float("inf")


class ClientConnection(asyncio.Protocol):
    """One connection, with at most one running exchange; further requests on it wait their turn."""

    def __init__(self, ingress: Ingress, hosts: Hosts) -> None:
        self.ingress = ingress
        self._hosts = hosts
        self.deadline = NEVER
        self.peer = b""
        self._trusted = False  # what it says about others is believed
        self._transport = cast("asyncio.Transport", None)
        self._parser = httptools.HttpRequestParser(self)
        self._head: RequestHead | None = None  # of the request whose head is being read
        self._reading: Exchange | None = None  # the exchange whose body is being read
        self._current: Exchange | None = None
        self._later: deque[Exchange] = deque()
        self._head_bytes = 0
        self._length = 0  # of the body that is being read, where that is known and long
        self._unparsed = 0  # bytes of it that the parser will not see: it would only copy them
        self._deaf = False  # what comes from now on is thrown away
        self._corked: list[bytes] | None = None
        self._close_when_idle = False
        self._patience = NEVER  # seconds until the client of the current exchange is redirected

    def __repr__(self) -> str:
        return f"<ClientConnection {self.peer.decode()} {self._current!r} +{len(self._later)}>"

    # -- the transport's callbacks --------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        host, port = address[:2] if isinstance(address, tuple) else ("127.0.0.1", 0)
        host = host.removeprefix("::ffff:")  # how a socket for both families shows IPv4
        self.peer = f"{host} {port} http".encode()
        self._trusted = self.ingress.proxies.trusts(host)
        self.deadline = self.ingress.now() + HEAD_TIMEOUT
        self.ingress.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        current = self._current
        if current is not None and current.upgrading:
            current.upgraded(data)
            return
        if self._unparsed:
            data = self._pass_by(data)
            if not data:
                return
        if self._reading is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._malformed(pages.BAD_REQUEST)
        else:
            if self._head is not None and self._head_bytes > MAX_HEAD:
                self._malformed(pages.HEAD_TOO_LARGE)

    def eof_received(self) -> None:
        """A client that has closed its side has left; the transport closes, and `connection_lost` does the rest."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.ingress.closed(self)
        self._deaf = True
        self._later.clear()
        current, self._current = self._current, None
        if current is not None:
            current.client_lost()

    def pause_writing(self) -> None:
        if self._current is not None and self._current.upstream is not None:
            self._current.upstream.pause()

    def resume_writing(self) -> None:
        if self._current is not None and self._current.upstream is not None:
            self._current.upstream.resume()

    # -- the parser's callbacks -----------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        self._head = RequestHead()
        self._reading = None
        if self._current is None:
            self.deadline = self.ingress.now() + HEAD_TIMEOUT

    def on_url(self, url: bytes) -> None:
        if self._head is not None:
            self._head.target += url
            self._head.size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None:
            self._head.header(name, value)

    def on_headers_complete(self) -> None:
        head, self._head = self._head, None
        assert head is not None
        parser = self._parser
        head.method = parser.get_method()
        exchange = Exchange(
            self, head, keep_alive=parser.should_keep_alive(), version_1_0=parser.get_http_version() == "1.0"
        )
        exchange.chunked_in = head.transfer_coding is not None
        exchange.complete = not exchange.chunked_in and head.content_length in (None, b"0")
        self._head_bytes = 0
        self._length = 0
        if head.content_length is not None and head.upgrade is None and not exchange.chunked_in:
            length = int(head.content_length)
            self._length = length if length > LONG else 0
        self._reading = exchange
        if self._current is None:
            self._start(exchange)
        else:
            self._later.append(exchange)
            self._transport.pause_reading()

    def on_body(self, data: bytes) -> None:
        if self._reading is not None:
            self._reading.body(data)
        if self._length:
            self._unparsed = self._length - len(data)

    def on_message_complete(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.end_of_request()

    # -- for the exchange -----------------------------------------------------------------------------------------
    def write(self, data: bytes) -> None:
        """Send to the client."""
        if self._corked is not None:
            self._corked.append(data)
        else:
            self._transport.write(data)

    def cork(self) -> None:
        """Collect what is written, until `uncork`: one system call for what belongs together."""
        self._corked = []

    def uncork(self) -> None:
        """Send what was collected."""
        pieces, self._corked = self._corked, None
        if not pieces:
            return
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        elif sum(map(len, pieces)) < JOINED:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)

    def pause(self) -> None:
        """Read no more from the client for now."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, unless a request is already waiting for its turn."""
        if not self._later:
            self._transport.resume_reading()

    def answer(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer the exchange ourselves."""
        exchange.keep_alive = exchange.keep_alive and exchange.complete and not exchange.head.is_websocket
        self.write(
            pages.render(
                refusal,
                exchange.id,
                exchange.head,
                date=self.ingress.date_line(),
                close=not exchange.keep_alive,
            )
        )
        self.exchange_ended(exchange)

    def exchange_ended(self, exchange: Exchange) -> None:
        """Its answer is written; the next one may begin."""
        self._current = None
        if not exchange.keep_alive:
            self._hang_up(lingering=not exchange.complete)
        elif self._later:
            following = self._later.popleft()
            self.resume()
            self._start(following)
        elif self._close_when_idle:
            self.close()
        else:
            self.deadline = self.ingress.now() + KEEP_ALIVE

    def close_within(self, seconds: float) -> None:
        """However the exchange goes on, the connection ends after so much time."""
        self.deadline = self.ingress.now() + seconds
        self.ingress.watch(self)

    def redirect_after(self, seconds: float) -> None:
        """If the answer to the current exchange has not begun then, the client is to ask for it elsewhere."""
        self._patience = seconds
        self.deadline = self.ingress.now() + seconds
        self.ingress.watch(self)

    def adopt(self, exchange: Exchange) -> None:
        """What comes of this exchange is the answer to the request whose turn it is."""
        self._current = exchange
        exchange.keep_alive = exchange.keep_alive and not self._close_when_idle

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        """The container has closed its side of a WebSocket."""
        self._hang_up(lingering=not tunnel.client_has_closed)

    @property
    def is_flushed(self) -> bool:
        """Whether the kernel has all that was written."""
        return not self._corked and not self._transport.get_write_buffer_size()

    def detach(self) -> int:
        """The connection's descriptor, for whoever goes on with it; it is none of ours any more."""
        descriptor = os.dup(self._transport.get_extra_info("socket").fileno())
        self._current = None
        self.abort()
        return descriptor

    def close(self) -> None:
        """Send what is written, then close."""
        self._deaf = True
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once, in a way that no client takes for the end of a whole answer."""
        self._deaf = True
        self._corked = None
        self._transport.abort()

    # -- for the door ---------------------------------------------------------------------------------------------
    def drain(self) -> None:
        """The server is going away: close as soon as no exchange runs."""
        self._close_when_idle = True
        if self._current is not None:
            self._current.keep_alive = False
        else:
            self.close()

    def expired(self) -> None:
        """The deadline has passed."""
        if self._current is not None and self._current.tunnel is None:
            self._redirect(self._current)
        elif self._head is not None and self._current is None and not self._deaf:
            self._malformed(pages.REQUEST_TIMEOUT)
        else:
            self.abort() if self._deaf or self._current is not None else self.close()

    # -- inside ---------------------------------------------------------------------------------------------------
    def _redirect(self, exchange: Exchange) -> None:
        # while the server goes away, nobody is sent to a URL that will not answer
        if self._close_when_idle or not exchange.redirect():
            self.redirect_after(self._patience)
        else:
            self.ingress.watch(self)

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        self.deadline = NEVER
        head = exchange.head
        if head.size > MAX_HEAD:
            exchange.keep_alive = False
            exchange.start(pages.HEAD_TOO_LARGE)
        elif head.transfer_coding not in (None, b"chunked"):
            exchange.start(pages.UNKNOWN_CODING)
        elif not head.locate():
            exchange.start(pages.BAD_TARGET)
        elif len(head.hosts) != 1:
            exchange.start(pages.NO_HOST)
        else:
            if self._trusted and head.forwarded:
                exchange.origin = self.ingress.proxies.origin(head, self.peer)
            exchange.start(self._hosts.find(head.hosts[0]))

    def _pass_by(self, data: bytes) -> bytes:
        """Count a long body, past the parser; what follows it."""
        body = data[: self._unparsed]
        self._unparsed -= len(body)
        if self._reading is not None:
            self._reading.body(body)
        if self._unparsed:
            return b""
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_complete()
        return data[len(body) :]

    def _upgraded(self, rest: bytes) -> None:
        current = self._current
        if current is not None and current.head.is_websocket and not self._later:
            current.upgrading = True
            if rest:
                current.upgraded(rest)
            return
        # another protocol was offered: a server may ignore the offer and speak HTTP/1.1 on
        self._parser = httptools.HttpRequestParser(self)
        if rest:
            self.data_received(rest)

    def _malformed(self, refusal: Refusal) -> None:
        """Answer what cannot be read, after the answers that are due, and close."""
        self._deaf = True
        if self._current is not None:
            self._later.clear()
            self._current.keep_alive = False
            if not self._current.complete:
                self._transport.abort()  # its body is broken: there is no way to go on
            return
        head = self._head or RequestHead()
        exchange = Exchange(self, head, keep_alive=False, version_1_0=False)
        self._current = exchange
        exchange.refused(refusal)

    def _hang_up(self, *, lingering: bool) -> None:
        """Close. A client that still sends gets time to read: closing at once would reset its connection."""
        self._deaf = True
        self._later.clear()
        if not lingering:
            self.close()
            return
        self._flush()
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.close_within(LINGER)

    def _flush(self) -> None:
        if self._corked is not None:
            self.uncork()
            self._corked = []
