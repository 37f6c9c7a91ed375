"""`/v1/openapi.json`: what can be asked of the API, for machines. Made of the routes and of the wire's documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from portico.api.http import EVENTS, Documented, EventStream, Operation, route
from portico.model.version import VERSION
from portico.wire.control import Event, Problem

PATH: Final = "/v1/openapi.json"
_REF: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"


def documentation(routes: Sequence[Documented]) -> Documented:
    """The route of the document about these ones."""

    async def schema(_: Request) -> Response:
        return Response(msgspec.json.encode(document(routes)), media_type=_JSON)

    return route("GET", PATH, schema, Operation())


def document(routes: Sequence[Documented]) -> dict[str, Any]:
    """OpenAPI 3.1."""
    kinds = {kind: None for entry in routes for kind in (entry.operation.takes, entry.operation.gives)}
    structs = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    events = [kind for kind in Event.__args__ if kind is not Problem]
    _, components = msgspec.json.schema_components([*structs, *events, Problem], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for entry in routes:
        for method in sorted((entry.methods or set()) - {"HEAD"}):
            paths.setdefault(entry.path, {})[method.lower()] = _operation(entry, method)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Portico control API", "version": VERSION},
        "security": [{"token": []}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(entry: Documented, method: str) -> dict[str, Any]:
    operation = entry.operation
    found: dict[str, Any] = {
        "operationId": f"{method.lower()}{re.sub('[^a-z]+', '_', entry.path.removeprefix('/v1').lower()).rstrip('_')}",
        "parameters": [
            *(_parameter(name, "path") for name in re.findall(r"{(\w+)}", entry.path)),
            *(_parameter(name, "query") for name in operation.query),
        ],
        "responses": {
            str(operation.status): {"description": "Done.", **_content(operation.gives)},
            "default": {"description": "Refused, or failed.", **_content(Problem)},
        },
    }
    if operation.takes is not None:
        found["requestBody"] = {"required": True, **_content(operation.takes)}
    return found


def _parameter(name: str, place: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}}


def _content(kind: type | None) -> dict[str, Any]:
    if kind is None:
        return {}
    if kind is bytes:
        return {"content": {"application/octet-stream": {}}}
    if kind is EventStream:
        return {"content": {EVENTS.decode(): {"schema": {"type": "string"}}}}
    return {"content": {_JSON: {"schema": {"$ref": _REF.format(name=kind.__name__)}}}}
