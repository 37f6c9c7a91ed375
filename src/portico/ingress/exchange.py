"""One request and its answer, from the moment its head is known until the slot is given back."""

from __future__ import annotations

import random
import sys
from enum import Enum
from typing import TYPE_CHECKING, Final

from portico.ingress import pages
from portico.ingress.head import Answer, RequestHead, ResponseHead, without
from portico.ingress.ports import Endpoint, Lease, Refusal, Route
from portico.ingress.redirect import Result
from portico.wire.calls import CONTENT_TYPE, STOPPED_TRAILER
from portico.wire.container import OFFER
from portico.wire.websocket import Tunnel

if TYPE_CHECKING:
    from portico.ingress.client import ClientConnection
    from portico.ingress.upstream import UpstreamConnection

IDEMPOTENT: Final = frozenset([b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
MAX_TRIES: Final = 4
UNREDIRECTED: Final = frozenset([b"HEAD", b"OPTIONS"])  # a result is fetched with GET; preflights cannot be redirected
SMALL: Final = 4096  # bytes of a chunk that may be copied
LAST_BREATH: Final = 0.05  # seconds in which a program that dies may still take connections
ATOMIC: Final = 32 * 1024  # bytes that a container reads at once, or not at all
BODY_WINDOW: Final = 64 * 1024  # bytes of a request's body that wait for a container before the client is paused


class Phase(Enum):
    """How far an exchange has come."""

    NEW = 0
    WAITING = 1  # for a slot, or for a connection to the container
    SENT = 2  # the head is on its way; nothing has come back
    ANSWERING = 3  # the response's head has been passed on
    TUNNEL = 4  # both sides speak another protocol now
    ENDED = 5


# the members as names of the module: in Python 3.11 each look at one through its class is a call
NEW, WAITING, SENT, ANSWERING, TUNNEL, ENDED = Phase

_NO_RESPONSE: Final = ResponseHead()  # until there is one


class Exchange:
    """Joins a client's connection with a container's for one input."""

    __slots__ = (
        "_body",
        "_chunked_out",
        "_early",
        "_endpoint",
        "_lease",
        "_max_body",
        "_offered",
        "_repeatable",
        "_result",
        "_tries",
        "_unsent",
        "body_size",
        "chunked_in",
        "client",
        "complete",
        "door",
        "head",
        "id",
        "keep_alive",
        "origin",
        "phase",
        "response",
        "tunnel",
        "upgrading",
        "upstream",
        "version_1_0",
    )

    def __init__(self, client: ClientConnection, head: RequestHead, *, keep_alive: bool, version_1_0: bool) -> None:
        self.client: ClientConnection | Result = client
        self.head = head
        self.origin = client.peer  # "<address> <port> <scheme>" of who sent it
        self.id = f"{random.getrandbits(64):016x}"  # unique, no secret: the system's randomness costs a call
        self.door = ""
        self.keep_alive = keep_alive
        self.version_1_0 = version_1_0
        self.complete = False  # the request has come in whole
        self.chunked_in = False
        self.upgrading = False  # whatever the client sends from here on is not HTTP
        self.body_size = 0
        self.phase = NEW
        self.response = _NO_RESPONSE
        self.upstream: UpstreamConnection | None = None
        self._endpoint: Endpoint | None = None
        self._lease: Lease | None = None
        self.tunnel: Tunnel | None = None
        self._result: Result | None = None  # once its client was redirected
        self._body: list[bytes] = []
        self._max_body = sys.maxsize  # until its route is known
        self._early = bytearray()  # what follows a request to upgrade
        self._chunked_out = False
        self._offered = False  # the container gets the client's connection if it accepts the WebSocket
        self._tries = 0
        self._unsent = True  # a container has all that was written, or nothing; and we have it still
        self._repeatable = True  # nothing was sent yet, or what was sent may be sent again

    def __repr__(self) -> str:
        return f"<Exchange {self.id} {self.head.method.decode()} {self.phase.name}>"

    @property
    def target(self) -> bytes:
        """Path and query of the request."""
        return self.head.target

    @property
    def wants_desk(self) -> bool:
        """See `ingress.ports.Waiter`."""
        return self.head.wants_desk

    @property
    def is_unanswered(self) -> bool:
        """Whether no part of an answer is there yet, and one will be."""
        return self.phase in (WAITING, SENT)

    @property
    def is_unplaced(self) -> bool:
        """Whether it has not come to a container yet."""
        return self._lease is None and self.phase in (NEW, WAITING)

    @property
    def is_simple(self) -> bool:
        """Whether a response of known length can go to its client as it comes."""
        usual = self.complete and self.keep_alive and not self.version_1_0 and self._result is None
        return usual and not self.head.upgrade and self.head.method != b"HEAD"

    @property
    def is_starved(self) -> bool:
        """Whether a container waits for the rest of the body, and it is the client that has to send it."""
        waits_for_100 = not self.body_size and self.head.find(b"expect") is not None
        return self.phase is SENT and not self.complete and not waits_for_100

    # -- from the client ------------------------------------------------------------------------------------------
    def start(self, target: Route | Refusal) -> None:
        """Its turn on the client's connection has come."""
        if isinstance(target, Refusal):
            self.refused(target)
            return
        now = self.client.ingress.now()
        for step in target.steps:
            if refusal := step(self.head, now):
                self.refused(refusal)
                return
        self._endpoint = target.endpoint
        self._max_body = target.max_body
        if self.body_size > target.max_body:
            self.stop(pages.too_large(self._max_body))
        elif target.redirect_after is None or not self._redirects(target.redirect_after):
            self._ask()

    def body(self, data: bytes) -> None:
        """A piece of the request's body."""
        if self.phase is ENDED:
            return
        self.body_size += len(data)
        if self.body_size > self._max_body:
            self.stop(pages.too_large(self._max_body))
            return
        if self.upstream is not None:
            if self._unsent:
                self._keep(self.upstream, self._framed(data))
            if self.chunked_in:
                self.upstream.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
            else:
                self.upstream.write(data)
        else:
            self._body.append(self._framed(data))
            if self.body_size > BODY_WINDOW:
                self.client.pause()

    def upgraded(self, data: bytes) -> None:
        """What the client sends behind a request to upgrade. It waits until the container has agreed."""
        if self.tunnel is not None:
            self.tunnel.from_client(data)
        elif self.phase is not ENDED:
            self._early += data
            if len(self._early) > BODY_WINDOW:
                self.client.pause()

    def end_of_request(self) -> None:
        """The request has come in whole."""
        self.complete = True
        if self.chunked_in and self.phase is not ENDED:
            if self.upstream is not None:
                if self._unsent:
                    self._keep(self.upstream, b"0\r\n\r\n")
                self.upstream.write(b"0\r\n\r\n")
            else:
                self._body.append(b"0\r\n\r\n")

    def stop(self, refusal: Refusal) -> None:
        """Its body is not taken to the end; the client learns why, if its answer has not begun."""
        phase = self.phase
        if phase in (SENT, ANSWERING):
            self.phase = ENDED
            self._part(phase)
        elif phase is WAITING and self._lease is None and self._endpoint is not None:
            self._endpoint.leave(self)
        # with a lease but no connection yet, `connected` finds the exchange ended and gives the slot back
        if phase is ANSWERING:
            self.client.abort()
        else:
            self.refused(refusal)

    def client_lost(self) -> None:
        """The client has left. Where another one may come for the answer, the input goes on."""
        if self._result is not None and self.is_unanswered:
            self.client = self._result
            self._result.wait()
        else:
            self.abandon()

    def redirect(self) -> bool:
        """Answer the client that it is to ask at the result's URL; whether that may be."""
        client = self.client
        if isinstance(client, Result) or not self.is_unanswered or not self.complete:
            return False
        self._result = self._result or client.ingress.results.new(self)
        if self._result is None:
            return False
        self.client = self._result
        self._result.wait()
        client.resume()
        client.answer(self, pages.see_other(self._result.url))
        return True

    def go_on(self, asking: Exchange) -> None:
        """The client of `asking` has come for the answer. One that waits for it already is sent away once more."""
        assert self._result is not None
        assert not isinstance(asking.client, Result)
        if self.client is not self._result:
            self.redirect()
        asking.phase = ENDED
        self.keep_alive = asking.keep_alive and asking.complete
        self.version_1_0 = asking.version_1_0
        self.client = asking.client
        asking.client.adopt(self)
        self._result.deliver()

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        phase, self.phase = self.phase, ENDED
        if phase is WAITING and self._endpoint is not None and self._lease is None:
            self._endpoint.leave(self)
        elif phase in (SENT, ANSWERING, TUNNEL):
            self._part(phase)
        # with a lease but no connection yet, `connected` finds the exchange ended and gives the slot back

    # -- from the pool --------------------------------------------------------------------------------------------
    def granted(self, lease: Lease) -> None:
        """It has a slot."""
        self._lease = lease
        self.client.ingress.upstreams.carry(self, lease.address + self.door)

    def moved(self, target: Route | Refusal) -> None:
        """Its host leads here now: it begins anew."""
        self.start(target)

    def elsewhere(self, process: int) -> None:
        """Its function lives in another process: its connection goes there."""
        assert not isinstance(self.client, Result), "only what has a slot is redirected"
        self.client.move(self, process)

    def refused(self, refusal: Refusal) -> None:
        """It gets no slot; or the request itself is refused."""
        self.phase = ENDED
        self._body.clear()
        self._delivering()
        self.client.answer(self, refusal)

    def timed_out(self) -> None:
        """It has run for longer than it may."""
        if self.tunnel is not None:
            self.tunnel.time_is_up()  # the end of its connections, soon, is the end of its input
            return
        phase, self.phase = self.phase, ENDED
        if phase not in (SENT, ANSWERING):
            self.phase = phase
            return
        is_call = self.head.find(b"content-type") == CONTENT_TYPE
        refusal = pages.timed_out(self._lease.queued if is_call and self._lease is not None else 0)
        self._part(phase)
        if phase is SENT:
            self.refused(refusal)
        elif phase is ANSWERING and self._chunked_out and is_call:
            # a caller counts messages: an answer that lacks the last one does not look whole to it
            why = f"{refusal.code} {refusal.text.removeprefix('modal-http: ')}".encode()
            self.client.write(b"0\r\n%b: %b\r\n\r\n" % (STOPPED_TRAILER, why))
            self.client.exchange_ended(self)
        else:
            self.client.abort()

    # -- from the container's connection --------------------------------------------------------------------------
    def connected(self, upstream: UpstreamConnection) -> bool:
        """There is a connection to the container; whether it is still wanted."""
        if self.phase is ENDED:
            self._take_lease().release()
            return False
        self.upstream = upstream
        self.phase = SENT
        self._repeatable = self.complete and not self.body_size and self.head.method in IDEMPOTENT
        self.client.resume()
        assert self._lease is not None
        self._offered = (
            self.head.is_websocket
            and self._lease.takes_connections
            and not isinstance(self.client, Result)
            and self.client.is_flushed
        )
        origin = b"%b %b" % (self.origin, OFFER) if self._offered else self.origin
        head = self.head.render(self.id.encode(), origin, chunked=self.chunked_in, foreign=self._lease.is_foreign)
        upstream.write(head if not self._body else b"".join([head, *self._body]))
        self._unsent = len(head) + self.body_size <= ATOMIC
        if not self._unsent:
            self._body.clear()
        return True

    def not_connected(self) -> None:
        """The container is not to be reached; nothing was sent, so another one may have it."""
        self._take_lease().broken()
        if self.phase is not ENDED:
            self._again(pages.LOST)

    def informed(self, status: int, response: ResponseHead) -> None:
        """An interim response (1xx)."""
        if not (self.version_1_0 or self._offered or isinstance(self.client, Result)):
            lines = b"".join(without(response.connection, response.lines))
            self.client.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, response.reason, lines))

    def switched(self, response: ResponseHead) -> Tunnel | None:
        """The container accepts the upgrade: from here on, bytes pass both ways. None: past us."""
        assert self.upstream is not None
        assert not isinstance(self.client, Result), "a WebSocket is never redirected"
        head = response.render(101, self.id.encode(), b"", b"connection: upgrade\r\nupgrade: websocket\r\n")
        if self._offered:
            self._hand_over(self.client, self.upstream, head)
            return None
        self.phase = TUNNEL
        self.tunnel = Tunnel(self.client.write, self.upstream.write, self.client.ingress.max_message, self._ending)
        self.client.write(head)
        self.client.resume()
        if self._early:
            self.tunnel.from_client(bytes(self._early))
            self._early.clear()
        return self.tunnel

    def answered(self, status: int, response: ResponseHead) -> None:
        """The response's head."""
        self.phase = ANSWERING
        self.response = response
        if isinstance(self.client, Result):
            self.client.head(status)
        else:
            self.pass_head(status)

    def pass_head(self, status: int) -> None:
        """Send the head of `response` to the client."""
        self._delivering()
        response = self.response
        bodyless = self.head.method == b"HEAD" or status in (204, 304)
        framing = b""
        if response.content_length is not None and status != 204:
            framing = b"content-length: %d\r\n" % response.content_length
        elif not bodyless:
            if self.version_1_0:
                self.keep_alive = False
            else:
                self._chunked_out = True
                framing = b"transfer-encoding: chunked\r\n"
        if not self.complete or self.head.is_websocket:
            # the client may never send the rest, or goes on in another protocol: its connection cannot be used again
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"connection: close\r\n"
        elif self.version_1_0:
            framing += b"connection: keep-alive\r\n"
        self.client.write(response.render(status, self.id.encode(), self.client.ingress.date_line(), framing))

    def pass_on(self, data: bytes) -> None:
        """A piece of the response's body."""
        if not self._chunked_out:
            self.client.write(data)
        elif len(data) < SMALL:
            self.client.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.client.write(b"%x\r\n" % len(data))
            self.client.write(data)
            self.client.write(b"\r\n")

    def answered_at_once(self, answer: Answer, body: bytes) -> None:
        """The whole response, of one that `is_simple`. The connection to the container is already given back."""
        client = self.client
        self.response = answer.head
        self.upstream = None
        self.phase = ENDED
        self._let_go()
        assert not isinstance(client, Result)
        client.write(answer.render(self.id.encode(), client.ingress.date_line(), body))
        client.exchange_ended(self)

    def finished(self) -> None:
        """The response has ended. The connection to the container is already given back."""
        self.upstream = None
        self.phase = ENDED
        self._let_go()
        self.pass_end()

    def pass_end(self) -> None:
        """Tell the client that the response is whole."""
        if self._chunked_out:
            self.client.write(b"0\r\n\r\n")
        self.client.exchange_ended(self)

    def upstream_lost(self, *, unread: bool = False) -> None:
        """The container's connection ended before the response did. unread: and before it read all that it was sent."""
        phase, self.phase = self.phase, ENDED
        self.upstream = None
        lease = self._take_lease()
        if phase is TUNNEL:
            lease.cancel()
            assert self.tunnel is not None
            assert not isinstance(self.client, Result)
            if lease.stopping:
                self.tunnel.container_has_gone()
            self.client.tunnel_ended(self.tunnel)
        elif phase is ANSWERING:
            lease.cancel()
            self.client.abort()  # a response cut short must not look whole
        elif lease.overran:
            lease.broken()
            self.refused(pages.TERMINATED)  # to ask again would only kill another one
        elif lease.is_foreign:
            lease.release()  # programs close connections as they like; one that is gone refuses the next
            if self._repeatable and self._tries < MAX_TRIES:
                self.phase = WAITING
                self.client.ingress.later(LAST_BREATH, self._retry)
            else:
                self.refused(pages.LOST)
        else:
            lease.broken()
            if unread and self._unsent:
                self._repeatable = True
            else:
                self._body.clear()
            self._again(pages.LOST)

    def garbled(self) -> None:
        """The container's answer is not HTTP."""
        phase, self.phase = self.phase, ENDED
        self._drop_upstream()
        lease = self._take_lease()
        if lease.is_foreign:
            lease.release()
        else:
            lease.broken()
        if phase is ANSWERING:
            self.client.abort()
        else:
            self.refused(pages.GARBAGE)

    # -- inside ---------------------------------------------------------------------------------------------------
    def _redirects(self, after: float) -> bool:
        """Have its client sent to the result's URL after so many seconds; or True: it has come for a result itself."""
        client = self.client
        assert not isinstance(client, Result)
        result = client.ingress.results.find(self)
        head = self.head
        if result is None and (head.wants_desk or head.is_websocket or head.method in UNREDIRECTED):
            return False
        client.redirect_after(after)
        if result is None:
            return False
        if head.method == b"GET":
            result.exchange.go_on(self)
        else:
            self.refused(pages.BAD_REDIRECT_METHOD)
        return True

    def _hand_over(self, client: ClientConnection, upstream: UpstreamConnection, head: bytes) -> None:
        """Let the container have the client's connection; what has come there already goes before."""
        self.phase = ENDED
        self.upstream = None
        upstream.part(bytes(self._early))
        self._take_lease().hand_over(client.detach(), head)

    def _ending(self, within: float) -> None:
        """Both sides of a WebSocket have been told to close it."""
        assert self.upstream is not None
        assert not isinstance(self.client, Result)
        # What still comes is the rest of a frame of bounded size, or is thrown away: so both sides may send again.
        self.upstream.resume()
        self.client.resume()
        self.client.close_within(within)

    def _delivering(self) -> None:
        if self._result is not None and self.client is not self._result:
            self._result.forget()

    def _ask(self) -> None:
        assert self._endpoint is not None
        self._tries += 1
        self.phase = WAITING
        lease = self._endpoint.lease(self, self.id)
        if isinstance(lease, Refusal):
            self.refused(lease)
        elif lease is not None:
            self.granted(lease)

    def _again(self, otherwise: Refusal) -> None:
        if self._repeatable and self._tries < MAX_TRIES:
            self._ask()
        else:
            self.refused(otherwise)

    def _retry(self) -> None:
        if self.phase is WAITING:
            self._ask()

    def _let_go(self) -> None:
        """The response has ended: so has the input, if nothing says otherwise."""
        lease = self._take_lease()
        if self.response.held and not lease.is_foreign:
            lease.hold()
        elif self.complete:
            lease.release()
        else:
            lease.cancel()

    def _take_lease(self) -> Lease:
        lease, self._lease = self._lease, None
        assert lease is not None, "an exchange that was sent has a lease"
        return lease

    def _part(self, phase: Phase) -> None:
        """Nobody waits for the rest: the input is to end."""
        lease = self._take_lease()
        if lease.is_foreign and phase is SENT and self.upstream is not None:
            self.upstream.dismiss(lease)
            self.upstream = None
        else:
            self._drop_upstream()
            lease.cancel()

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked_in else data

    def _keep(self, upstream: UpstreamConnection, piece: bytes) -> None:
        """Keep what is about to be written, while it goes out in one piece with all before it."""
        if upstream.is_waiting and self.body_size <= ATOMIC // 2:
            self._body.append(piece)
        else:
            self._unsent = False
            self._body.clear()

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()
