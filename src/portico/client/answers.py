"""What a call's request looks like, and what its answer means. Sans-I/O: `calls` and `loops` move the bytes."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import httptools

from portico.client.remote import Remote
from portico.model import errors
from portico.model.spec import RetryPolicy
from portico.wire import codec, raised
from portico.wire.calls import (
    CONTENT_TYPE,
    STOPPED_TRAILER,
    STORED_HOST,
    Decoder,
    Kind,
    Message,
    frames,
    other_host,
    size,
)

_OK: Final = 200
_NOT_READY: Final = 202
_NOT_FOUND: Final = 404
_DOOR: Final = (401, 403)
_HAS_URL: Final = 405
_FULL: Final = 429
_UNAVAILABLE: Final = 503
_NO_SLOT: Final = (errors.ResourceExhaustedError, errors.FunctionTimeoutError)
_PLAIN: Final = ("invalid", "not_found", "output_expired")  # texts that name what they are about


@dataclass(frozen=True, slots=True)
class Route:
    """The way to a function: the server's socket, or the server elsewhere; and the hosts to try, in order. The rest is
    for error messages.
    """

    socket: str | Remote
    hosts: tuple[str, ...]
    function: str
    app: str | None
    verb: str  # "remote", "map", …
    retries: RetryPolicy | Literal["ask"] | None = None  # when a failed call is sent again; "ask": the server knows
    parameters: str = ""  # of a method's class, as text

    def elsewhere(self, domain: str) -> Route:
        """The way to what is said of the function: SPAWN_DOMAIN, CONTROL_DOMAIN."""
        return replace(self, hosts=tuple(other_host(host, domain) for host in self.hosts), retries=None)

    def missing(self) -> errors.NotFoundError:
        """There is no such function."""
        of = f"the app {self.app!r}" if self.app else "this app"
        return errors.NotFoundError(f"There is no function {self.function!r} in {of}.", hint="See `portico app list`.")


def stored(socket: str | Remote, call_id: str, verb: str) -> Route:
    """The way to a stored call."""
    return Route(socket, (STORED_HOST,), call_id, None, verb)


def webhook(name: str, verb: str, url: str | None) -> errors.InvalidError:
    """The error for calling a function that has a URL."""
    return errors.InvalidError(
        f"A webhook function cannot be invoked for remote execution with `.{verb}`. Invoke this function via its "
        f"web url{f' {url!r}' if url else ''} or call it locally: {name}.local()"
    )


def arguments(route: Route, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[bytes]:
    """The payload of a request, in pieces; SerializationError for what cannot travel."""
    return codec.dump((args, kwargs), f"An argument of {route.function}")


Say = Callable[[str], Iterator[bytes | memoryview]]  # the pieces of an HTTP request to a host, its head in the first


def call_with(kind: Kind, payload: Sequence[bytes], parameters: str = "") -> Say:
    """Requests that call a function; `parameters` as in `Route`."""
    return lambda host: _request(host, kind, payload, parameters)


def ask(method: str, target: str) -> Say:
    """Requests without a body."""

    def say(host: str) -> Iterator[bytes]:
        length = "" if method == "GET" else "content-length: 0\r\n"
        yield f"{method} {target} HTTP/1.1\r\nhost: {host}\r\naccept: application/json\r\n{length}\r\n".encode()

    return say


def _request(host: str, kind: Kind, payload: Sequence[bytes], parameters: str) -> Iterator[bytes | memoryview]:
    pieces = frames(kind, payload)
    head = (
        b"POST /%b HTTP/1.1\r\nhost: %b\r\naccept: application/json\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
    ) % (f"?{parameters}".encode() if parameters else b"", host.encode(), CONTENT_TYPE, size(payload))
    yield head + next(pieces)
    yield from pieces


class Answer:
    """The response to one request, as its bytes come in."""

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.complete = False
        self.begun = False
        self.reusable = False
        self._status = 0
        self._why = ""  # it stopped: the code of an error, and its text
        self._decoder = Decoder()
        self._text = bytearray()
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """More bytes. InternalFailure when they are not an answer to a call."""
        self.begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise errors.InternalFailure(f"The server's answer cannot be understood: {error}") from None
        except httptools.HttpParserCallbackError as error:
            raise errors.InternalFailure(f"The server's answer cannot be understood: {error.__context__}") from None

    def missing(self) -> bool:
        """Whether nobody is at this host."""
        return self.complete and self._status == _NOT_FOUND

    @property
    def decided(self) -> bool:
        """Whether it is known if the call was taken or refused, and why."""
        return self.complete or self._status == _OK

    def check(self, route: Route) -> None:
        """Raises what a complete answer of the server's own says."""
        if self.complete and self._status != _OK:
            raise self._refusal(route)

    def cut(self, route: Route) -> errors.Error:
        """The error when the connection ended before the answer did."""
        if not self.begun:
            return errors.ConnectionError("The server has gone away.", hint="See its log.")
        return self.stopped(route)

    def stopped(self, route: Route) -> errors.Error:
        """The error when the last message is missing."""
        code, _, text = self._why.partition(" ")
        return errors.by_code(code, f"{route.function}: {text}") if code else _stopped(route)

    # -- the parser's callbacks -----------------------------------------------------------------------------------
    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == STOPPED_TRAILER:
            self._why = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        if self._status == _OK:
            self.messages += self._decoder.feed(data)
        else:
            self._text += data

    def on_message_complete(self) -> None:
        self.complete = True
        self.reusable = bool(self._parser.should_keep_alive())

    # -- inside ---------------------------------------------------------------------------------------------------
    def _refusal(self, route: Route) -> errors.Error:
        if self._status == _NOT_READY:
            return errors.NotReadyError(f"{route.function} has no result yet.")
        try:
            told = json.loads(self._text)
            if self._status in _DOOR:  # of the control API, on a server elsewhere
                return errors.by_code(told["code"], told["message"], hint=told.get("hint"))
            told = told["error"]
            code, text = told.get("code", "remote"), str(told["message"]).removeprefix("modal-http: ")
        except (ValueError, KeyError, TypeError, AttributeError):
            code, text = "remote", bytes(self._text[:1000]).decode(errors="replace")
        if self._status == _HAS_URL:
            return webhook(route.function, route.verb, text)
        if self._status == _NOT_FOUND:
            return route.missing()
        if self._status == _FULL:
            code = errors.ResourceExhaustedError.code
        error = errors.by_code(code, text if code in _PLAIN else f"{route.function}: {text}")
        # the function's queue was full, or too slow
        error.has_run = not (self._status in (_FULL, _UNAVAILABLE) and isinstance(error, _NO_SLOT))
        return error


def _stopped(route: Route) -> errors.RemoteError:
    return errors.RemoteError(
        f"The answer of {route.function} stopped before its end.",
        hint="Its container ended, or its `timeout` was up: see `portico app logs`.",
    )


def value_of(message: Message, route: Route) -> Any:
    """What the function returned or yielded; raises what it raised."""
    if message.kind is Kind.ERROR:
        raise raised.load(message.payload)
    if message.kind is not Kind.VALUE:
        raise _stopped(route)
    return codec.load(message.payload, f"What {route.function} returned")
