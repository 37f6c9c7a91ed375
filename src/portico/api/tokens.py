"""`/v1/tokens`: who may use this API from other machines."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from portico.api.http import document, read_document, route
from portico.api.services import AccessService
from portico.wire.control import NewToken, TokenList

_new = msgspec.json.Decoder(NewToken)


def routes(access: AccessService) -> list[Route]:
    """What can be asked of tokens."""

    async def everything(_: Request) -> Response:
        return document(TokenList(await access.tokens()))

    async def create(request: Request) -> Response:
        return document(await access.create_token(await read_document(request, _new)), status=201)

    async def revoke(request: Request) -> Response:
        return document(await access.revoke_token(request.path_params["ref"]))

    return [
        route("GET", "/v1/tokens", everything),
        route("POST", "/v1/tokens", create),
        route("DELETE", "/v1/tokens/{ref}", revoke),
    ]
