"""`/v1/secrets`: variables that the server keeps by name. Their values come in, and never go out."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from portico.api.http import PLACED, Documented, Operation, document, environment_of, read_document, route
from portico.api.services import SecretService
from portico.wire.control import SecretInfo, SecretList, SecretRequest

_secret = msgspec.json.Decoder(SecretRequest)


def routes(secrets: SecretService) -> list[Documented]:
    """What can be asked of secrets."""

    async def everything(request: Request) -> Response:
        return document(await secrets.secrets(environment_of(request)))

    async def write(request: Request) -> Response:
        wanted = await read_document(request, _secret)
        return document(await secrets.write_secret(environment_of(request), request.path_params["name"], wanted))

    async def delete(request: Request) -> Response:
        await secrets.delete_secret(environment_of(request), request.path_params["name"])
        return Response(status_code=204)

    return [
        route("GET", "/v1/secrets", everything, Operation(gives=SecretList, query=PLACED)),
        route("PUT", "/v1/secrets/{name}", write, Operation(SecretRequest, SecretInfo, query=PLACED)),
        route("DELETE", "/v1/secrets/{name}", delete, Operation(status=204, query=PLACED)),
    ]
