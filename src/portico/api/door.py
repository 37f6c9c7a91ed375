"""What the public door shows of the control API: its health to everybody, all else to those who have a token."""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portico.api.errors import respond, to_problem
from portico.api.http import EVENTS, ON_BEHALF_OF, environment_of
from portico.api.services import AccessService, CallPlaceService
from portico.model import errors
from portico.wire.calls import RELAYED_HOST, RELAYED_PATH
from portico.wire.control import TokenInfo, encode_event

# What a token for one environment may ask for. Content is nobody's: who asks for it knows what it is.
_PLACED: Final = re.compile(r"/v1/(apps|deployments|ephemeral|secrets)(/.*)?")
_COMMON: Final = re.compile(r"/v1/(blobs/.*|server|openapi\.json)")

_CALLS: Final = RELAYED_PATH.decode() + "/"


def _is_from_another_site(request: Request) -> bool:
    """Whether a page that is not this server's has a browser ask. Browsers say so; other clients say nothing."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        return True
    return request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


class _Answer:
    """How far the answer to a request has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False
        self._events = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun, self._events = True, EVENTS in dict(message["headers"]).values()
        await self._send(message)

    async def refuse(self, error: Exception, scope: Scope, receive: Receive) -> None:
        """An answer where there was none, the last event of those that came; what else is cut short stays so."""
        if not self._begun:
            response = respond(error)
            if isinstance(error, errors.AuthError):
                response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, self._send)
        elif self._events:
            await self._send({"type": "http.response.body", "body": encode_event(to_problem(error)[1])})


class TokenDoor:
    """An ASGI application around the API: no request without a token reaches it."""

    def __init__(self, app: ASGIApp, access: AccessService, calls: ASGIApp, places: CallPlaceService) -> None:
        self._app = app
        self._calls = calls
        self._places = places
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["path"] == "/healthz":
            await PlainTextResponse("ok\n")(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            token = await self._admit(scope)
            scope[ON_BEHALF_OF] = token.name
            with self._access.using(token.id):
                calls = scope["path"].startswith(_CALLS)
                await (self._calls if calls else self._app)(scope, receive, answer.send)
        except Exception as error:
            await answer.refuse(error, scope, receive)

    async def _admit(self, scope: Scope) -> TokenInfo:
        request = Request(scope)
        if _is_from_another_site(request):
            raise errors.PermissionDeniedError("The control API takes no requests of other sites' pages.")
        token = await self._access.admit(request.headers.get("authorization", ""))
        if token.environment is not None and not _COMMON.fullmatch(scope["path"]):
            asked = await self._asked(request)
            if asked != token.environment:
                what = "the server itself" if asked is None else f"the environment {asked!r}"
                raise errors.PermissionDeniedError(
                    f"The token {token.id} is for the environment {token.environment!r} only, and not for {what}.",
                    hint="Name that environment with --env or PORTICO_ENVIRONMENT, or use another token.",
                )
        return token

    async def _asked(self, request: Request) -> str | None:
        """The environment that a request is about; None: it is about the server itself."""
        path = request.scope["path"]
        if path.startswith(_CALLS):
            host = request.headers.get(RELAYED_HOST.decode(), "")
            return await self._places.environment_of_call(host, path.removeprefix(_CALLS))
        return environment_of(request) if _PLACED.fullmatch(path) else None
