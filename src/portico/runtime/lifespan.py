"""Runs an ASGI app's lifespan: what it does before the first request and after the last one."""

from __future__ import annotations

import asyncio
from typing import Any

from portico.model.errors import ExecutionError, StartError
from portico.runtime.asgi import App, Message

_LAST_WORDS = 1.0  # seconds in which an app that failed may still raise its reason


class Lifespan:
    """One app's lifespan. An app that does not know lifespans is fine without."""

    def __init__(self, app: App) -> None:
        self.state: dict[str, Any] = {}  # what the app shares with its requests
        self._app = app
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Returns when the app has started; raises what the app raised, or StartError with its words."""
        self._task = asyncio.create_task(self._run())
        answer = await self._ask("lifespan.startup")
        if answer is None:
            self._task.exception()  # an app that knows no lifespans may raise; that is no failure
            return
        if answer["type"] == "lifespan.startup.complete":
            return
        await asyncio.wait({self._task}, timeout=_LAST_WORDS)
        if self._task.done():
            self._task.result()  # raises the app's own exception, if it has one
        raise StartError(answer.get("message") or "The app's lifespan startup failed.")

    async def shutdown(self) -> None:
        """Returns when the app has shut down; raises what the app raised, or ExecutionError with its words."""
        if self._task is None or self._task.done():
            return
        answer = await self._ask("lifespan.shutdown")
        if answer is not None and answer["type"] == "lifespan.shutdown.complete":
            return
        await asyncio.wait({self._task}, timeout=_LAST_WORDS)
        if self._task.done():
            self._task.result()
        raise ExecutionError((answer or {}).get("message") or "The app's lifespan shutdown failed.")

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        await self._app(scope, self._messages.get, self._answers.put)

    async def _ask(self, what: str) -> Message | None:
        """Tell the app; its answer, or None when it returned or raised without one."""
        assert self._task is not None
        self._messages.put_nowait({"type": what})
        answer = asyncio.create_task(self._answers.get())
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done() and self._answers.empty():
            answer.cancel()
            return None
        return await answer
