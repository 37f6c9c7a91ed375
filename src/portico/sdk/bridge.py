"""`f()` and `f.aio()` from one method that does I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class Bridged(Generic[P, R]):
    """A bound method: called, it blocks until it is done; through `.aio` it leaves the event loop free."""

    def __init__(self, method: Callable[..., R], twin: Callable[..., Any] | None, instance: object) -> None:
        self._method = method
        self._twin = twin
        self._instance = instance
        self.__doc__ = method.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._method(self._instance, *args, **kwargs)

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The same, to be awaited; what gives an iterator is for `async for`."""
        if self._twin is not None:
            return self._twin(self._instance, *args, **kwargs)
        import asyncio  # 40 ms, and only async callers come here; they have it

        return asyncio.to_thread(self._method, self._instance, *args, **kwargs)


class bridge(Generic[S, P, R]):  # noqa: N801 - a decorator, like property
    """Makes a blocking method a `Bridged` one; `twin` is its asynchronous form, if it has one of its own."""

    def __init__(self, method: Callable[Concatenate[S, P], R], twin: Callable[..., Any] | None = None) -> None:
        self._method = method
        self._twin = twin
        self.__doc__ = method.__doc__

    def __get__(self, instance: S, owner: type[S]) -> Bridged[P, R]:
        return Bridged(self._method, self._twin, instance)


def bridge_to(twin: Callable[..., Any]) -> Callable[[Callable[Concatenate[S, P], R]], bridge[S, P, R]]:
    """As `bridge`, with an asynchronous twin."""
    return lambda method: bridge(method, twin)
