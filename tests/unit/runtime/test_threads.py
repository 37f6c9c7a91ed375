"""Threads for blocking work: few of them, and nothing ends one but its work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import NoReturn

import pytest

from portico.runtime.threads import Threads


def test_a_thread_starts_when_it_is_needed_and_stays() -> None:
    """Work that follows other work gets its thread."""

    async def run() -> list[str]:
        threads = Threads(3, "work")
        return [(await threads.run(lambda: threading.current_thread().name))[0] or "" for _ in range(5)]

    assert asyncio.run(run()) == ["work_0"] * 5


def test_work_that_finds_no_thread_waits_for_one() -> None:
    """There are never more than were asked for."""
    running = 0
    most = 0
    both = threading.Barrier(2)

    def work() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        both.wait(10)
        running -= 1
        both.wait(10)
        return threading.current_thread().name

    async def run() -> list[str]:
        threads = Threads(2, "work")
        return [name or "" for name, _ in await asyncio.gather(*(threads.run(work) for _ in range(6)))]

    assert set(asyncio.run(run())) == {"work_0", "work_1"}
    assert most == 2


def test_a_cancellation_waits_for_the_thread() -> None:
    """It is not lost, and it does not come before the work has ended."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    async def run() -> bool:
        async def wait() -> None:
            await threads.run(work)

        threads = Threads(1, "work")
        task = asyncio.create_task(wait())
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        waited = not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return waited and ended.is_set()

    assert asyncio.run(run())


def stop() -> NoReturn:
    raise StopIteration


def leave() -> NoReturn:
    raise SystemExit(3)


@pytest.mark.parametrize(("work", "kind"), [(stop, StopIteration), (leave, SystemExit)])
def test_whatever_is_raised_comes_back(work: Callable[[], object], kind: type[BaseException]) -> None:
    """Also what no future carries, and what would end a thread or a loop; the thread takes more work."""

    async def run() -> tuple[BaseException | None, int | None]:
        threads = Threads(1, "work")
        _, error = await threads.run(work)
        seven, _ = await threads.run(lambda: 7)
        return error, seven

    error, seven = asyncio.run(run())
    assert isinstance(error, kind)
    assert seven == 7
