"""Plain functions on the server's thread, and what they notice of it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPBearer

from portico.runtime import plain, routes


def function() -> int:
    return 1


async def coroutine() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@functools.wraps(coroutine)
def wrapper() -> Any:
    return coroutine()


class Settings:
    def __init__(self, q: int = 1) -> None:
        self.q = q

    def method(self) -> int:
        return self.q

    def __call__(self) -> int:
        return self.q


@pytest.mark.parametrize(
    "given", [function, functools.lru_cache(function), functools.partial(function), Settings, Settings().method]
)
def test_what_is_plain(given: Callable[..., Any]) -> None:
    """Functions, methods and classes, also cached or with some arguments."""
    assert routes.is_plain_function(given)


@pytest.mark.parametrize(
    "given",
    [coroutine, generator, async_generator, wrapper, functools.partial(coroutine), Settings()],
)
def test_what_is_not(given: Callable[..., Any]) -> None:
    """What runs on a loop, what goes on after it has returned, and what nobody knows."""
    assert not routes.is_plain_function(given)


def endpoint(dependency: Any) -> Callable[..., Any]:
    def answer(value: Any) -> int:
        return 1

    answer.__annotations__["value"] = Annotated[Any, Depends(dependency)]  # its text would not find `dependency`
    return answer


def nested(value: Annotated[Any, Depends(coroutine)]) -> int:
    return 1


def with_request(request: Request) -> int:
    return 1


@pytest.mark.parametrize(
    ("given", "is_plain"),
    [
        (function, True),
        (Settings, True),
        (HTTPBearer(), True),
        (coroutine, False),
        (generator, False),
        (nested, False),
        (with_request, False),
    ],
)
def test_an_endpoint_is_as_plain_as_all_that_it_depends_on(given: Any, is_plain: bool) -> None:
    """FastAPI's own dependencies wait for nothing; whoever has the request may wait for its client."""
    assert routes.add(FastAPI(), "/", endpoint(given), "GET") is is_plain


async def away(main: Callable[[plain.Away], Coroutine[Any, Any, Any]]) -> Any:
    """What this returns, run on the server's thread."""
    results: list[Any] = []

    async def run() -> None:
        here = plain.here()
        assert here is not None
        results.append(await main(here))

    await plain.serve(run, tuple)
    return results[0]


async def test_a_plain_function_finds_no_loop_and_no_task() -> None:
    """It may run a loop of its own; afterwards the server's task goes on."""

    async def own() -> str:
        await asyncio.sleep(0)
        return "own"

    def work() -> str:
        for ask in (asyncio.get_running_loop, asyncio.current_task, asyncio.get_event_loop):
            with pytest.raises(RuntimeError):
                ask()
        assert threading.current_thread() is not threading.main_thread()
        return asyncio.run(own())

    async def main(here: plain.Away) -> bool:
        task = asyncio.current_task()
        assert here.call(work) == "own"
        await asyncio.sleep(0)
        return asyncio.current_task() is task and asyncio.get_running_loop() is here.loop

    assert await away(main)


async def test_a_plain_function_has_a_context_of_its_own() -> None:
    """It sees the task's variables; what it sets is gone with it. Its errors are its caller's."""
    variable = contextvars.ContextVar("variable", default=0)

    def work() -> int:
        variable.set(variable.get() + 1)
        return variable.get()

    def fail() -> None:
        raise KeyError("x")

    async def main(here: plain.Away) -> tuple[int, int, int]:
        variable.set(1)
        with pytest.raises(KeyError):
            here.call(fail)
        assert plain.here() is here
        return here.call(work), here.call(work), variable.get()

    assert await away(main) == (2, 2, 1)


async def test_the_users_loop_goes_on_while_a_plain_function_works() -> None:
    """What it sends there is done meanwhile, also with anyio's means."""
    import anyio.from_thread

    home = asyncio.get_running_loop()

    async def where() -> bool:
        await asyncio.sleep(0)
        return asyncio.get_running_loop() is home

    def work() -> list[bool]:
        return [asyncio.run_coroutine_threadsafe(where(), home).result(10), anyio.from_thread.run(where)]

    async def main(here: plain.Away) -> list[bool]:
        return here.call(work)

    assert await away(main) == [True, True]


async def test_work_at_home_runs_there_and_comes_back() -> None:
    """Its result, its error, and what it does on the server's loop."""
    home = asyncio.get_running_loop()

    async def on_server() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def main(here: plain.Away) -> bool:
        async def work() -> bool:
            return asyncio.get_running_loop() is home and await here.back(on_server) is here.loop

        async def fail() -> None:
            raise StopAsyncIteration("x")

        with pytest.raises(StopAsyncIteration):
            await here.at_home(fail())
        return await here.at_home(work())

    assert await away(main)


async def test_a_cancellation_waits_for_the_work_at_home() -> None:
    """The work ends in its own time, and only then the task that waited for it."""
    order: list[str] = []

    async def main(here: plain.Away) -> None:
        begun = asyncio.Event()

        async def work() -> None:
            here.loop.call_soon_threadsafe(begun.set)
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.01)
                order.append("work")

        task = asyncio.create_task(here.at_home(work()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        order.append("task")

    await away(main)
    assert order == ["work", "task"]


async def test_elsewhere_nothing_is_plain() -> None:
    """In any other loop functions go to threads as ever, and home is here."""
    assert plain.here() is None
    assert plain.home() is asyncio.get_running_loop()
