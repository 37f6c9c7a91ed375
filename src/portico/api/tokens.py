"""`/v1/tokens`: who may use this API from other machines."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from portico.api.http import Documented, Operation, document, read_document, route
from portico.api.services import AccessService
from portico.wire.control import NewToken, TokenInfo, TokenList, TokenSecret

_new = msgspec.json.Decoder(NewToken)


def routes(access: AccessService) -> list[Documented]:
    """What can be asked of tokens."""

    async def everything(_: Request) -> Response:
        return document(TokenList(await access.tokens()))

    async def create(request: Request) -> Response:
        return document(await access.create_token(await read_document(request, _new)), status=201)

    async def revoke(request: Request) -> Response:
        return document(await access.revoke_token(request.path_params["ref"]))

    return [
        route("GET", "/v1/tokens", everything, Operation(gives=TokenList)),
        route("POST", "/v1/tokens", create, Operation(NewToken, TokenSecret, 201)),
        route("DELETE", "/v1/tokens/{ref}", revoke, Operation(gives=TokenInfo)),
    ]
