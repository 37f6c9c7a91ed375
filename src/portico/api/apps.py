"""`/v1/apps`: what is deployed or served, its versions and its logs."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from portico.api.http import PLACED, Documented, EventStream, Operation, document, environment_of, read_document, route
from portico.api.services import AppService
from portico.model.errors import InvalidError
from portico.wire.control import AppInfo, AppList, Ended, History, RollbackRequest

MAX_TAIL = 100_000  # lines
_DEFAULT_TAIL = 100
_rollback = msgspec.json.Decoder(RollbackRequest)


def routes(apps: AppService) -> list[Documented]:
    """What can be asked of apps."""

    async def everything(request: Request) -> Response:
        return document(AppList(await apps.apps(environment_of(request))))

    async def one(request: Request) -> Response:
        return document(await apps.app(request.path_params["ref"], environment_of(request)))

    async def stop(request: Request) -> Response:
        return document(await apps.stop_app(request.path_params["ref"], environment_of(request)))

    async def history(request: Request) -> Response:
        return document(await apps.history(request.path_params["ref"], environment_of(request)))

    async def rollback(request: Request) -> EventStream:
        wanted = await read_document(request, _rollback)
        return EventStream(apps.rollback(request.path_params["ref"], wanted, environment_of(request)))

    async def logs(request: Request) -> EventStream:
        query = request.query_params
        ref, follow = request.path_params["ref"], query.get("follow", "0") not in ("0", "", "false")
        tail, function = _tail(query.get("tail")), query.get("function")
        lines = apps.logs(ref, environment_of(request), follow=follow, tail=tail, function=function)
        return EventStream(lines, last=Ended("stopped") if follow else None)

    return [
        route("GET", "/v1/apps", everything, Operation(gives=AppList, query=PLACED)),
        route("GET", "/v1/apps/{ref}", one, Operation(gives=AppInfo, query=PLACED)),
        route("POST", "/v1/apps/{ref}/stop", stop, Operation(gives=AppInfo, query=PLACED)),
        route("GET", "/v1/apps/{ref}/history", history, Operation(gives=History, query=PLACED)),
        route("POST", "/v1/apps/{ref}/rollback", rollback, Operation(RollbackRequest, EventStream, query=PLACED)),
        route(
            "GET",
            "/v1/apps/{ref}/logs",
            logs,
            Operation(gives=EventStream, query=(*PLACED, "follow", "tail", "function")),
        ),
    ]


def _tail(text: str | None) -> int:
    if text is None:
        return _DEFAULT_TAIL
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) > MAX_TAIL:
        raise InvalidError(f"`tail` is a number of lines from 0 to {MAX_TAIL}, not {text!r}.")
    return int(text)
