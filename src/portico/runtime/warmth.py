"""Makes a template warm: what every container would otherwise import, compile and set up for itself.

Nothing here may start a thread, and nothing here may fail a template: what does not work in an image (an image may have
any packages) fails in the container that needs it, where the user sees why.
"""

from __future__ import annotations

import asyncio
import tempfile
import traceback
from typing import Any

from portico.client import answers
from portico.client import calls as calls  # what containers call functions with, imported ahead
from portico.client import loops as loops
from portico.model.spec import FunctionSpec, WebKind, WebSpec
from portico.runtime import serve, web
from portico.wire import codec
from portico.wire.calls import Kind
from portico.wire.container import Stop

_GET = b"GET /?x=1 HTTP/1.1\r\nhost: warm\r\n\r\n"
_INVALID = b"GET /?x=no HTTP/1.1\r\nhost: warm\r\norigin: http://warm\r\n\r\n"
_POST = b'POST / HTTP/1.1\r\nhost: warm\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{"name":"warm"}'


def generate() -> None:
    """Warm this process. What fails is said on stderr."""
    try:
        _answer(_web("GET"), _get_endpoint(), [_GET, _INVALID])
        _answer(_web("POST"), _post_endpoint(), [_POST])
        _answer(None, _called(), [b"".join(answers.call_with(Kind.CALL, codec.dump((([1],), {}), ""))("warm"))])
    except Exception:
        traceback.print_exc()


def _get_endpoint() -> web.Function:
    async def get(x: int) -> dict[str, int]:
        return {"x": x}

    return get


def _post_endpoint() -> web.Function:
    from pydantic import BaseModel  # an image may be without it

    class Item(BaseModel):
        name: str
        qty: int = 42

    async def post(item: Item) -> Any:
        return item

    post.__annotations__ = {"item": Item, "return": Any}  # FastAPI cannot see a local class by its name
    return post


def _called() -> web.Function:
    async def echo(x: list[int]) -> list[int]:  # a sync one would start a thread
        return x

    return echo


def _web(method: str) -> WebSpec:
    return WebSpec(kind=WebKind.FASTAPI_ENDPOINT, method=method)


def _answer(kind: WebSpec | None, function: web.Function, requests: list[bytes]) -> None:
    """Build this function's app, serve it as a container does, and let it answer these requests."""
    spec = FunctionSpec(name="warm", module="", qualname="", web=kind)
    loop = loops.new_loop()
    try:
        with tempfile.TemporaryDirectory() as folder:
            loop.run_until_complete(_converse(web.build(spec, function), f"{folder}/warm", requests))
    finally:
        loop.close()


async def _converse(endpoint: web.Endpoint, path: str, requests: list[bytes]) -> None:
    server = serve.Server({"": endpoint}, path, max_inputs=1, done=_ignore, explain=lambda error: (repr(error), ""))
    ready = asyncio.Event()
    serving = asyncio.create_task(server.run(ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        reader, writer = await asyncio.open_unix_connection(path)
        for request in requests:
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
        server.obey(Stop(0.0))
        writer.close()
    waiting.cancel()
    await serving


def _ignore(input_id: str) -> None:
    """Nobody waits for the end of this input."""
