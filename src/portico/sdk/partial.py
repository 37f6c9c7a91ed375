"""A function on its way from `def` to `@app.function`: what its decorators have said so far."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, ParamSpec, TypeVar

from portico.model.errors import InvalidError
from portico.model.spec import Concurrency, WebSpec

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class PartialFunction(Generic[P, R]):
    """The user's function and the settings of the decorators below `@app.function`."""

    raw: Callable[P, R]
    web: WebSpec | None = None
    concurrency: Concurrency | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.raw(*args, **kwargs)


class Registered:
    """Base of what `@app.function` gives, so that decorators above it can be told apart."""


def concurrent(
    *forgotten: object, max_inputs: int | None = None, target_inputs: int | None = None
) -> Callable[[PartialFunction[P, R] | Callable[P, R]], PartialFunction[P, R]]:
    """One container takes up to `max_inputs` inputs at a time; the autoscaler aims at `target_inputs` of them.

    Async functions run as tasks on one event loop, others in threads.
    """
    check_parentheses(forgotten, "@modal.concurrent(max_inputs=…)")
    if max_inputs is None:
        raise TypeError("`@modal.concurrent()` missing required argument: `max_inputs`.")
    for name, value in (("max_inputs", max_inputs), ("target_inputs", target_inputs)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InvalidError(f"`{name}` of `@modal.concurrent` must be a positive whole number, not {value!r}.")
    if target_inputs is not None and target_inputs > max_inputs:
        raise InvalidError("`target_inputs` of `@modal.concurrent` cannot be greater than `max_inputs`.")
    concurrency = Concurrency(max_inputs=max_inputs, target_inputs=target_inputs)

    def decorate(wrapped: PartialFunction[P, R] | Callable[P, R]) -> PartialFunction[P, R]:
        partial = partial_of(wrapped, "concurrent")
        if partial.concurrency is not None:
            raise InvalidError("`@modal.concurrent` cannot be applied twice.")
        return replace(partial, concurrency=concurrency)

    return decorate


def partial_of(wrapped: PartialFunction[P, R] | Callable[P, R], decorator: str) -> PartialFunction[P, R]:
    """What `@modal.<decorator>` was put on, or InvalidError when it does not belong there."""
    if isinstance(wrapped, PartialFunction):
        return wrapped
    if isinstance(wrapped, Registered):
        raise InvalidError(
            f"Cannot stack `@modal.{decorator}` on top of `@app.function`.",
            hint="Hint: swap the order of the decorators. `@app.function()` comes first, above all others.",
        )
    if inspect.isclass(wrapped):
        raise InvalidError(
            f"Cannot apply `@modal.{decorator}` to a class.", hint="Hint: consider applying to a method instead."
        )
    if not callable(wrapped):
        raise InvalidError(f"The object wrapped by `@modal.{decorator}` must be callable, not {wrapped!r}.")
    return PartialFunction(wrapped)


def check_parentheses(forgotten: tuple[object, ...], example: str) -> None:
    """InvalidError when a decorator that takes keywords was written without its parentheses."""
    if forgotten:
        raise InvalidError(
            f"`{example.partition('(')[0]}` takes no positional arguments.",
            hint=f"Did you forget the parentheses? Write `{example}`.",
        )


def is_method(function: Callable[..., Any]) -> bool:
    """True for a function that is defined in a class body."""
    return "." in function.__qualname__.rpartition("<locals>.")[2]
