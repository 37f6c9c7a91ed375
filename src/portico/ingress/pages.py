"""The answers of the ingress itself: plain text, or JSON for those who ask for it; readable from any origin."""

from __future__ import annotations

import json
from dataclasses import replace
from http import HTTPStatus

from portico.ingress.head import RequestHead
from portico.ingress.ports import Refusal

INVALID_CALL = Refusal(404, "modal-http: invalid function call", code="not_found")
STOPPED = Refusal(404, "modal-http: app for invoked web endpoint is stopped", code="not_found")
BAD_REQUEST = Refusal(400, "modal-http: bad request: not valid HTTP/1.1")
BAD_TARGET = Refusal(400, "modal-http: bad request: the request's target is not a path")
UNKNOWN_CODING = Refusal(501, "modal-http: bad request: the only transfer coding that is understood is chunked")
NO_HOST = Refusal(400, "modal-http: bad request: it needs exactly one Host header")
MISDIRECTED = Refusal(421, "modal-http: not done: ask again, on a connection of its own")
NOWHERE = Refusal(503, "modal-http: no process of the server has this function now", retry_after=1)
BAD_HANDSHAKE = Refusal(400, "modal-http: bad request: a WebSocket's handshake has no body")
UNKNOWN_VERSION = Refusal(505, "modal-http: bad request: it is neither HTTP/1.1 nor HTTP/1.0")
NO_CONNECT = Refusal(501, "modal-http: bad request: this is no proxy, it does not connect")
NO_TRACE = Refusal(405, "modal-http: bad request: the server itself answers no TRACE", lines=b"allow: OPTIONS\r\n")
ARRIVED = Refusal(200, "")
TARGET_TOO_LONG = Refusal(414, "modal-http: bad request: the request's target is too long for a head of 64 KiB")
HEAD_TOO_LARGE = Refusal(431, "modal-http: bad request: the request's head is over 64 KiB")
REQUEST_TIMEOUT = Refusal(408, "modal-http: bad request: the request did not arrive in time")
BAD_REDIRECT_METHOD = Refusal(400, "modal-http: bad redirect method")
NO_CREDENTIALS = Refusal(401, "modal-http: missing credentials for proxy authorization", code="unauthorized")
INVALID_CREDENTIALS = Refusal(401, "modal-http: invalid credentials for proxy authorization", code="unauthorized")
FOREIGN_CREDENTIALS = Refusal(
    403, "modal-http: the credentials for proxy authorization are not meant for this endpoint", code="unauthorized"
)
PREFLIGHT = Refusal(200, "")
LOST = Refusal(502, "modal-http: internal error: the container ended before it answered", code="remote")
TERMINATED = Refusal(500, "modal-http: internal error: function was terminated by signal", code="remote")
TIMED_OUT = Refusal(500, "modal-http: internal error: function execution timed out", code="function_timeout")
GARBAGE = Refusal(502, "modal-http: internal error: the container's answer is not HTTP", code="remote")


def too_large(limit: int) -> Refusal:
    """The refusal of a body with more than `limit` bytes."""
    power = min(3, max(0, (limit.bit_length() - 1) // 10))
    size = f"{limit / (1 << 10 * power):g} {('bytes', 'KiB', 'MiB', 'GiB')[power]}"
    return Refusal(413, f"modal-http: bad request: the request's body is over {size}")


def timed_out(queued: int) -> Refusal:
    """The refusal of a call that has run for too long, while `queued` others found no slot of its function."""
    if not queued:
        return TIMED_OUT
    text = f"{TIMED_OUT.text}; {queued} more waited for it, with no slot free: a call that waits for its own function"
    return replace(TIMED_OUT, text=f"{text} needs a higher max_containers or @modal.concurrent")


def see_other(url: bytes) -> Refusal:
    """The answer that sends a client there."""
    return Refusal(303, "", lines=b"location: %b\r\n" % url)


def render(refusal: Refusal, request_id: str, head: RequestHead, *, date: bytes, close: bool) -> bytes:
    """The whole response to the request with this head. A preflight passes, so that its page may read the refusal."""
    asked = head.find(b"access-control-request-method") if head.method == b"OPTIONS" else None
    as_json = head.wants_json
    if asked is not None:
        refusal, body, kind = PREFLIGHT, b"", b"text/plain"
    elif not refusal.text:
        body, kind = b"", b"text/plain"
    elif as_json:
        error = {"status": refusal.status, "message": refusal.text, "request_id": request_id}
        if refusal.code is not None:
            error["code"] = refusal.code
        body, kind = json.dumps({"error": error}).encode() + b"\n", b"application/json"
    else:
        # an error of ours carries its id, so that it can be found in the logs; a plain "no" stays as clients match it
        text = f"{refusal.text} (request {request_id})" if refusal.status >= 500 else refusal.text
        body, kind = text.encode() + b"\n", b"text/plain; charset=utf-8"
    if refusal.status == 404 and not as_json:
        body = body.rstrip(b"\n")
    reason = HTTPStatus(refusal.status).phrase.encode()
    lines = [
        b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n" % (refusal.status, reason, kind, len(body)),
        _cors(head, asked),
        b"x-request-id: %b\r\n" % request_id.encode(),
        date,
    ]
    if refusal.retry_after is not None:
        lines.append(b"retry-after: %d\r\n" % refusal.retry_after)
    if refusal.lines:
        lines.append(refusal.lines)
    if close:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    if head.method != b"HEAD":
        lines.append(body)
    return b"".join(lines)


def _cors(head: RequestHead, asked: bytes | None) -> bytes:
    """Open to any origin. What the browser names is named back: "*" does not cover credentials."""
    origin = head.find(b"origin")
    lines = [b"access-control-allow-origin: %b\r\n" % (origin or b"*")]
    if origin is not None:
        lines.append(b"access-control-allow-credentials: true\r\nvary: origin\r\n")
    lines.append(b"access-control-expose-headers: x-request-id\r\n")
    if asked is not None:
        headers = head.find(b"access-control-request-headers") or b"*"
        lines.append(b"access-control-allow-methods: %b\r\naccess-control-allow-headers: %b\r\n" % (asked, headers))
    return b"".join(lines)
