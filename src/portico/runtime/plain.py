"""Plain functions without a change of threads, in containers that take one input at a time.

There the loop that serves requests has nothing else to do while a plain (not async) function works. So it runs on a
worker thread of its own, the server's thread, and calls such functions right there, where frameworks would hand each
call to another thread and back. The main thread keeps the user's loop.

Laws:
1. A plain function cannot tell: it runs on a worker thread, always the same one, in a context of its own, no loop runs
   there, and what it sends to the user's loop (`anyio.from_thread`, `run_coroutine_threadsafe`) is done meanwhile.
2. What is async of the user's runs on the user's loop, on the main thread: never on the server's thread.
3. An input has ended when what it runs on the user's loop has ended. A cancellation is passed on and waits for that.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events, tasks
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from portico.client import loops
from portico.runtime.threads import InThreads

T = TypeVar("T")

_away: Away | None = None


class Away:
    """The two loops. home: the user's. loop: the server's. in_threads: tasks of `home` that wait for threads."""

    def __init__(self, home: asyncio.AbstractEventLoop, loop: asyncio.AbstractEventLoop, in_threads: InThreads) -> None:
        self.home = home
        self.loop = loop
        self.in_threads = in_threads

    def call(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Call a plain function as if on a worker thread: in a context of its own, and outside of loop and task."""
        loop = self.loop
        task = asyncio.current_task(loop)
        assert task is not None, "what the server runs, it runs in tasks"
        context = contextvars.copy_context()
        tasks._leave_task(loop, task)
        events._set_running_loop(None)
        try:
            return context.run(function, *args, **kwargs)
        finally:
            events._set_running_loop(loop)
            tasks._enter_task(loop, task)

    async def at_home(self, work: Coroutine[Any, Any, T]) -> T:
        """Have this run on the user's loop; its result."""
        result, error = await _AtHome(self, work)
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    async def back(self, begin: Callable[..., Awaitable[T]], *args: Any) -> T:
        """On the user's loop: have this run on the server's."""

        async def work() -> T:
            return await begin(*args)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self.loop))


class _AtHome(asyncio.Future[Any]):
    """Work on the user's loop, begun at once. Cancelling ends the work; the future is done when the work is."""

    def __init__(self, away: Away, work: Coroutine[Any, Any, Any]) -> None:
        super().__init__(loop=away.loop)
        self._away = away
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._context = contextvars.copy_context()
        away.home.call_soon_threadsafe(self._begin)

    def cancel(self, msg: Any = None) -> bool:
        """Pass it on. A task that is to be cancelled is then cancelled when this is done."""
        self._away.home.call_soon_threadsafe(self._interrupt)
        return False

    def _begin(self) -> None:
        self._task = self._away.home.create_task(self._work, context=self._context)
        self._task.add_done_callback(self._ended)

    def _interrupt(self) -> None:
        if self._task is not None and self._task not in self._away.in_threads():
            self._task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        ending = (None if error is not None else task.result(), error)
        self._away.loop.call_soon_threadsafe(self.set_result, ending)


async def serve(main: Callable[[], Coroutine[Any, Any, None]], in_threads: InThreads) -> None:
    """Run this on the server's thread until it ends, while the running loop is the user's."""
    try:
        from anyio import CapacityLimiter, to_thread
    except ImportError:  # an image without any framework
        await asyncio.to_thread(_serve, main, asyncio.get_running_loop(), in_threads)
        return
    # a worker thread of anyio's, so that plain functions find in it what frameworks say they do
    await to_thread.run_sync(_serve, main, asyncio.get_running_loop(), in_threads, limiter=CapacityLimiter(1))


def here() -> Away | None:
    """Not None in the loop of the server's thread: plain functions may be called at once."""
    away = _away
    return away if away is not None and events._get_running_loop() is away.loop else None


def home() -> asyncio.AbstractEventLoop:
    """The loop of the main thread, for who runs on either."""
    away = here()
    return asyncio.get_running_loop() if away is None else away.home


def _serve(
    main: Callable[[], Coroutine[Any, Any, None]], home: asyncio.AbstractEventLoop, in_threads: InThreads
) -> None:
    global _away
    loop = loops.new_loop()
    _away = Away(home, loop, in_threads)
    try:
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        _away = None
        loop.close()
