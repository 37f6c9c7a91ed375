"""`/v1/server`: the server itself."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from portico.api.http import Documented, Operation, document, route
from portico.api.services import ServerService
from portico.wire.control import ServerInfo


def routes(server: ServerService) -> list[Documented]:
    """What can be asked of the server."""

    async def info(_: Request) -> Response:
        return document(server.info())

    async def stop(_: Request) -> Response:
        server.stop()
        return Response(status_code=202)

    return [
        route("GET", "/v1/server", info, Operation(gives=ServerInfo)),
        route("POST", "/v1/server/stop", stop, Operation(status=202)),
    ]
