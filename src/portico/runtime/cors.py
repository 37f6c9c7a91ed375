"""Cross-origin requests as Starlette answers them, at no cost for all others."""

from __future__ import annotations

from typing import Any

from portico.runtime.asgi import App, Message, Receive, Scope, Send

_VARY = (b"vary", b"Origin")


class Cors:
    """Lets every page ask. Around the whole app, so that the answer to an exception carries the headers too.

    A request without Origin is not a page's: what Starlette does for it is to say in `Vary` that others get more.
    """

    def __init__(self, app: App) -> None:
        from starlette.middleware.cors import CORSMiddleware

        everything: dict[str, Any] = {"allow_origins": ["*"], "allow_methods": ["*"], "allow_headers": ["*"]}
        self._app = app
        self._cross = CORSMiddleware(app, **everything, allow_credentials=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI."""
        if scope["type"] != "http" or any(name == b"origin" for name, _ in scope["headers"]):
            await self._cross(scope, receive, send)
            return

        async def send_varying(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _varying(message.get("headers", ()))}
            await send(message)

        await self._app(scope, receive, send_varying)


def _varying(headers: Any) -> list[tuple[bytes, bytes]]:
    """With Origin among the names in Vary."""
    said = [value for name, value in headers if name.lower() == b"vary"]
    if not said:
        return [*headers, _VARY]
    rest = [header for header in headers if header[0].lower() != b"vary"]
    return [*rest, (b"vary", b", ".join([*said, b"Origin"]))]
