"""A client's connection: reads requests, starts their exchanges in order, writes their answers."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import httptools

from portico.ingress import pages
from portico.ingress.exchange import Exchange
from portico.ingress.faults import fault, too_large
from portico.ingress.head import LONG, MAX_HEAD, RequestHead, learn_request, repeated
from portico.ingress.ports import Refusal, Route
from portico.ingress.progress import reading_of

if TYPE_CHECKING:
    from portico.ingress.door import Hosts, Ingress
    from portico.ingress.front import Front
    from portico.wire.websocket import Tunnel

HEAD_TIMEOUT: Final = 30.0  # seconds for a request's head
BODY_TIMEOUT: Final = 60.0  # seconds between two pieces of a body that a container waits for
KEEP_ALIVE: Final = 75.0  # seconds that an idle connection stays
JOINED: Final = 16 * 1024  # bytes in several pieces that are copied together for one write; more go out as they are
PIPELINED: Final = 128  # requests that may wait for their turn
LINGER: Final = 2.0  # seconds for a client to read an answer that came before it had sent everything
STUCK: Final = 60.0  # seconds in which a client reads nothing of what is left of its answers, and is then cut
NEVER: Final = float("inf")


class ClientConnection(asyncio.Protocol):
    """One connection, with at most one running exchange; further requests on it wait their turn."""

    def __init__(self, ingress: Ingress, hosts: Hosts, front: Front | None = None) -> None:
        self.ingress = ingress
        self._hosts = hosts
        self._front = front
        self.deadline = NEVER
        self.peer = b""
        self._trusted = False  # what it says about others is believed
        self._transport = cast("asyncio.Transport", None)
        self._parser = httptools.HttpRequestParser(self)
        self._head: RequestHead | None = None  # of the request whose head is being read
        self._reading: Exchange | None = None  # the exchange whose body is being read
        self._current: Exchange | None = None
        self._later: deque[Exchange] = deque()
        self._overhead = 0  # bytes that were read since the last that were of a body, or the end of a head
        self._heard = 0.0  # when the last piece of a body came, or could come again
        self._taken: tuple[int, int] | None = None  # what the client had read, while what is left closes the connection
        self._priming = False  # a parser is being told what the one before had understood
        self._unframed = False  # the parser does not see the body of the request: it offers another protocol
        self._advancing = False
        self._length = 0  # of the body that is being read, where that is known and long
        self._unparsed = 0  # bytes of it that the parser will not see: it would only copy them
        self._fresh = b""  # what is being parsed, where a request begins with it
        self._paused = False
        self._deaf = False  # what comes from now on is thrown away
        self._last: Refusal | None = None  # the answer to what could not be read, once it is its turn
        self._corked: list[bytes] | None = None
        self._close_when_idle = False
        self._patience = NEVER  # seconds until the client of the current exchange is redirected
        self._redirect_at = NEVER

    def __repr__(self) -> str:
        return f"<ClientConnection {self.peer.decode()} {self._current!r} +{len(self._later)}>"

    # -- the transport's callbacks --------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        host, port = address[:2] if isinstance(address, tuple) else ("127.0.0.1", 0)
        host = host.removeprefix("::ffff:")  # how a socket for both families shows IPv4
        self.peer = f"{host} {port} http".encode()
        self._trusted = self._front is not None or self.ingress.proxies.trusts(host)
        self.deadline = self.ingress.now() + HEAD_TIMEOUT
        self.ingress.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        current = self._current
        if current is not None and current.upgrading:
            current.upgraded(data)
            return
        if self._reading is not None:
            self._heard = self.ingress.now()
        if self._unparsed:
            data = self._pass_by(data)
            if not data:
                return
        if self._reading is None and current is None and not self._overhead:
            head = repeated(self.ingress.heads, data)
            if head is not None:
                self._repeat(head)
                return
            self._fresh = data
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._malformed(pages.BAD_REQUEST)
        else:
            if self._overhead > MAX_HEAD and not self._deaf:
                self._too_much()
        self._fresh = b""

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
        if self._deaf or self._priming:
            return
        if len(self._later) >= PIPELINED:
            raise OverflowError  # what is behind is asked for again, on another connection
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
        if head is None or self._deaf:
            return
        parser = self._parser
        head.method = parser.get_method()
        keep_alive, head.version = parser.should_keep_alive(), parser.get_http_version()
        if head.upgrade and (head.version == "1.0" or self._current is not None):
            head.upgrade = []  # RFC 9110, 7.8; and a WebSocket has a connection of its own, from its first request on
        if self._fresh and keep_alive and head.version == "1.1":
            learn_request(self.ingress.heads, self._fresh, head)
        exchange = Exchange(self, head, keep_alive=keep_alive, version_1_0=head.version == "1.0")
        exchange.chunked_in = head.transfer_coding is not None
        exchange.complete = not head.has_body
        self._overhead = 0
        self._unframed = not exchange.complete and parser.should_upgrade()
        length = 0 if self._unframed or exchange.chunked_in else head.content_length or 0
        self._length = length if length > LONG else 0
        self._reading = exchange
        if self._current is None:
            self._start(exchange)
        else:
            self._later.append(exchange)
            self.pause()

    def on_body(self, data: bytes) -> None:
        self._overhead = 0
        if self._reading is not None:
            self._reading.body(data)
        if self._length:
            self._unparsed = self._length - len(data)

    def on_message_complete(self) -> None:
        if self._unframed:
            return
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
        self._paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, unless a request is already waiting for its turn."""
        if self._paused and not self._later:
            self._paused = False
            if self._reading is not None:
                self._heard = self.ingress.now()
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
        elif not self._advancing:
            self._advance()

    def close_within(self, seconds: float) -> None:
        """However the exchange goes on, the connection ends after so much time."""
        self.deadline = self.ingress.now() + seconds
        self.ingress.watch(self)

    def redirect_after(self, seconds: float) -> None:
        """If the answer to the current exchange has not begun then, the client is to ask for it elsewhere."""
        self._patience = seconds
        self._redirect_at = self.ingress.now() + seconds
        self.deadline = min(self.deadline, self._redirect_at)
        self.ingress.watch(self)

    def adopt(self, exchange: Exchange) -> None:
        """What comes of this exchange is the answer to the request whose turn it is."""
        self._current = exchange
        exchange.keep_alive = exchange.keep_alive and not self._close_when_idle

    def move(self, exchange: Exchange, process: int) -> None:
        """Its function lives in this other process. A connection that cannot go there says so: 421, and its end."""
        exchange.keep_alive = False
        exchange.refused(pages.MISDIRECTED)

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
        if self._transport.get_write_buffer_size():
            self._taken = reading_of(self._transport)
            self.close_within(STUCK)
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
        current = self._current
        if self._deaf and current is None:
            self._go_on_closing()
        elif current is None:
            self.close() if self._head is None else self._malformed(pages.REQUEST_TIMEOUT)
        elif current.tunnel is not None:
            self.abort()
        elif current.complete:
            self._redirect(current)
        else:
            self._wait_for_body(current)

    # -- inside ---------------------------------------------------------------------------------------------------
    def _repeat(self, head: RequestHead) -> None:
        exchange = Exchange(self, head, keep_alive=True, version_1_0=False)
        exchange.complete = True
        self._start(exchange)

    def _advance(self) -> None:
        # a loop: hundreds of requests may be refused one after the other
        self._advancing = True
        while self._later and self._current is None:
            following = self._later.popleft()
            self.resume()
            self._start(following)
        self._advancing = False
        if self._current is not None:
            return
        if self._last is not None:
            self._refuse(self._last)
        elif self._deaf:
            return
        elif self._close_when_idle:
            self.close()
        else:
            self.deadline = self.ingress.now() + KEEP_ALIVE

    def _redirect(self, exchange: Exchange) -> None:
        self.deadline = self._redirect_at
        if self.ingress.now() < self._redirect_at:
            self.ingress.watch(self)
        elif self._close_when_idle or not exchange.redirect():
            # while the server goes away, nobody is sent to a URL that will not answer
            self.deadline = NEVER
            self.redirect_after(self._patience)
        else:
            self.ingress.watch(self)

    def _wait_for_body(self, exchange: Exchange) -> None:
        now = self.ingress.now()
        if not (exchange.is_starved and self._transport.is_reading()):
            self._heard = now  # it is not the client that others wait for
        if now - self._heard >= BODY_TIMEOUT:
            exchange.stop(pages.REQUEST_TIMEOUT)
        else:
            self.deadline = self._heard + BODY_TIMEOUT
            self.ingress.watch(self)

    def _go_on_closing(self) -> None:
        before, self._taken = self._taken, reading_of(self._transport)
        if before is None or before == self._taken:
            self.abort()
        else:
            self.close_within(STUCK)

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        self._redirect_at = NEVER
        if exchange.complete:
            self.deadline = NEVER
        else:
            self._heard = self.ingress.now()
            self.deadline = self._heard + BODY_TIMEOUT
        head = exchange.head
        target: Route | Refusal | None = fault(head)
        if target is None:
            if self._trusted and head.forwarded:
                exchange.origin = self.ingress.proxies.origin(head, self.peer)
            target = self._hosts.find(head.hosts[0])
            exchange.keep_alive = exchange.keep_alive and target is not pages.NO_HOST
            if self._front is not None and isinstance(target, Route):
                target = self._front.redirect(head, exchange.origin) or target
        else:
            exchange.keep_alive = False
        exchange.start(target)

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
        if self._unframed:
            self._unframed = False
            self._expect_body()
        if rest:
            self.data_received(rest)

    def _expect_body(self) -> None:
        """Have a new parser begin where the body does whose head has been read."""
        assert self._reading is not None
        length = self._reading.head.content_length
        framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
        self._priming = True
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        self._priming = False

    def _too_much(self) -> None:
        if self._head is not None:
            self._malformed(too_large(self._head))
        elif self._reading is not None:
            self._malformed(pages.BAD_REQUEST)  # the size of a chunk, or trailers

    def _malformed(self, refusal: Refusal) -> None:
        """Answer what cannot be read, if its turn has come; answers that are due come first, and all are the last."""
        if self._deaf:
            return
        self._deaf = True
        reading, self._reading = self._reading, None
        if reading is not None and reading is self._current:
            reading.stop(refusal)
            return
        if reading is not None:
            self._later.remove(reading)
            refusal = fault(reading.head) or refusal
        if self._current is not None:
            self._last = refusal
        else:
            self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        self._current = Exchange(self, self._head or RequestHead(), keep_alive=False, version_1_0=False)
        self._current.refused(refusal)

    def _hang_up(self, *, lingering: bool) -> None:
        """Close. A client that still sends gets time to read: closing at once would reset its connection."""
        self._deaf = True
        self._last = None
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
