"""A function of an app: what `@app.function` makes of the user's, or one that is looked up by name."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, ParamSpec, TypeVar

from portico.model.errors import ExecutionError, InvalidError, UnsupportedError
from portico.model.naming import call_host
from portico.model.spec import FunctionSpec, RetryPolicy
from portico.sdk import context
from portico.sdk.absent import later
from portico.sdk.autoscaling import FunctionAutoscaler, FunctionAutoscalerSettings, FunctionStats, given, target_of
from portico.sdk.bridge import bridge, bridge_to
from portico.sdk.function_call import FunctionCall
from portico.sdk.mounts import LocalMount
from portico.sdk.partial import Registered
from portico.wire import codec
from portico.wire.calls import CONTROL_DOMAIN, SPAWN_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from portico.client.answers import Route, Say
    from portico.client.mapping import Results

P = ParamSpec("P")
R = TypeVar("R")

_LATER = frozenset(
    {
        *("from_id", "hydrate", "object_id", "info", "logs", "stats", "metrics", "get_dashboard_url"),
        *("with_options", "with_concurrency", "with_batching", "experimental_spawn_map"),
    }
)


class Function(Registered, Generic[P, R]):
    """A function that Portico serves. `local(…)` calls it here; `get_web_url()` tells where it answers requests.

    Made by `@app.function()`, or by `Function.from_name(app, name)` for a deployed one.
    """

    _retries: Literal["ask"] | None = "ask"  # of one that is looked up

    def __init__(
        self,
        name: str,
        *,
        app_name: str | None,
        spec: FunctionSpec | None = None,
        raw: Callable[P, R] | None = None,
        by_value: bool = False,
        mounts: tuple[LocalMount, ...] = (),
        include_source: bool = True,
        environment: str | None = None,
        parameters: str = "",
    ) -> None:
        self.name = name
        self.mounts = mounts
        self.include_source = include_source
        self._app_name = app_name
        self._spec = spec
        self._raw = raw
        self._by_value = by_value
        self._environment = environment
        self._parameters = parameters  # of the class that it is a method of
        if raw is not None:
            self.__name__, self.__qualname__ = raw.__name__, raw.__qualname__
            self.__module__, self.__doc__ = raw.__module__, raw.__doc__
            self.__wrapped__ = raw

    def __repr__(self) -> str:
        kind = f" ({self._spec.web.kind})" if self._spec is not None and self._spec.web is not None else ""
        return f"<Function {self.name}{kind} of app {self._app_name!r}>"

    @staticmethod
    def from_name(
        app_name: str, name: str, *, version: int | None = None, environment_name: str | None = None
    ) -> Function[..., Any]:
        """A function of a deployed app. Nothing is asked of a server until it is used."""
        if "." in name:
            raise InvalidError(
                f"Invalid Function name: {name!r}.",
                hint="If you are trying to look up a class method, use `modal.Cls.from_name` instead.",
            )
        if version is not None:
            raise UnsupportedError("`version=` of `Function.from_name` is not supported by this server yet.")
        return Function(name, app_name=app_name, environment=environment_name)

    def _local_aio(self, /, *args: Any, **kwargs: Any) -> Any:
        raw = self._own_code()
        if inspect.iscoroutinefunction(raw) or inspect.isasyncgenfunction(raw):
            return raw(*args, **kwargs)
        if inspect.isgeneratorfunction(raw):
            return _in_threads(raw(*args, **kwargs))
        import asyncio  # 40 ms, and only async callers come here; they have it

        return asyncio.to_thread(raw, *args, **kwargs)

    @bridge_to(_local_aio)
    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function in this process."""
        return self._own_code()(*args, **kwargs)

    def _own_code(self) -> Callable[P, R]:
        if self._raw is None:
            raise ExecutionError(
                f"The code of {self._app_name}'s function {self.name!r} is not here: it was looked up by name."
            )
        return self._raw

    @bridge
    def get_web_url(self) -> str | None:
        """Its URL; None when it has no web decorator. NotFoundError when there is no such app or function."""
        container = context.running()
        if container is not None and self._app_name in (None, container.app_name) and self._environment is None:
            return container.urls.get(self.name)
        if self._spec is None and self._app_name is not None:
            from portico.client import calls  # HTTP: `import modal` must not cost that
            from portico.client.answers import ask

            url: str | None = calls.ask(self._control("get_web_url"), ask("GET", "/url"))["url"]
            return url
        if container is not None:
            return container.urls.get(self.name)
        raise ExecutionError(
            f"The URL of {self.name!r} is not known here: the app does not run in this process.",
            hint=f'modal.Function.from_name("{self._app_name or "app"}", "{self.name}").get_web_url()',
        )

    @property
    def spec(self) -> FunctionSpec:
        """What its decorators have said. ExecutionError for one that was looked up by name."""
        if self._spec is None:
            raise ExecutionError(f"The specification of {self.name!r} is not here: it was looked up by name.")
        return self._spec

    @property
    def raw(self) -> Callable[P, R] | None:
        """The user's own function."""
        return self._raw

    def complete_spec(self) -> FunctionSpec:
        """`spec`, with the function itself where it travels by value: only now all that it refers to is there."""
        return replace(self.spec, serialized=codec.dump_function(self._raw)) if self._by_value else self.spec

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(
            f"{self.name!r} is a function of an app and cannot be called directly. "
            f"Use `{self.name}.local(...)` to run it here, `{self.name}.remote(...)` to run it in a container."
        )

    # -- calls ----------------------------------------------------------------------------------------------------
    async def _remote_aio(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        route = self._route("remote", generator=False)
        from portico.client import loops  # asyncio and HTTP, which `import modal` must not cost

        result: R = await loops.call(route, args, kwargs)
        return result

    @bridge_to(_remote_aio)
    def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls it in a container; its result. Raises what it raises there."""
        route = self._route("remote", generator=False)
        from portico.client import calls  # HTTP

        result: R = calls.call(route, args, kwargs)
        return result

    def _remote_gen_aio(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, None]:
        route = self._route("remote_gen", generator=True)
        from portico.client import loops

        return loops.iterate(route, args, kwargs)

    @bridge_to(_remote_gen_aio)
    def remote_gen(self, /, *args: P.args, **kwargs: P.kwargs) -> Generator[Any, None, None]:
        """Iterates over what it yields in a container, as it comes. Closing the iterator ends it there."""
        route = self._route("remote_gen", generator=True)
        from portico.client import calls

        return calls.iterate(route, args, kwargs)

    def _map(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: Mapping[str, Any] = {},
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> Results:
        return self._results("map", input_iterators, kwargs, order_outputs, return_exceptions)

    @bridge_to(_map)
    def map(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: Mapping[str, Any] = {},
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> Results:
        """Calls it for many inputs at the same time: one iterable for each argument. Inputs are taken as needed.

        kwargs: for each of the calls. order_outputs: results in the order of the inputs, or as they come.
        return_exceptions: an exception is a result like others; without it, the first one is raised, and ends the rest.
        """
        return self._results("map", input_iterators, kwargs, order_outputs, return_exceptions)

    def _starmap(
        self,
        input_iterator: Iterable[Any] | AsyncIterable[Any],
        *,
        kwargs: Mapping[str, Any] = {},
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> Results:
        return self._results("starmap", (input_iterator,), kwargs, order_outputs, return_exceptions)

    @bridge_to(_starmap)
    def starmap(
        self,
        input_iterator: Iterable[Any] | AsyncIterable[Any],
        *,
        kwargs: Mapping[str, Any] = {},
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> Results:
        """As `map`, for inputs that are sequences of arguments."""
        return self._results("starmap", (input_iterator,), kwargs, order_outputs, return_exceptions)

    async def _for_each_aio(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: Mapping[str, Any] = {},
        ignore_exceptions: bool = False,
    ) -> None:
        async for _ in self._results("for_each", input_iterators, kwargs, False, ignore_exceptions):
            pass

    @bridge_to(_for_each_aio)
    def for_each(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: Mapping[str, Any] = {},
        ignore_exceptions: bool = False,
    ) -> None:
        """As `map`, for those who want no results; returns when all calls are done."""
        for _ in self._results("for_each", input_iterators, kwargs, False, ignore_exceptions):
            pass

    async def _spawn_aio(self, /, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        route = self._spawning("spawn")
        from portico.client import loops

        return FunctionCall(await loops.call(route, args, kwargs))

    @bridge_to(_spawn_aio)
    def spawn(self, /, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        """Has it called, and does not wait: the call is stored, outlives the server, and runs by itself."""
        route = self._spawning("spawn")
        from portico.client import calls

        return FunctionCall(calls.call(route, args, kwargs))

    async def _spawn_map_aio(
        self, *input_iterators: Iterable[Any] | AsyncIterable[Any], kwargs: Mapping[str, Any] = {}
    ) -> None:
        async for _ in self._spawns(input_iterators, kwargs):
            pass

    @bridge_to(_spawn_map_aio)
    def spawn_map(self, *input_iterators: Iterable[Any] | AsyncIterable[Any], kwargs: Mapping[str, Any] = {}) -> None:
        """As `map`, for those who do not wait; returns when all calls are stored."""
        for _ in self._spawns(input_iterators, kwargs):
            pass

    # -- scaling --------------------------------------------------------------------------------------------------
    async def _update_autoscaler_aio(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
    ) -> FunctionAutoscalerSettings:
        settings: FunctionAutoscalerSettings = await self.autoscaler.update.aio(
            **given(min_containers, max_containers, buffer_containers, scaledown_window)
        )
        return settings

    @bridge_to(_update_autoscaler_aio)
    def update_autoscaler(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
    ) -> FunctionAutoscalerSettings:
        """Changes how it is scaled, at once and until its app is deployed again. What is not given stays as it is."""
        return self.autoscaler.update(**given(min_containers, max_containers, buffer_containers, scaledown_window))

    @property
    def autoscaler(self) -> FunctionAutoscaler:
        """How it is scaled: `autoscaler.settings()`, `autoscaler.update(…)`."""
        return FunctionAutoscaler(self._control, self._parameters)

    async def _get_current_stats_aio(self) -> FunctionStats:
        from portico.client import loops

        return FunctionStats(**await loops.ask(*self._stats()))

    @bridge_to(_get_current_stats_aio)
    def get_current_stats(self) -> FunctionStats:
        """How many inputs wait and run, and how many containers there are, now."""
        from portico.client import calls

        return FunctionStats(**calls.ask(*self._stats()))

    __getattr__ = later("modal.Function", _LATER)

    def _results(
        self,
        verb: str,
        iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...],
        kwargs: Mapping[str, Any],
        ordered: bool,
        return_exceptions: bool,
    ) -> Results:
        route = self._route(verb, generator=False)
        from portico.client.mapping import Inputs, Results  # asyncio and HTTP

        inputs = Inputs(iterables, verb == "starmap", dict(kwargs))
        return Results(route, inputs, ordered=ordered, return_exceptions=return_exceptions)

    def _spawns(self, iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...], kwargs: Mapping[str, Any]) -> Results:
        route = self._spawning("spawn_map")
        from portico.client.mapping import Inputs, Results

        return Results(route, Inputs(iterables, False, dict(kwargs)), ordered=False, return_exceptions=False)

    def _spawning(self, verb: str) -> Route:
        return self._route(verb, generator=False).elsewhere(SPAWN_DOMAIN)

    def _stats(self) -> tuple[Route, Say]:
        from portico.client.answers import ask  # see `remote`

        return self._control("get_current_stats"), ask("GET", target_of("stats", self._parameters))

    def _control(self, verb: str) -> Route:
        return self._to(verb).elsewhere(CONTROL_DOMAIN)

    def _route(self, verb: str, *, generator: bool) -> Route:
        """The way to its containers; InvalidError or ExecutionError where it cannot be called so, or not from here."""
        from portico.client.answers import webhook  # see `remote`

        running = context.running()
        if self._spec is not None:
            if self._spec.web is not None:
                raise webhook(self.name, verb, running.urls.get(self.name) if running is not None else None)
            _check_kind(self._spec.is_generator, generator, verb)
        return self._to(verb)

    def _to(self, verb: str) -> Route:
        """The way to it, whatever it is; ExecutionError when it does not run."""
        from portico.client.answers import Route
        from portico.client.calling import calls_address

        running = context.running()
        if self._spec is not None and running is None:
            raise ExecutionError(
                f"{self.name!r} cannot be called: its app does not run.",
                hint="Start it with `portico run FILE`, or deploy it and look it up: "
                f'modal.Function.from_name("{self._app_name or "app"}", "{self.name}").',
            )
        address, environment = calls_address(self._environment)
        owners = [] if running is None or self._spec is None else [running.app_id]
        if self._app_name is not None and (not owners or running is None or running.app_name != self._app_name):
            owners.append(self._app_name)  # of another app in the same file, it may be
        hosts = tuple(call_host(environment, owner, self.name) for owner in owners)
        retries: RetryPolicy | Literal["ask"] | None = self._spec.retries if self._spec is not None else self._retries
        return Route(address, hosts, self.name, self._app_name, verb, retries, self._parameters)


async def _in_threads(generator: Generator[Any, None, None]) -> AsyncGenerator[Any]:
    """What a blocking generator yields, without blocking the loop. Closed with it."""
    import asyncio

    ended = object()
    try:
        while (value := await asyncio.to_thread(next, generator, ended)) is not ended:
            yield value
    finally:
        generator.close()


def _check_kind(is_generator: bool, wanted: bool, verb: str) -> None:
    if is_generator and not wanted:
        instead = " Use `.remote_gen(...)` instead." if verb == "remote" else ""
        raise InvalidError(f"A generator function cannot be called with `.{verb}(...)`.{instead}")
    if wanted and not is_generator:
        raise InvalidError(
            f"A non-generator function cannot be called with `.{verb}(...)`. Use `.remote(...)` instead."
        )


class LocalEntrypoint(Registered, Generic[P, R]):
    """A function that `portico run` starts on the user's side."""

    def __init__(self, name: str, raw: Callable[P, R]) -> None:
        self.name = name
        self.raw = raw

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R | Coroutine[Any, Any, R]:
        return self.raw(*args, **kwargs)
