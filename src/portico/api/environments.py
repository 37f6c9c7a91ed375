"""`/v1/environments`: what apps and secrets are in."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from portico.api.http import Documented, Operation, document, read_document, route
from portico.api.services import EnvironmentService
from portico.wire.control import EnvironmentChange, EnvironmentInfo, EnvironmentList, NewEnvironment

_new = msgspec.json.Decoder(NewEnvironment)
_change = msgspec.json.Decoder(EnvironmentChange)


def routes(environments: EnvironmentService) -> list[Documented]:
    """What can be asked of environments."""

    async def everything(_: Request) -> Response:
        return document(EnvironmentList(await environments.environments()))

    async def create(request: Request) -> Response:
        wanted = await read_document(request, _new)
        return document(await environments.create_environment(wanted.name, wanted.web_suffix), status=201)

    async def change(request: Request) -> Response:
        wanted = await read_document(request, _change)
        return document(await environments.change_environment(request.path_params["name"], wanted))

    async def delete(request: Request) -> Response:
        stop_apps = request.query_params.get("stop_apps") == "1"
        await environments.delete_environment(request.path_params["name"], stop_apps=stop_apps)
        return Response(status_code=204)

    return [
        route("GET", "/v1/environments", everything, Operation(gives=EnvironmentList)),
        route("POST", "/v1/environments", create, Operation(NewEnvironment, EnvironmentInfo, 201)),
        route("PATCH", "/v1/environments/{name}", change, Operation(EnvironmentChange, EnvironmentInfo)),
        route("DELETE", "/v1/environments/{name}", delete, Operation(status=204, query=("stop_apps",))),
    ]
