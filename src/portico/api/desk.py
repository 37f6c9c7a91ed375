"""The desk: where calls are stored and asked about. Two ASGI applications, for sockets of the server's own.

For functions' callers (the ingress leads hosts of the calls' socket here):

    POST /                   at <function>.spawn    a call's frames -> VALUE: the id of the stored call
    GET  /<id>?wait=         at stored.calls        its answer, 202 when there is none after so many seconds
    POST /<id>/cancel?terminate=                    -> VALUE: None
    GET  /retries            at <function>.control  -> VALUE: the retry policy, as a dict, or None
    GET  /stats, /autoscaler, /url                  -> VALUE: a dict
    POST /autoscaler?min_containers=…               -> VALUE: the settings from now on; "none" takes a bound away

With the parameters of a class, as one quoted piece of text behind another "/", stats and autoscaler are about its
containers.

Values are pickled here, and nothing is ever unpickled.
"""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from portico.api.errors import to_problem
from portico.api.services import CallService, FunctionService
from portico.model.calls import CallRecord, CallState
from portico.model.errors import InvalidError, NotFoundError
from portico.wire.calls import CONTENT_TYPE, CONTROL_DOMAIN, STORED_HOST, Kind, calls_host, frames
from portico.wire.container import INPUT_HEADER

_NOT_PASSED: Final = frozenset(
    (INPUT_HEADER, b"connection", b"content-length", b"transfer-encoding", b"expect", b"keep-alive", b"te", b"trailer")
)
_NOT_READY: Final = 202
_WAIT: Final = 86400.0  # seconds that one question waits for an answer, at most


def make_desk(calls: CallService, functions: FunctionService) -> ASGIApp:
    """The desk for the calls' socket."""

    async def desk(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await _answer(request, calls, functions)
        except ClientDisconnect:
            return
        except Exception as error:
            response = _refusal(error)
        await response(scope, receive, send)

    return desk


async def _answer(request: Request, calls: CallService, functions: FunctionService) -> Response:
    host = request.headers.get("host", "")
    verb = (request.method, request.url.path)
    if host == STORED_HOST:
        return await _stored(request, calls)
    target = await functions.find(calls_host(host))
    if host.endswith(CONTROL_DOMAIN):
        what, _, parameters = verb[1][1:].partition("/")
        if (request.method, what) == ("POST", "autoscaler"):
            return _value(await functions.update_autoscaler(target, _settings(request), parameters.encode()))
        if request.method == "GET" and what in ("autoscaler", "stats", "retries", "url"):
            return _value(await functions.about(target, what, parameters.encode()))
    elif verb == ("POST", "/"):
        if target.is_generator:
            raise InvalidError("A generator function cannot be called with `.spawn(...)`.")
        head, client = request_head(request.scope)
        key = target.key(request.scope["query_string"], alone=True)
        return _value(await calls.accept(key, head, client, body_of(request)))
    raise NotFoundError(f"Nothing answers at {verb[1]}.")


async def _stored(request: Request, calls: CallService) -> Response:
    call_id, _, verb = request.url.path[1:].partition("/")
    if request.method == "POST" and verb == "cancel":
        await calls.cancel(call_id, terminate=request.query_params.get("terminate") == "1")
        return _value(None)
    if request.method != "GET" or verb:
        raise NotFoundError(f"Nothing answers at {request.url.path}.")
    wait = request.query_params.get("wait")
    call = await until_left(request, calls.outcome(call_id, min(float(wait), _WAIT) if wait else _WAIT))
    if call is None or call.outcome is None or call.state is not CallState.DONE:
        return Response(status_code=_NOT_READY)
    outcome = call.outcome
    if outcome.code is not None:
        return _error(500, outcome.code, outcome.body.inline.decode())
    if outcome.status != 200:
        return _error(outcome.status, "remote", "the container's answer is not one to a call")
    return StreamingResponse(
        calls.contents(outcome.body),
        headers={"content-type": CONTENT_TYPE.decode(), "content-length": str(outcome.body.size)},
    )


async def until_left(request: Request, work: Any) -> CallRecord | None:
    """What the work comes to; None when the client leaves first."""
    waiting = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await waiting if waiting.done() else None
    finally:
        for task in (waiting, leaving):
            task.cancel()
        await asyncio.gather(waiting, leaving, return_exceptions=True)


def request_head(scope: Scope) -> tuple[bytes, str]:
    """A request's head and its client, as a call keeps them."""
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    lines = [b"%b %b HTTP/1.1\r\n" % (scope["method"].encode(), target)]
    lines += [b"%b: %b\r\n" % (name, value) for name, value in scope["headers"] if name not in _NOT_PASSED]
    sent = dict(scope["headers"]).get(INPUT_HEADER, b"- 127.0.0.1 0 http")
    return b"".join(lines), sent.decode("latin-1").partition(" ")[2]


async def body_of(request: Request) -> AsyncIterator[bytes]:
    """The request's body, in pieces."""
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _settings(request: Request) -> dict[str, float | None]:
    try:
        return {name: None if text == "none" else float(text) for name, text in request.query_params.items()}
    except ValueError:
        raise InvalidError(f"Not settings of an autoscaler: {request.url.query}.") from None


def _value(value: object) -> Response:
    data = b"".join(frames(Kind.VALUE, [pickle.dumps(value, protocol=5)]))
    return Response(data, media_type=CONTENT_TYPE.decode())


def _refusal(error: Exception) -> Response:
    _, problem = to_problem(error)
    return _error(500, problem.code, problem.message)


def _error(status: int, code: str, message: str) -> Response:
    document = {"error": {"status": status, "code": code, "message": message}}
    return Response(json.dumps(document) + "\n", status, media_type="application/json")
