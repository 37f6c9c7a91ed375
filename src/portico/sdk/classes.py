"""Classes of an app: what `@app.cls` makes of the user's, or one that is looked up by name."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, NoReturn, ParamSpec, TypeVar

from portico.model import parameters
from portico.model.errors import InvalidError, UnsupportedError
from portico.model.naming import door_of
from portico.model.spec import ClassSpec, FunctionSpec, MethodSpec, WebKind
from portico.sdk.absent import refusal
from portico.sdk.functions import Function
from portico.sdk.mounts import LocalMount
from portico.sdk.parameters import parameters_of
from portico.sdk.partial import METHODS, Lifecycle, PartialFunction, Registered
from portico.wire import codec

P = ParamSpec("P")
R = TypeVar("R")

_LATER = frozenset(
    {
        *("with_options", "with_concurrency", "with_batching", "from_id", "hydrate", "object_id", "update_autoscaler"),
        *("get_dashboard_url",),
    }
)
_CONTROL = frozenset({"update_autoscaler", "autoscaler", "get_current_stats"})  # of an object: as of a function


class Method(Function[P, R]):
    """A method of an instance. Within the class's own code it can also be called as it is."""

    within = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.within:
            return self.local(*args, **kwargs)
        return super().__call__(*args, **kwargs)


class Definition:
    """A class of an app, as the app knows it."""

    def __init__(
        self,
        spec: FunctionSpec,
        raw: type,
        *,
        app_name: str | None,
        by_value: bool = False,
        mounts: tuple[LocalMount, ...] = (),
        include_source: bool = True,
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self.raw = raw
        self.app_name = app_name
        self.mounts = mounts
        self.include_source = include_source
        self.partials = partials_of(raw)
        self._by_value = by_value
        self._parts = {part.name.rpartition(".")[2]: part for part in spec.parts}

    @property
    def cls(self) -> ClassSpec:
        """Its methods and parameters."""
        assert self.spec.cls is not None, "made by `class_spec`"
        return self.spec.cls

    def part(self, method: str) -> FunctionSpec | None:
        """A method as a function; None when it is none that is called or has a URL."""
        return self._parts.get(method)

    def complete_spec(self) -> FunctionSpec:
        """`spec`, with the class itself where it travels by value."""
        return replace(self.spec, serialized=codec.dump_function(self.raw)) if self._by_value else self.spec

    def text(self, values: Mapping[str, object]) -> str:
        """The canonical text of its parameters; InvalidError when these values are not those that it needs."""
        try:
            return parameters.canonical(self.cls.parameters, parameters.query_of(values).encode(), alone=True)
        except InvalidError as error:
            raise InvalidError(f"{self.name}: {error.message}.", hint=error.hint) from None

    def obj(self, values: Mapping[str, object]) -> Obj:
        """What the class gives when it is called with these parameters."""
        return _LocalObj(self, self.text(values))

    def instance(self, text: str) -> Instance:
        """One with these values, to be used in this process."""
        return Instance(self, parameters.values_of(self.cls.parameters, text), text)


class Instance:
    """An object of the user's class with the life that its containers have: enter, methods, exit."""

    def __init__(self, definition: Definition, values: Mapping[str, object], text: str) -> None:
        self._definition = definition
        self._run: set[Lifecycle] = set()  # what has been
        self.object: Any = object.__new__(definition.raw)
        self.object.__dict__.update(values)
        self.object.__dict__[METHODS] = Methods(definition, text, lambda: self, within=True)

    def bound(self, method: str) -> Callable[..., Any]:
        """The user's own method of the object."""
        bound: Callable[..., Any] = self._definition.partials[method].raw.__get__(self.object)
        return bound

    def enter_snap(self, run: Callable[[Coroutine[Any, Any, Any]], object]) -> None:
        """What of that is to happen before a snapshot is made; it does not happen again."""
        for method in self._once(Lifecycle.ENTER_SNAP):
            result = method()
            if inspect.iscoroutine(result):
                run(result)

    def enter(self, run: Callable[[Coroutine[Any, Any, Any]], object]) -> None:
        """What is to happen once before the first input; `run` runs coroutines."""
        for method in self._begin():
            result = method()
            if inspect.iscoroutine(result):
                run(result)

    async def enter_aio(self) -> None:
        """As `enter`."""
        for method in self._begin():
            result = method()
            if inspect.iscoroutine(result):
                await result

    @property
    def exits(self) -> list[Callable[[], Any]]:
        """What is to happen once after the last input."""
        return self._lifecycle(Lifecycle.EXIT)

    def _begin(self) -> list[Callable[[], Any]]:
        return [*self._once(Lifecycle.ENTER_SNAP), *self._once(Lifecycle.ENTER)]

    def _once(self, when: Lifecycle) -> list[Callable[[], Any]]:
        if when in self._run:
            return []
        self._run.add(when)
        return self._lifecycle(when)

    def _lifecycle(self, when: Lifecycle) -> list[Callable[[], Any]]:
        return [self.bound(name) for name, partial in self._definition.partials.items() if partial.lifecycle is when]


class Methods:
    """The methods of one set of parameters, by name, each as a function."""

    def __init__(
        self, definition: Definition, text: str, instance: Callable[[], Instance], *, within: bool = False
    ) -> None:
        self._definition = definition
        self._text = text
        self._instance = instance
        self._within = within
        self._made: dict[str, Method[..., Any]] = {}

    def __getattr__(self, name: str) -> Method[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        method = self._made.get(name)
        if method is None:
            part = self._definition.part(name)
            if part is None:
                raise AttributeError(f"{self._definition.name!r} has no method {name!r}.")
            raw = _local(self._definition.partials[name].raw, name, self._instance)
            method = Method(part.name, app_name=self._definition.app_name, spec=part, raw=raw, parameters=self._text)
            method.within = self._within
            self._made[name] = method
        return method


class Cls(Registered):
    """A class whose methods run in containers. Called with its parameters, it gives an object with those methods.

    Made by `@app.cls()`, or by `Cls.from_name(app, name)` for a deployed one.
    """

    decorator = "@app.cls"

    def __init__(
        self, name: str, *, app_name: str | None, definition: Definition | None = None, environment: str | None = None
    ) -> None:
        self._name = name
        self._app_name = app_name
        self._definition = definition
        self._environment = environment
        if definition is not None:
            self.__name__, self.__qualname__ = definition.raw.__name__, definition.raw.__qualname__
            self.__module__, self.__doc__ = definition.raw.__module__, definition.raw.__doc__

    def __repr__(self) -> str:
        return f"<Cls {self._name} of app {self._app_name!r}>"

    @staticmethod
    def from_name(app_name: str, name: str, *, version: int | None = None, environment_name: str | None = None) -> Cls:
        """A class of a deployed app. Nothing is asked of a server until it is used."""
        if version is not None:
            raise UnsupportedError("`version=` of `Cls.from_name` is not supported by this server yet.")
        return Cls(name, app_name=app_name, environment=environment_name)

    def __call__(self, *args: object, **values: object) -> Obj:
        """An object of the class. Its parameters are keywords: str, int, bool or bytes."""
        if args:
            raise InvalidError(
                "Can't use positional arguments with the parameters of a class.",
                hint=f"Use keyword arguments: {self._name}(name=value).",
            )
        if self._definition is None:
            return Obj(self._name, self._app_name, self._environment, parameters.query_of(values))
        return self._definition.obj(values)

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        """A class that derives from it derives from the user's own class."""
        if self._definition is None:
            raise InvalidError(f"The code of {self._app_name}'s class {self._name!r} is not here.")
        return (self._definition.raw,)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_definition", "_name"):  # before __init__, as in a copy
            raise AttributeError(name)
        if self._definition is not None and hasattr(self._definition.raw, name):
            value = getattr(self._definition.raw, name)
            if not isinstance(value, PartialFunction):
                return value
        elif name in _LATER:
            raise refusal(f"modal.Cls.{name}")
        elif self._definition is not None:
            raise AttributeError(f"{self._name!r} has no attribute {name!r}.")
        return _Unbound(self._name, name)


class _Unbound:
    """A method of a class that nobody has made an object of."""

    def __init__(self, cls: str, name: str) -> None:
        self._what = cls, name

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise self._error()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(name) if name.startswith("__") else self._error()

    def _error(self) -> AttributeError:
        cls, name = self._what
        return AttributeError(
            "You can't access methods on a Cls directly - did you forget to instantiate the class first? "
            f"Instead of {cls}.{name}.remote(), write {cls}().{name}.remote()."
        )


class Obj:
    """An object of a class that is elsewhere: each of its attributes is a method."""

    def __init__(self, name: str, app_name: str | None, environment: str | None, text: str) -> None:
        self._of = name, app_name, environment, text

    def __repr__(self) -> str:
        return f"<Obj of {self._of[0]}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        cls, app_name, environment, text = self._of
        if name in _CONTROL:
            return getattr(Function(cls, app_name=app_name, environment=environment, parameters=text), name)
        return Method(f"{cls}.{name}", app_name=app_name, environment=environment, parameters=text)


class _LocalObj(Obj):
    """An object of a class whose code is here: also its other attributes can be looked at."""

    def __init__(self, definition: Definition, text: str) -> None:
        self._instance = functools.cache(lambda: definition.instance(text))
        self._methods = Methods(definition, text, self._instance)
        self._definition = definition
        super().__init__(definition.name, definition.app_name, None, text)

    def __reduce__(self) -> tuple[Callable[..., Obj], tuple[str, *tuple[Any, ...]]]:
        return _rebuild, (self._definition.raw.__module__, *self._of)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_definition", "_methods", "_instance"):
            raise AttributeError(name)
        if self._definition.part(name) is not None:
            return getattr(self._methods, name)
        if name in _CONTROL and not hasattr(self._definition.raw, name):
            definition, text = self._definition, self._of[3]
            cls: Function[..., Any] = Function(
                definition.name, app_name=definition.app_name, spec=definition.spec, parameters=text
            )
            return getattr(cls, name)
        return getattr(self._instance().object, name)


def _rebuild(module: str, name: str, app_name: str | None, environment: str | None, text: str) -> Obj:
    """An object that has travelled: of the class whose code is there too, or one by name."""
    cls = getattr(sys.modules.get(module), name, None)
    definition = cls._definition if isinstance(cls, Cls) else None
    return Obj(name, app_name, environment, text) if definition is None else _LocalObj(definition, text)


def class_spec(cls: type, *, snapshot: bool) -> ClassSpec:
    """The methods and parameters of the user's class; InvalidError when it cannot be a class of an app."""
    if cls.__init__ is not object.__init__:  # type: ignore[misc]  # one that a base class has counts too
        raise InvalidError(
            f"Modal class {cls.__name__} cannot have a custom constructor (__init__) method.",
            hint="Initialize it in a method with `@modal.enter()`; what it is made with are fields: "
            "`name: str = modal.parameter()`.",
        )
    partials = partials_of(cls)
    for partial in partials.values():
        if partial.concurrency is not None:
            raise InvalidError(
                "The `@modal.concurrent` decorator cannot be used on methods; decorate the class instead."
            )
        if partial.lifecycle is Lifecycle.ENTER_SNAP and not snapshot:
            raise InvalidError("A class must have `enable_memory_snapshot=True` to use `snap=True` on its methods.")
    methods = tuple(_method_spec(name, partial) for name, partial in partials.items() if partial.is_interface)
    servers = [method.name for method in methods if method.web is not None and method.web.kind is WebKind.WEB_SERVER]
    if servers and len(methods) > 1:
        raise UnsupportedError(
            f"{cls.__name__}.{servers[0]} is a `@modal.web_server`: a class with one can have no other methods.",
            hint="Put the others into a class of their own.",
        )
    _check_doors(cls.__name__, [method.name for method in methods])
    return ClassSpec(methods=methods, parameters=parameters_of(cls))


def _check_doors(cls: str, methods: list[str]) -> None:
    if len(methods) < 2:
        return  # as most classes: without a hash
    taken: dict[str, str] = {}
    for name in methods:
        other = taken.setdefault(door_of(name), name)
        if other != name:
            raise InvalidError(
                f"The methods {other!r} and {name!r} of {cls} cannot be told apart: their names have the same hash.",
                hint="Rename one of them.",
            )


def partials_of(cls: type) -> dict[str, PartialFunction[..., Any]]:
    """The decorated methods of a class and of its bases, those of the bases first."""
    found: dict[str, PartialFunction[..., Any]] = {}
    for owner in reversed(cls.__mro__):
        for name, value in vars(owner).items():
            if isinstance(value, PartialFunction):
                found[name] = value
            else:
                found.pop(name, None)  # it hides the one of a base
    return found


def _method_spec(name: str, partial: PartialFunction[..., Any]) -> MethodSpec:
    raw = partial.raw
    own = inspect.isgeneratorfunction(raw) or inspect.isasyncgenfunction(raw)
    generates = own if partial.generates is None else partial.generates
    if partial.web is not None and generates:
        raise InvalidError(
            "Webhooks cannot be generators.",
            hint="For a streaming response, return a `StreamingResponse` of FastAPI with the generator in it.",
        )
    return MethodSpec(name=name, web=partial.web, is_generator=generates)


def _run(coroutine: Coroutine[Any, Any, Any]) -> None:
    import asyncio  # 40 ms that `import modal` need not pay

    if asyncio._get_running_loop() is not None:
        coroutine.close()
        raise InvalidError("A class with an async `@modal.enter` cannot begin its life while an event loop runs.")
    asyncio.run(coroutine)


def _local(raw: Callable[..., Any], name: str, instance: Callable[[], Instance]) -> Callable[..., Any]:
    """The method as it is called in this process: the object is made, and entered, at the first use."""
    if inspect.isasyncgenfunction(raw):

        @functools.wraps(raw)
        async def iterate(*args: Any, **kwargs: Any) -> Any:
            await instance().enter_aio()
            async for value in instance().bound(name)(*args, **kwargs):
                yield value

        return iterate
    if inspect.iscoroutinefunction(raw):

        @functools.wraps(raw)
        async def await_it(*args: Any, **kwargs: Any) -> Any:
            await instance().enter_aio()
            return await instance().bound(name)(*args, **kwargs)

        return await_it

    @functools.wraps(raw)
    def call(*args: Any, **kwargs: Any) -> Any:
        instance().enter(_run)
        return instance().bound(name)(*args, **kwargs)

    return call
