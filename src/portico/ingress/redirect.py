"""Long requests whose clients were sent to the URL of a result: they go on, and their answers wait there.

Laws:
1. A client is sent away (303) only before its answer has begun, and when its request has come in whole.
2. Nothing ends a request that was redirected before its answer, but its function: no client needs to stay.
3. An answer is delivered once. One that nobody fetches waits for `KEPT` seconds; of its body about `WINDOW` bytes are
   read, and the container waits with the rest.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final

from portico.core.durable import make_id
from portico.ingress.head import RESULT_PARAMETER, host_of

if TYPE_CHECKING:
    from portico.ingress.door import Ingress
    from portico.ingress.exchange import Exchange
    from portico.ingress.ports import Refusal

KEPT: Final = 3600.0  # seconds that an answer waits for a client
MOST: Final = 1000  # requests that are redirected at a time; past it, clients are held as if there were no redirects
WINDOW: Final = 64 * 1024  # bytes of an answer's body from which on the container waits


class Results:
    """All requests that were redirected and whose answers nobody has fetched yet."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._results: dict[bytes, Result] = {}

    def __repr__(self) -> str:
        return f"<Results {len(self._results)}>"

    def new(self, exchange: Exchange) -> Result | None:
        """A place for the exchange's answer; None when there is no room."""
        if len(self._results) >= MOST:
            return None
        result = Result(self, self._ingress, exchange)
        self._results[result.id] = result
        return result

    def find(self, exchange: Exchange) -> Result | None:
        """The result that this request asks for: its id in the query, and the host that it came from."""
        _, asked, rest = exchange.target.partition(RESULT_PARAMETER)
        result = self._results.get(rest.partition(b"&")[0]) if asked else None
        return result if result is not None and result.host == host_of(exchange.head.hosts[0]) else None

    def forget(self, result: Result) -> None:
        """It is delivered, or nobody came."""
        self._results.pop(result.id, None)
        self._ingress.unwatch(result)

    def close(self) -> None:
        """The server ends: nobody will come."""
        for result in list(self._results.values()):
            self.forget(result)
            result.exchange.abandon()


class Result:
    """Stands in for the client of an exchange while there is none, and keeps what the next one gets."""

    def __init__(self, results: Results, ingress: Ingress, exchange: Exchange) -> None:
        self.ingress = ingress
        self.exchange = exchange
        self.id = make_id(time.time(), secrets.randbits(80)).encode()
        self.host = host_of(exchange.head.hosts[0])
        self.deadline = ingress.now() + KEPT
        self._results = results
        self._status: int | None = None  # of the container's answer
        self._body: list[bytes] = []
        self._size = 0
        self._refusal: Refusal | None = None  # the answer, if it is ours
        self._ended = False
        self._cut = False

    def __repr__(self) -> str:
        return f"<Result {self.exchange!r} {self._size} bytes>"

    @property
    def url(self) -> bytes:
        """Where the answer will be."""
        scheme = self.exchange.origin.rpartition(b" ")[2]
        path = self.exchange.target.partition(b"?")[0]
        return b"%b://%b%b?%b%b" % (scheme, self.exchange.head.hosts[0], path, RESULT_PARAMETER, self.id)

    def wait(self) -> None:
        """There is no client from now on."""
        self.deadline = self.ingress.now() + KEPT
        self.ingress.watch(self)

    def expired(self) -> None:
        """The deadline has passed. An input that still runs is bounded by its function's timeout."""
        if self.exchange.is_unanswered:
            self.wait()
        else:
            self.forget()
            self.exchange.abandon()

    def forget(self) -> None:
        """Nobody can ask for it any more."""
        self._results.forget(self)

    def deliver(self) -> None:
        """The exchange has a client again: it gets what has come."""
        exchange, client = self.exchange, self.exchange.client
        if self._refusal is not None:
            self.forget()
            client.answer(exchange, self._refusal)
        elif self._status is not None:
            if exchange.upstream is not None:
                exchange.upstream.resume()
            exchange.pass_head(self._status)
            body, self._body = self._body, []
            for piece in body:
                exchange.pass_on(piece)
            if self._cut:
                client.abort()
            elif self._ended:
                exchange.pass_end()

    # -- what an exchange, and the connection to its container, ask of a client ------------------------------------
    def head(self, status: int) -> None:
        """The response's head has come; the exchange keeps it."""
        self._status = status

    def write(self, data: bytes) -> None:
        """A piece of the response's body."""
        self._body.append(data)
        self._size += len(data)
        if self._size > WINDOW and self.exchange.upstream is not None:
            self.exchange.upstream.pause()

    def answer(self, exchange: Exchange, refusal: Refusal) -> None:
        """The answer is ours."""
        self._refusal = refusal
        self.wait()

    def exchange_ended(self, exchange: Exchange) -> None:
        """The response is whole."""
        self._ended = True
        self.wait()

    def abort(self) -> None:
        """The response was cut short."""
        self._cut = True
        self.wait()

    def cork(self) -> None:
        """Nothing is sent anyway."""

    uncork = pause = resume = cork
