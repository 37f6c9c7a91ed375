"""`/v1/server`: the server itself."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from portico.api.http import document, route
from portico.api.services import ServerService


def routes(server: ServerService) -> list[Route]:
    """What can be asked of the server."""

    async def info(_: Request) -> Response:
        return document(server.info())

    async def stop(_: Request) -> Response:
        server.stop()
        return Response(status_code=202)

    return [route("GET", "/v1/server", info), route("POST", "/v1/server/stop", stop)]
