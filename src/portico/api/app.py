"""The control API as two ASGI applications: for its Unix socket, and for the public door, which asks for tokens."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from portico.api import admission as admission_routes
from portico.api import apps as app_routes
from portico.api import blobs as blob_routes
from portico.api import deployments, ephemeral
from portico.api import domains as domain_routes
from portico.api import environments as environment_routes
from portico.api import secrets as secret_routes
from portico.api import server as server_routes
from portico.api import tokens as token_routes
from portico.api.calls import CallRelay
from portico.api.door import TokenDoor
from portico.api.errors import respond
from portico.api.openapi import documentation
from portico.api.services import (
    AccessService,
    AdmissionService,
    AppService,
    CallPlaceService,
    DeployService,
    DomainService,
    EnvironmentService,
    SecretService,
    ServerService,
)
from portico.model.ports import Blobs


def make_app(
    server: ServerService,
    apps: AppService,
    deploys: DeployService,
    blobs: Blobs,
    environments: EnvironmentService,
    access: AccessService,
    secrets: SecretService,
    admission: AdmissionService,
    domains: DomainService,
) -> ASGIApp:
    """The control API, for the server's own Unix socket: whoever may open that file may ask anything."""
    routes = [
        *server_routes.routes(server),
        *blob_routes.routes(blobs),
        *deployments.routes(deploys),
        *ephemeral.routes(deploys),
        *app_routes.routes(apps),
        *environment_routes.routes(environments),
        *token_routes.routes(access),
        *secret_routes.routes(secrets),
        *admission_routes.routes(admission),
        *domain_routes.routes(domains),
    ]
    return Starlette(routes=[*routes, documentation(routes)], exception_handlers={HTTPException: _refused})


def make_public_app(app: ASGIApp, access: AccessService, calls_socket: Path, places: CallPlaceService) -> ASGIApp:
    """What the bare domain answers on the public port: the same API, and calls, for those who have a token."""
    return TokenDoor(app, access, CallRelay(calls_socket), places)


async def _refused(_: Request, error: Exception) -> Response:
    return respond(error)
