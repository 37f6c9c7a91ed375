"""What all nouns share: documents in, documents out, routes, and streams of events that notice when nobody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from portico.api.errors import respond, to_problem
from portico.model.errors import InvalidError
from portico.model.naming import MAIN
from portico.wire.control import Event, encode_event

MAX_DOCUMENT = 64 << 20  # bytes
_JSON = "application/json"
EVENTS = b"application/x-ndjson"  # the content type of event streams
PLACED = ("environment",)  # the query of what is about one
_CLIENT_LEFT = 499  # nobody reads it
ON_BEHALF_OF = "portico.token"  # where the scope of a request names its token

_T = TypeVar("_T")
Handler = Callable[[Request], Awaitable["Response | EventStream"]]


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route takes and gives: documents, bytes, events (of `wire.control.Event`), or nothing."""

    takes: type[msgspec.Struct] | type[bytes] | None = None
    gives: type[msgspec.Struct] | type[EventStream] | None = None
    status: int = 200
    query: tuple[str, ...] = ()


class Documented(Route):
    """A route that says what it is for."""

    operation: Operation


def route(method: str, path: str, handle: Handler, operation: Operation) -> Documented:
    """A route whose handler may raise; what it raises becomes the answer."""

    async def endpoint(request: Request) -> ASGIApp:
        try:
            return await handle(request)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)
        except Exception as error:
            return respond(error)

    documented = Documented(path, endpoint, methods=[method])
    documented.operation = operation
    return documented


def environment_of(request: Request) -> str:
    """The environment that the request is about."""
    return request.query_params.get("environment") or MAIN


def token_of(request: Request) -> str | None:
    """The name of the token on whose behalf this is asked; None: over the server's own socket."""
    token: str | None = request.scope.get(ON_BEHALF_OF)
    return token


async def read_document(request: Request, decoder: msgspec.json.Decoder[_T]) -> _T:
    """The request's body as a document; InvalidError when it is too large or not of that shape."""
    body = bytearray()
    async for chunk in bounded(request, MAX_DOCUMENT):
        body += chunk
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:  # the latter of what is nested too deeply
        raise InvalidError(f"The request's body is not what this address expects: {error}.") from None


async def bounded(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The request's body in pieces; InvalidError once it is longer than `limit` bytes."""
    declared = request.headers.get("content-length", "0")
    size = 0
    if declared.isdigit() and int(declared) > limit:
        raise InvalidError(f"The request's body is too large: {declared} bytes; at most {limit} are taken.")
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise InvalidError(f"The request's body is too large: at most {limit} bytes are taken.")
        yield chunk


def document(value: msgspec.Struct, status: int = 200) -> Response:
    """A document as an answer."""
    return Response(msgspec.json.encode(value), status, media_type=_JSON)


class EventStream:
    """An answer of events, one a line, as they come. An ASGI application, like every Starlette response.

    An error before the first event is an ordinary answer, a later one the last event. When the client leaves, the
    iterator is closed at once, also while it waits for its next event.
    """

    def __init__(self, events: AsyncIterator[Event], last: Event | None = None) -> None:
        """`last` is said when the iterator has come to its end; a client stops at the first `Ended`."""
        self._events = events
        self._last = last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pump = asyncio.ensure_future(self._pump(scope, receive, send))
        leave = asyncio.ensure_future(left(receive))
        try:
            await asyncio.wait({pump, leave}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pump.cancel()
            leave.cancel()
            await asyncio.gather(pump, leave, return_exceptions=True)
            await self._close()

    async def _pump(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            first = await anext(self._events, None)
        except Exception as error:
            await respond(error)(scope, receive, send)
            return
        head = [(b"content-type", EVENTS)]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        if first is not None:
            await _send_line(send, encode_event(first))
        try:
            async for event in self._events:
                await _send_line(send, encode_event(event))
            if self._last is not None:
                await _send_line(send, encode_event(self._last))
        except Exception as error:
            await _send_line(send, encode_event(to_problem(error)[1]))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _close(self) -> None:
        close = getattr(self._events, "aclose", None)  # generators have it, other iterators need not
        if close is not None:
            await close()


async def _send_line(send: Send, line: bytes) -> None:
    await send({"type": "http.response.body", "body": line, "more_body": True})


async def left(receive: Receive) -> None:
    """Return when the client has left; its request has been read to the end."""
    while (await receive())["type"] != "http.disconnect":
        pass
