"""Where Caddy asks whether a name may have a certificate. The path is secret: others on this machine get nothing."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qs

_LONGEST: Final = 253  # characters of a name

Allowed = Callable[[str], Awaitable[bool]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def make_ask(path: str, allowed: Allowed) -> Callable[[dict[str, Any], object, Send], Awaitable[None]]:
    """An ASGI application: 200 to `GET path?domain=NAME` where that is allowed, otherwise 404."""

    async def ask(scope: dict[str, Any], receive: object, send: Send) -> None:
        known = hmac.compare_digest(scope["path"].encode(), path.encode())
        names = parse_qs(scope["query_string"].decode("latin-1")).get("domain", [""]) if known else [""]
        name = names[0].lower()
        status = 200 if 0 < len(name) <= _LONGEST and await allowed(name) else 404
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    return ask
