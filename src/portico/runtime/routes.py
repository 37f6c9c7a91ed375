"""FastAPI's part of `plain`: which endpoints are made of plain functions, and how they are called without a thread."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

from portico.runtime import plain
from portico.runtime.asgi import Receive, Scope, Send

_CALL = "run_in_threadpool"
_CALLERS = ("fastapi.routing", "fastapi.dependencies.utils")


def add(app: Any, path: str, function: Callable[..., Any], method: str) -> bool:
    """Add this function to a FastAPI app; whether it, and all that it depends on, are plain functions."""
    from fastapi.routing import APIRoute

    if not _prepare():
        app.add_api_route(path, function, methods=[method])
        return False
    found: list[bool] = []

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Any], Any]:
            handle = super().get_route_handler()
            found.append(_is_plain(self.dependant))
            return _answering(handle) if found[-1] else handle

    app.router.route_class = Route
    app.add_api_route(path, function, methods=[method])
    return all(found)


def _answering(handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Leave responses that are more than a head and a body to the user's loop: streams, files, background work."""
    from starlette.responses import Response

    async def answer(request: Any) -> Any:
        response = await handle(request)
        if type(response).__call__ is Response.__call__ and response.background is None:
            return response
        away = plain.here()
        return response if away is None else _AtHome(response, away)

    return answer


class _AtHome:
    """A response that is sent from the user's loop."""

    def __init__(self, response: Any, away: plain.Away) -> None:
        self._response = response
        self._away = away

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        away = self._away
        await away.at_home(self._response(scope, partial(away.back, receive), partial(away.back, send)))


def _prepare() -> bool:
    """Have FastAPI call plain functions at once where `plain` allows it. Any version of it may be there."""
    modules = [sys.modules.get(name) for name in _CALLERS]
    if not all(hasattr(module, _CALL) for module in modules):
        return False
    for module in modules:
        original = getattr(module, _CALL)
        if not hasattr(original, "__wrapped__"):
            setattr(module, _CALL, _at_once(original))
    return True


def _at_once(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    async def run_in_threadpool(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        away = plain.here()
        if away is None:
            return await original(func, *args, **kwargs)
        return away.call(func, *args, **kwargs)

    return run_in_threadpool


def _is_plain(dependant: Any) -> bool:
    try:
        return all(map(_is_plain_part, _parts(dependant)))
    except AttributeError:  # a version that keeps this elsewhere
        return False


def _parts(dependant: Any) -> Iterator[Any]:
    yield dependant
    for dependency in dependant.dependencies:
        yield from _parts(dependency)


def _is_plain_part(part: Any) -> bool:
    """FastAPI's own (security schemes) may be async: they wait for nothing. Who has the request may wait for the client
    through it, which nobody would hear while the function works."""
    if (getattr(type(part.call).__call__, "__module__", None) or "").startswith("fastapi."):
        return True
    has_request = part.request_param_name is not None or part.http_connection_param_name is not None
    return not has_request and is_plain_function(part.call)


def is_plain_function(function: Any) -> bool:
    """Whether calling it runs it, and it waits for nothing; not known of objects that can be called."""
    while isinstance(function, partial):
        function = function.func
    return all(
        (inspect.isroutine(layer) or isinstance(layer, type))
        and not inspect.iscoroutinefunction(layer)
        and not inspect.isgeneratorfunction(layer)
        and not inspect.isasyncgenfunction(layer)
        for layer in (function, inspect.unwrap(function))
    )
