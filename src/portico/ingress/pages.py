"""The answers of the ingress itself: plain text, or JSON for those who ask for it; readable from any origin."""

from __future__ import annotations

import json
from http import HTTPStatus

from portico.ingress.ports import Refusal

INVALID_CALL = Refusal(404, "modal-http: invalid function call")
STOPPED = Refusal(404, "modal-http: app for invoked web endpoint is stopped")
BAD_REQUEST = Refusal(400, "modal-http: bad request: not valid HTTP/1.1")
BAD_TARGET = Refusal(400, "modal-http: bad request: the request's target is not a path")
UNKNOWN_CODING = Refusal(501, "modal-http: bad request: the only transfer coding that is understood is chunked")
NO_HOST = Refusal(400, "modal-http: bad request: it needs exactly one Host header")
HEAD_TOO_LARGE = Refusal(431, "modal-http: bad request: the request's head is over 64 KiB")
REQUEST_TIMEOUT = Refusal(408, "modal-http: bad request: the request did not arrive in time")
LOST = Refusal(502, "modal-http: internal error: the container ended before it answered")
TIMED_OUT = Refusal(500, "modal-http: internal error: function execution timed out")
GARBAGE = Refusal(502, "modal-http: internal error: the container's answer is not HTTP")

_CORS = b"access-control-allow-origin: *\r\naccess-control-allow-methods: *\r\naccess-control-allow-headers: *\r\n"


def render(refusal: Refusal, request_id: str, *, date: bytes, as_json: bool, head_only: bool, close: bool) -> bytes:
    """The whole response."""
    if as_json:
        error = {"status": refusal.status, "message": refusal.text, "request_id": request_id}
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
        _CORS,
        b"x-request-id: %b\r\n" % request_id.encode(),
        date,
    ]
    if refusal.retry_after is not None:
        lines.append(b"retry-after: %d\r\n" % refusal.retry_after)
    if close:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    if not head_only:
        lines.append(body)
    return b"".join(lines)
