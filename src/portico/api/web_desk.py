"""Requests to endpoints that are stored and answered later: `Prefer: respond-async`, and their results' URLs.

The ingress leads such requests here, with the endpoint's own Host. A request becomes a stored call of its function; its
response, with its status, headers and body, is what the result's URL answers once it is there.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from portico.api.desk import body_of, request_head
from portico.api.errors import to_problem
from portico.api.services import CallService, FunctionService
from portico.core.durable import function_of
from portico.model.calls import CallRecord
from portico.model.errors import InvalidError, NotFoundError, OutputExpiredError

MAX_BODY: Final = 100 * 1024 * 1024  # bytes of a request that is stored
PARAMETER: Final = "__modal_function_call_id"
_OPEN: Final = {"access-control-allow-origin": "*"}  # like the ingress's own pages
_EXPOSED: Final = {"access-control-expose-headers": "location"}


class _TooLargeError(Exception):
    pass


def make_web_desk(calls: CallService, functions: FunctionService) -> ASGIApp:
    """The desk for the public door."""

    async def desk(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await _answer(request, calls, functions)
        except ClientDisconnect:
            return
        except _TooLargeError:
            response = _page(413, f"bad request: a request that is answered later has at most {MAX_BODY >> 20} MiB")
        except NotFoundError:
            response = _page(404, "invalid function call")
        except InvalidError as error:
            response = _page(400, error.message)
        except OutputExpiredError:
            response = _page(410, "the result of this call is no longer kept")
        except Exception as error:
            response = _page(500, f"internal error: {to_problem(error)[1].message}")
        await response(scope, receive, send)

    return desk


async def _answer(request: Request, calls: CallService, functions: FunctionService) -> Response:
    target = await functions.find_web(request.headers["host"].partition(":")[0].lower())
    call_id = request.query_params.get(PARAMETER)
    if call_id is not None:
        if request.method != "GET":
            return _page(400, "bad redirect method")
        call = await calls.outcome(call_id, 0)
        if (call.app_id, function_of(call.function)) != (target.app_id, target.function):
            raise NotFoundError("It is another function's.")
        return _result(call, calls, request)
    key = target.key(request.scope["query_string"], alone=False)
    if calls.is_long(key):
        return _page(429, "too many requests are waiting for this function", {"retry-after": "10"})
    if int(request.headers.get("content-length", "0")) > MAX_BODY:
        raise _TooLargeError
    head, client = request_head(request.scope)
    return _later(request, await calls.accept(key, head, client, _bounded(body_of(request))))


def _later(request: Request, call_id: str) -> Response:
    """Its answer is not there yet; this is where it will be."""
    scheme = request_head(request.scope)[1].rpartition(" ")[2]
    url = f"{scheme}://{request.headers['host']}{request.scope['raw_path'].decode()}?{PARAMETER}={call_id}"
    headers = {"location": url, "preference-applied": "respond-async", **_OPEN, **_EXPOSED}
    return Response(json.dumps({"result_url": url}) + "\n", 202, headers, "application/json")


def _result(call: CallRecord, calls: CallService, request: Request) -> Response:
    outcome = call.outcome
    if outcome is None:
        return _later(request, call.id)
    if outcome.code is not None:
        return _page(outcome.status, f"internal error: {outcome.body.inline.decode().removeprefix('internal error: ')}")
    response = StreamingResponse(calls.contents(outcome.body), outcome.status)
    lines = [line.partition(b": ") for line in outcome.lines.split(b"\r\n") if line]
    response.raw_headers = [(name.lower(), value) for name, _, value in lines]
    if outcome.status not in (204, 304):
        response.raw_headers.append((b"content-length", b"%d" % outcome.body.size))
    return response


async def _bounded(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_BODY:
            raise _TooLargeError
        yield chunk


def _page(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(f"modal-http: {text}", status, {**_OPEN, **(headers or {})})
