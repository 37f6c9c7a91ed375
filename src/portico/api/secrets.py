"""`/v1/secrets`: variables that the server keeps by name. Their values come in, and never go out."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from portico.api.http import document, environment_of, read_document, route
from portico.api.services import SecretService
from portico.wire.control import SecretRequest

_secret = msgspec.json.Decoder(SecretRequest)


def routes(secrets: SecretService) -> list[Route]:
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
        route("GET", "/v1/secrets", everything),
        route("PUT", "/v1/secrets/{name}", write),
        route("DELETE", "/v1/secrets/{name}", delete),
    ]
