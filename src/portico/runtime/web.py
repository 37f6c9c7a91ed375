"""From a function to an ASGI app: one builder for each web decorator, and one for functions that are called.

Not for `web_server`: there a program of the user's own is served, see `program.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from portico.model.errors import InvalidError
from portico.model.spec import FunctionSpec, WebKind, WebSpec
from portico.runtime import calls, routes
from portico.runtime.asgi import App
from portico.runtime.closing import close_streams
from portico.runtime.cors import Cors
from portico.runtime.wsgi import WsgiApp

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a container serves."""

    app: App
    lifespan: bool  # whether the app may want one
    tunnels: bool = False  # whether it gets requests to upgrade as requests, with a Tunnel
    plain: bool = False  # whether it may be served as `plain` has it


def build(spec: FunctionSpec, function: Function) -> Endpoint:
    """The app of a function. Raises InvalidError, and whatever the user's code raises."""
    if spec.web is None:
        is_plain = spec.slots == 1 and not spec.is_generator and routes.is_plain_function(function)
        return Endpoint(calls.Called(spec, function), lifespan=False, plain=is_plain)
    return _BUILDERS[spec.web.kind](spec, spec.web, function)


def calls_function(spec: FunctionSpec) -> bool:
    """Whether building its app runs the user's code."""
    return spec.web is not None and spec.web.kind is not WebKind.FASTAPI_ENDPOINT


def _fastapi_endpoint(spec: FunctionSpec, web: WebSpec, function: Function) -> Endpoint:
    try:  # FastAPI is big, and an image may be without it
        from fastapi import FastAPI
    except ImportError:
        raise InvalidError(
            "`fastapi_endpoint` needs FastAPI, which this function's image does not have. "
            'Add it to the image: `.pip_install("fastapi[standard]")`.'
        ) from None
    close_streams()
    app = FastAPI(openapi_url="/openapi.json" if web.docs else None)  # without a schema there are no docs pages either
    is_plain = routes.add(app, "/", function, web.method)
    return Endpoint(Cors(app), lifespan=False, plain=is_plain and spec.slots == 1)


def _asgi_app(spec: FunctionSpec, web: WebSpec, function: Function) -> Endpoint:
    app = function()
    if not callable(app):
        raise InvalidError(f"An `asgi_app` function has to return an ASGI app, not {type(app).__name__}.")
    close_streams()
    return Endpoint(app, lifespan=True)


def _wsgi_app(spec: FunctionSpec, web: WebSpec, function: Function) -> Endpoint:
    app = function()
    if not callable(app):
        raise InvalidError(f"A `wsgi_app` function has to return a WSGI app, not {type(app).__name__}.")
    return Endpoint(WsgiApp(app, spec.slots), lifespan=False, tunnels=True)


_BUILDERS: dict[WebKind, Callable[[FunctionSpec, WebSpec, Function], Endpoint]] = {
    WebKind.FASTAPI_ENDPOINT: _fastapi_endpoint,
    WebKind.ASGI_APP: _asgi_app,
    WebKind.WSGI_APP: _wsgi_app,
}
