"""A function of an app: what `@app.function` makes of the user's, or one that is looked up by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar

from portico.model.errors import ExecutionError, InvalidError, UnsupportedError
from portico.model.spec import FunctionSpec
from portico.sdk import context
from portico.sdk.absent import later
from portico.sdk.bridge import bridge
from portico.sdk.mounts import LocalMount
from portico.sdk.partial import Registered
from portico.wire import codec

if TYPE_CHECKING:
    from collections.abc import Coroutine

P = ParamSpec("P")
R = TypeVar("R")

_LATER = frozenset(
    {
        *("from_id", "hydrate", "object_id", "info", "logs", "stats", "metrics", "get_dashboard_url"),
        *("with_options", "with_concurrency", "with_batching", "autoscaler", "update_autoscaler"),
        *("get_current_stats", "experimental_spawn_map"),
    }
)


class Function(Registered, Generic[P, R]):
    """A function that Portico serves. `local(…)` calls it here; `get_web_url()` tells where it answers requests.

    Made by `@app.function()`, or by `Function.from_name(app, name)` for a deployed one.
    """

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
    ) -> None:
        self.name = name
        self.mounts = mounts
        self.include_source = include_source
        self._app_name = app_name
        self._spec = spec
        self._raw = raw
        self._by_value = by_value
        self._environment = environment
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

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function in this process."""
        if self._raw is None:
            raise ExecutionError(
                f"The code of {self._app_name}'s function {self.name!r} is not here: it was looked up by name."
            )
        return self._raw(*args, **kwargs)

    @bridge
    def get_web_url(self) -> str | None:
        """Its URL; None when it has no web decorator. NotFoundError when there is no such app or function."""
        container = context.container()
        if container is not None and self._app_name in (None, container.app_name) and self._environment is None:
            return container.urls.get(self.name)
        if self._spec is None and self._app_name is not None:
            from portico.client import lookup  # msgspec and http: 60 ms that `import modal` must not cost

            return lookup.web_url(self._app_name, self.name, self._environment)
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
    @bridge
    def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls it in a container."""
        raise self._no_call("remote")

    @bridge
    def remote_gen(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Iterates over what it yields in a container."""
        raise self._no_call("remote_gen")

    @bridge
    def map(self, *input_iterators: Any, **options: Any) -> Any:
        """Calls it for many inputs."""
        raise self._no_call("map")

    @bridge
    def starmap(self, /, input_iterator: Any, **options: Any) -> Any:
        """Calls it for many inputs, each a sequence of arguments."""
        raise self._no_call("starmap")

    @bridge
    def for_each(self, *input_iterators: Any, **options: Any) -> None:
        """Calls it for many inputs and forgets the results."""
        raise self._no_call("for_each")

    @bridge
    def spawn(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Calls it and does not wait."""
        raise self._no_call("spawn")

    @bridge
    def spawn_map(self, *input_iterators: Any, **options: Any) -> None:
        """Calls it for many inputs and does not wait."""
        raise self._no_call("spawn_map")

    __getattr__ = later("modal.Function", _LATER)

    def _no_call(self, verb: str) -> InvalidError:
        if self._spec is None or self._spec.web is None:
            return UnsupportedError(
                f"`{self.name}.{verb}()`: calls are not supported by this server yet; they come later.",
                hint=f"Call it in this process: {self.name}.local(...)",
            )
        container = context.container()
        url = container.urls.get(self.name) if container is not None else None
        return InvalidError(
            f"A webhook function cannot be invoked for remote execution with `.{verb}`. Invoke this function via its "
            f"web url{f' {url!r}' if url else ''} or call it locally: {self.name}.local()"
        )


class LocalEntrypoint(Registered, Generic[P, R]):
    """A function that `portico run` starts on the user's side."""

    def __init__(self, name: str, raw: Callable[P, R]) -> None:
        self.name = name
        self.raw = raw

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R | Coroutine[Any, Any, R]:
        return self.raw(*args, **kwargs)
