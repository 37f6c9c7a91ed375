"""`/v1/deployments`: apps that stay."""

from __future__ import annotations

import msgspec
from starlette.requests import Request

from portico.api.http import PLACED, Documented, EventStream, Operation, environment_of, read_document, route
from portico.api.services import DeployService
from portico.wire.control import DeployRequest

_deploy = msgspec.json.Decoder(DeployRequest)


def routes(deploys: DeployService) -> list[Documented]:
    """What can be asked of deployments."""

    async def deploy(request: Request) -> EventStream:
        return EventStream(deploys.deploy(await read_document(request, _deploy), environment_of(request)))

    return [route("POST", "/v1/deployments", deploy, Operation(DeployRequest, EventStream, query=PLACED))]
