"""Closes what Starlette and FastAPI stream when its response has ended, also when its client has left.

They leave that to the garbage collector, which may take minutes: a generator's `finally` would not have run when its
slot is free, and a `remote_gen()` would go on in another container for nobody.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any

_IN_THREADS = "iterate_in_threadpool"
_USERS = ("starlette.concurrency", "starlette.responses", "fastapi.concurrency", "fastapi.routing")


def close_streams() -> None:
    """Have it done from now on, in what this process has imported. Any version of them, or none, may be there."""
    responses = sys.modules.get("starlette.responses")
    iterate = getattr(responses, _IN_THREADS, None)
    response = getattr(responses, "StreamingResponse", None)
    stream = getattr(response, "stream_response", None)
    if responses is None or response is None or iterate is None or stream is None or hasattr(stream, "__wrapped__"):
        return

    async def stream_response(self: Any, send: Any) -> None:
        pieces = self.body_iterator = aiter(self.body_iterator)
        try:
            await stream(self, send)
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                with _shielded():
                    await close()

    async def iterate_in_threadpool(iterator: Iterable[Any]) -> AsyncIterator[Any]:
        iterator = iter(iterator)
        try:
            async with aclosing(iterate(iterator)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                with _shielded():
                    await _in_thread(close)

    stream_response.__wrapped__ = stream  # type: ignore[attr-defined]
    response.stream_response = stream_response
    for name in _USERS:
        module = sys.modules.get(name)
        if getattr(module, _IN_THREADS, None) is iterate:
            setattr(module, _IN_THREADS, iterate_in_threadpool)


def _shielded() -> Any:
    from anyio import CancelScope  # comes with Starlette, without which nobody calls this

    return CancelScope(shield=True)


async def _in_thread(function: Any) -> None:
    from anyio import to_thread

    await to_thread.run_sync(function)
