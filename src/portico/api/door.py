"""What the public door shows of the control API: its health to everybody, all else to those who have a token."""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from portico.api.errors import respond
from portico.api.http import environment_of
from portico.api.services import AccessService
from portico.model.errors import AuthError, PermissionDeniedError
from portico.wire.calls import RELAYED_PATH

# What a token for one environment may ask for. Content is nobody's: who asks for it knows what it is.
_PLACED: Final = re.compile(r"/v1/(apps|deployments|ephemeral|secrets)(/.*)?")
_COMMON: Final = re.compile(r"/v1/(blobs/.*|server)")

_CALLS: Final = RELAYED_PATH.decode() + "/"


class TokenDoor:
    """An ASGI application around the API: no request without a token reaches it."""

    def __init__(self, app: ASGIApp, access: AccessService, calls: ASGIApp) -> None:
        self._app = app
        self._calls = calls
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["path"] == "/healthz":
            await PlainTextResponse("ok\n")(scope, receive, send)
            return
        try:
            token_id = await self._admit(scope)
        except Exception as error:
            response = respond(error)
            if isinstance(error, AuthError):
                response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, send)
            return
        with self._access.using(token_id):
            calls = scope["path"].startswith(_CALLS)
            await (self._calls if calls else self._app)(scope, receive, send)

    async def _admit(self, scope: Scope) -> str:
        request = Request(scope)
        token = await self._access.admit(request.headers.get("authorization", ""))
        if token.environment is not None and not _COMMON.fullmatch(scope["path"]):
            asked = environment_of(request) if _PLACED.fullmatch(scope["path"]) else None
            if asked != token.environment:
                what = "the server itself" if asked is None else f"the environment {asked!r}"
                raise PermissionDeniedError(
                    f"The token {token.id} is for the environment {token.environment!r} only, and not for {what}.",
                    hint="Name that environment with --env or PORTICO_ENVIRONMENT, or use another token.",
                )
        return token.id
