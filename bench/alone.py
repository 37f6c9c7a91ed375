"""One process of the road alone, so that tools can look at it: the ingress, or a container. For `bench.profile`.

`python -m bench.alone door FOLDER PORT`: the ingress, the pool and the supervisor, before the container in FOLDER.
`python -m bench.alone container FOLDER KIND`: what a container runs, with one of the three functions.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from portico.engines.fake import FakeEngine
from portico.ingress.admission import Admission
from portico.ingress.door import Ingress
from portico.ingress.ports import Route
from portico.model.policy import Scope
from portico.model.ports import BuiltImage, ContainerStart
from portico.model.spec import Concurrency, EntrySpec, FunctionSpec, WebKind, WebSpec
from portico.runtime import plain, serve, threads, web
from portico.server.endpoint import FunctionEndpoint
from portico.server.supervisor import Supervisor

CONTAINER = "ct-0000000000000000"
KINDS = ("coroutine", "plain", "asgi")


async def coroutine() -> dict[str, str]:
    """An async function."""
    return {"message": "Hello world!"}


def plain_function() -> dict[str, str]:
    """A plain one."""
    return {"message": "Hello world!"}


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """No framework."""
    assert scope["type"] == "http", "this app knows nothing else"
    headers = [(b"content-length", b"12"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello world!"})


def _spec(kind: str) -> FunctionSpec:
    slots = 1 if kind == "plain" else 300
    web_kind = WebKind.ASGI_APP if kind == "asgi" else WebKind.FASTAPI_ENDPOINT
    web_spec = WebSpec(kind=web_kind)
    return FunctionSpec(name=kind, module="m", qualname=kind, web=web_spec, concurrency=Concurrency(max_inputs=slots))


class _One:
    """Every host leads here."""

    def __init__(self, route: Route) -> None:
        self._route = route

    def find(self, host: str) -> Route:
        """The route."""
        return self._route


async def door(folder: str, port: str) -> None:
    """Serve until the end."""
    loop = asyncio.get_running_loop()
    function = _spec("coroutine")
    start = ContainerStart(
        container_id=CONTAINER,
        app_id="ap-1",
        app_name="profile",
        version=1,
        ephemeral=False,
        environment="main",
        entry=EntrySpec(module="m"),
        function=function,
        image=BuiltImage(key="k", python=Path(sys.executable)),
        bundle_dir=Path(folder),
    )
    supervisor = Supervisor(function, lambda: start, FakeEngine(Path(folder)), lambda _, text: print(text), loop)
    supervisor.rouse()
    place = Scope("main", "profile", "f")
    admission = Admission(None, now=loop.time)
    endpoint = FunctionEndpoint(supervisor, place, "ap-1")
    ingress = Ingress(_One(admission.route(endpoint, place, protected=False)), loop)
    sock = socket.create_server(("127.0.0.1", int(port)), backlog=2048)
    await supervisor.prove()
    gc.freeze()
    await ingress.listen(sock)
    await asyncio.Event().wait()


async def container(folder: str, kind: str) -> None:
    """Serve until the end."""
    functions: dict[str, Callable[..., Any]] = {"coroutine": coroutine, "plain": plain_function, "asgi": lambda: asgi}
    spec = _spec(kind)
    endpoint = web.build(spec, functions[kind])
    server = serve.Server(
        {"": endpoint},
        f"{folder}/{CONTAINER}.sock",
        max_inputs=spec.slots,
        done=lambda input_id: None,
        explain=lambda error: (repr(error), ""),
    )
    gc.freeze()
    if endpoint.plain:
        await plain.serve(lambda: server.run(lambda: None), threads.limit_frameworks(spec.slots))
    else:
        await server.run(lambda: None)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    uvloop.run({"door": door, "container": container}[what](*rest))
