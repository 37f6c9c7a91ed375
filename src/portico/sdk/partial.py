"""A function, method or class on its way to `@app.function` or `@app.cls`: what its decorators have said so far."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, Generic, ParamSpec, TypeVar

from portico.model.errors import InvalidError
from portico.model.spec import Concurrency, WebSpec

P = ParamSpec("P")
R = TypeVar("R")


METHODS: Final = "_portico_methods"  # where an instance of a class of an app has what its methods are to its code


class Lifecycle(Enum):
    """When a method of a class runs by itself."""

    ENTER_SNAP = "enter(snap=True)"
    ENTER = "enter"
    EXIT = "exit"


@dataclass(frozen=True)
class PartialFunction(Generic[P, R]):
    """The user's function, or class, and the settings of the decorators below `@app.function` or `@app.cls`."""

    raw: Callable[P, R]
    web: WebSpec | None = None
    concurrency: Concurrency | None = None
    called: bool = False  # a method with `@modal.method()`
    generates: bool | None = None  # as `@modal.method(is_generator=)` says
    lifecycle: Lifecycle | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.raw(*args, **kwargs)

    def __get__(self, instance: object, owner: type) -> Any:
        """A method as its class's own code sees it; the plain method where the class is in no app."""
        if instance is None:
            return self
        methods = vars(instance).get(METHODS)
        if methods is not None and self.is_interface:
            return getattr(methods, self.raw.__name__)
        return self.raw.__get__(instance, owner)

    @property
    def is_interface(self) -> bool:
        """Whether it is called, or has a URL."""
        return self.called or self.web is not None

    def check(self) -> PartialFunction[P, R]:
        """Itself, or InvalidError when its decorators do not go together."""
        if self.is_interface and self.lifecycle is not None:
            raise InvalidError("Interface decorators cannot be combined with lifecycle decorators.")
        if self.called and self.web is not None:
            raise InvalidError("Callable decorators cannot be combined with web interface decorators.")
        return self


class Registered:
    """Base of what `@app.function` and `@app.cls` give, so that decorators above them can be told apart."""

    decorator = "@app.function"


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
        partial = partial_of(wrapped, "concurrent", classes=True)
        if partial.concurrency is not None:
            raise InvalidError("`@modal.concurrent` cannot be applied twice.")
        return replace(partial, concurrency=concurrency)

    return decorate


def method(
    *forgotten: object, is_generator: bool | None = None
) -> Callable[[PartialFunction[P, R] | Callable[P, R]], PartialFunction[P, R]]:
    """The method of a class can be called as functions are: `Model().method.remote(…)`.

    is_generator: for one that is no generator function itself, but returns a generator.
    """
    check_parentheses(forgotten, "@modal.method()")

    def decorate(wrapped: PartialFunction[P, R] | Callable[P, R]) -> PartialFunction[P, R]:
        partial = partial_of(wrapped, "method")
        if partial.called:
            raise InvalidError("Cannot set `is_generator` twice.", hint="`@modal.method()` is there twice.")
        return replace(partial, called=True, generates=is_generator).check()

    return decorate


def enter(
    *forgotten: object, snap: bool = False
) -> Callable[[PartialFunction[P, R] | Callable[P, R]], PartialFunction[P, R]]:
    """The method runs once in each container, before the first input. With `snap`, before those without."""
    check_parentheses(forgotten, "@modal.enter()")
    return _lifecycle(Lifecycle.ENTER_SNAP if snap else Lifecycle.ENTER, "enter")


def exit(*forgotten: object) -> Callable[[PartialFunction[P, R] | Callable[P, R]], PartialFunction[P, R]]:
    """The method runs once in each container, after the last input; it has 30 seconds."""
    check_parentheses(forgotten, "@modal.exit()")
    return _lifecycle(Lifecycle.EXIT, "exit")


def _lifecycle(
    when: Lifecycle, decorator: str
) -> Callable[[PartialFunction[P, R] | Callable[P, R]], PartialFunction[P, R]]:
    def decorate(wrapped: PartialFunction[P, R] | Callable[P, R]) -> PartialFunction[P, R]:
        partial = partial_of(wrapped, decorator)
        if partial.lifecycle is not None:
            raise InvalidError(f"`@modal.{decorator}` and `@modal.{partial.lifecycle.value}` cannot both be applied.")
        needed = [p for p in list(inspect.signature(partial.raw).parameters.values())[1:] if _is_required(p)]
        if needed:
            raise InvalidError(f"A method with `@modal.{decorator}` can't have parameters, such as {needed[0].name!r}.")
        return replace(partial, lifecycle=when).check()

    return decorate


def _is_required(parameter: inspect.Parameter) -> bool:
    words = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in words


def partial_of(
    wrapped: PartialFunction[P, R] | Callable[P, R], decorator: str, *, classes: bool = False
) -> PartialFunction[P, R]:
    """What `@modal.<decorator>` was put on, or InvalidError when it does not belong there."""
    raw = wrapped.raw if isinstance(wrapped, PartialFunction) else wrapped
    if isinstance(wrapped, Registered):
        above = wrapped.decorator
        raise InvalidError(
            f"Cannot stack `@modal.{decorator}` on top of `{above}`.",
            hint=f"Hint: swap the order of the decorators. `{above}()` comes first, above all others.",
        )
    if inspect.isclass(raw) and not classes:
        raise InvalidError(
            f"Cannot apply `@modal.{decorator}` to a class.", hint="Hint: consider applying to a method instead."
        )
    if isinstance(wrapped, PartialFunction):
        return wrapped
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
