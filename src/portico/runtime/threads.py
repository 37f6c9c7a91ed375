"""Threads for what blocks, with less around each piece of work than `concurrent.futures` has."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Ending = tuple[T | None, BaseException | None]  # as a value: futures refuse to carry a StopIteration
InThreads = Callable[[], Iterable[object]]  # the tasks that wait for a worker thread right now

_FRAMEWORK_THREADS = 40  # what FastAPI and Starlette have by themselves: files, background tasks, an app's own


class Threads:
    """At most so many threads, for one loop; each starts when it is needed, and stays."""

    def __init__(self, number: int, name: str) -> None:
        self._number = number
        self._name = name
        self._started = 0
        self._running = 0
        self._work: SimpleQueue[tuple[_Running, Callable[[], Any]]] = SimpleQueue()

    def __repr__(self) -> str:
        return f"<Threads {self._name!r} {self._running} running, {self._started} started>"

    def run(self, work: Callable[[], T]) -> asyncio.Future[Ending[T]]:
        """How it ends. Whoever awaits this and is cancelled hears of it when the thread is done."""
        running = _Running()
        self._work.put((running, work))
        self._running += 1
        if self._started < min(self._running, self._number):
            name = f"{self._name}_{self._started}"
            self._started += 1
            threading.Thread(target=self._serve, args=(asyncio.get_running_loop(),), name=name, daemon=True).start()
        return running

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            running, work = self._work.get()
            ending = _contained(work)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._ended, running, ending)
            del running, work, ending  # or they would live until the next comes

    def _ended(self, running: _Running, ending: Ending[Any]) -> None:
        self._running -= 1
        running.set_result(ending)


class _Running(asyncio.Future[Any]):
    """Work in a thread: it cannot be ended."""

    def cancel(self, msg: Any = None) -> bool:
        """Refuse: a task that is to be cancelled is then cancelled when this is done."""
        return False


def _contained(work: Callable[[], T]) -> Ending[T]:
    try:
        return work(), None
    except BaseException as error:
        return None, error


def limit_frameworks(max_inputs: int) -> InThreads:
    """Let FastAPI and Starlette have so many more threads of the running loop; the tasks that wait for one of them."""
    try:
        from anyio import to_thread  # comes with FastAPI and Starlette; an app may do without
    except ImportError:
        return tuple
    limiter = to_thread.current_default_thread_limiter()
    limiter.total_tokens = max_inputs + _FRAMEWORK_THREADS
    return lambda: limiter.statistics().borrowers
