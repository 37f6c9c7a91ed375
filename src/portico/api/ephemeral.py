"""`/v1/ephemeral`: apps that live as long as their connection."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from portico.api.http import PLACED, Documented, EventStream, Operation, environment_of, read_document, route
from portico.api.services import DeployService
from portico.wire.control import DeployRequest, Ended, EphemeralRequest

_ephemeral = msgspec.json.Decoder(EphemeralRequest)
_reload = msgspec.json.Decoder(DeployRequest)


def routes(deploys: DeployService) -> list[Documented]:
    """What can be asked of ephemeral apps."""

    async def create(request: Request) -> EventStream:
        wanted = await read_document(request, _ephemeral)
        return EventStream(deploys.ephemeral(wanted, environment_of(request)), last=Ended("stopped"))

    async def hold(request: Request) -> Response:
        deploys.hold(request.path_params["app_id"], environment_of(request))
        return Response(status_code=204)

    async def release(request: Request) -> Response:
        deploys.release(request.path_params["app_id"], environment_of(request))
        return Response(status_code=204)

    async def reload(request: Request) -> EventStream:
        wanted = await read_document(request, _reload)
        return EventStream(deploys.reload(request.path_params["app_id"], wanted, environment_of(request)))

    return [
        route("POST", "/v1/ephemeral", create, Operation(EphemeralRequest, EventStream, query=PLACED)),
        route("POST", "/v1/ephemeral/{app_id}/hold", hold, Operation(status=204, query=PLACED)),
        route("POST", "/v1/ephemeral/{app_id}/release", release, Operation(status=204, query=PLACED)),
        route(
            "POST",
            "/v1/ephemeral/{app_id}/reload",
            reload,
            Operation(DeployRequest, EventStream, query=PLACED),
        ),
    ]
