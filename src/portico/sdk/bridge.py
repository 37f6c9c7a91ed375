"""`f()` and `await f.aio()` from one method that does I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class Bridged(Generic[P, R]):
    """A bound method: called, it blocks until it is done; through `.aio` it leaves the event loop free."""

    def __init__(self, method: Callable[..., R], instance: object) -> None:
        self._method = method
        self._instance = instance
        self.__doc__ = method.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._method(self._instance, *args, **kwargs)

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The same, awaited."""
        import asyncio  # 40 ms, and only async callers come here; they have it

        return await asyncio.to_thread(self._method, self._instance, *args, **kwargs)


class bridge(Generic[S, P, R]):  # noqa: N801 - a decorator, like property
    """Makes a blocking method a `Bridged` one."""

    def __init__(self, method: Callable[Concatenate[S, P], R]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, instance: S, owner: type[S]) -> Bridged[P, R]:
        return Bridged(self._method, instance)
