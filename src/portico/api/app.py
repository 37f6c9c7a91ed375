"""The control API as two ASGI applications: the real one, for its Unix socket, and what the public door shows of it."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from portico.api import apps as app_routes
from portico.api import blobs as blob_routes
from portico.api import deployments, ephemeral
from portico.api import environments as environment_routes
from portico.api import server as server_routes
from portico.api.errors import respond
from portico.api.services import AppService, DeployService, EnvironmentService, ServerService
from portico.model.errors import AuthError
from portico.model.ports import Blobs


def make_app(
    server: ServerService,
    apps: AppService,
    deploys: DeployService,
    blobs: Blobs,
    environments: EnvironmentService,
) -> ASGIApp:
    """The control API, for the server's own Unix socket: whoever may open that file may ask anything."""
    routes = [
        *server_routes.routes(server),
        *blob_routes.routes(blobs),
        *deployments.routes(deploys),
        *ephemeral.routes(deploys),
        *app_routes.routes(apps),
        *environment_routes.routes(environments),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refused})


def make_public_app() -> ASGIApp:
    """What the bare domain answers on the public port: its health, and a refusal of all else."""
    return Starlette(routes=[Route("/healthz", _healthz), Mount("/", _ask_for_token)])


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _ask_for_token(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    refusal = AuthError(
        "This server's control API asks for a token, and gives none out yet.",
        hint="Use the portico command on the machine where the server runs.",
    )
    response = respond(refusal)
    response.headers["www-authenticate"] = "Bearer"
    await response(scope, receive, send)


async def _refused(_: Request, error: Exception) -> Response:
    return respond(error)
