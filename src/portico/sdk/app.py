"""The app: what a user's file is about."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn, ParamSpec, TypeVar, cast

from portico.model.errors import InvalidError
from portico.model.naming import auto_label, check_object_name, check_tag
from portico.model.spec import AppSpec, Concurrency, EntrySpec, FunctionSpec
from portico.sdk import options
from portico.sdk.absent import later, refusal
from portico.sdk.classes import Cls, Definition, class_spec
from portico.sdk.functions import Function, LocalEntrypoint
from portico.sdk.image import Image
from portico.sdk.mounts import LocalMount
from portico.sdk.partial import PartialFunction, Registered, check_parentheses, is_method
from portico.sdk.retries import Retries
from portico.sdk.secret import Secret, check_secrets

P = ParamSpec("P")
R = TypeVar("R")

_DEPLOY = "Use `portico deploy FILE`, or `portico serve FILE` while you write it."
_HINTS = {
    "block_network": "The process engine cannot cut a container off from the network.",
    "restrict_modal_access": "The process engine cannot keep a container away from the server.",
    "schedule": "Call the function from the machine's own cron.",
    "volumes": "Use files of the machine; containers see them.",
    "network_file_systems": "Use files of the machine; containers see them.",
}


class App:
    """Functions that are deployed together. `image` and `secrets` hold for each of them."""

    def __init__(
        self,
        name: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        image: Image | None = None,
        secrets: Sequence[Secret] = (),
        volumes: Mapping[Any, Any] = {},
        include_source: bool = True,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise InvalidError("Invalid value for `name`: Must be string.")
        self.name = name if name is None else check_object_name(name, "App")
        self._tags = {check_tag(str(key)): check_tag(str(value)) for key, value in (tags or {}).items()}
        self._image = _check_image(image) or Image.debian_slim()
        self._secrets = check_secrets(secrets, "modal.App")
        options.refuse("modal.App", _HINTS, volumes=volumes)
        self._include_source = include_source
        self._functions: dict[str, Function[..., Any] | Definition] = {}
        self._entrypoints: dict[str, LocalEntrypoint[..., Any]] = {}
        self._included: list[App] = []
        self._warnings: dict[str, None] = {}  # a set that keeps its order

    def __repr__(self) -> str:
        return f"<App {self.name!r}: {', '.join(self._functions) or 'no functions'}>"

    def function(
        self,
        *forgotten: object,
        image: Image | None = None,
        schedule: object = None,
        env: Mapping[str, str | None] | None = None,
        secrets: Collection[Secret] | None = None,
        gpu: str | list[str] | None = None,
        serialized: bool = False,
        network_file_systems: Mapping[Any, Any] = {},
        volumes: Mapping[Any, Any] = {},
        cpu: float | tuple[float, float] | None = None,
        memory: int | tuple[int, int] | None = None,
        ephemeral_disk: int | None = None,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        proxy: object = None,
        retries: int | Retries | None = None,
        timeout: int = 300,
        startup_timeout: int | None = None,
        name: str | None = None,
        is_generator: bool | None = None,
        cloud: str | None = None,
        region: str | Sequence[str] | None = None,
        routing_region: str | None = None,
        nonpreemptible: bool = False,
        enable_memory_snapshot: bool = False,
        block_network: bool = False,
        restrict_modal_access: bool = False,
        single_use_containers: bool = False,
        i6pn: bool | None = None,
        include_source: bool | None = None,
        experimental_options: Mapping[str, Any] | None = None,
        max_inputs: int | None = None,
    ) -> Callable[[PartialFunction[P, R] | Callable[P, R]], Function[P, R]]:
        """The function belongs to this app. Sizes are MiB, times are seconds.

        What this server does not offer is an UnsupportedError; what means nothing on own machines gives a warning.
        """
        check_parentheses(forgotten, "@app.function()")
        options.refuse("@app.function", _HINTS, schedule=schedule)
        chosen = self._choose_image(image)
        again = options.retries(retries)
        base = self._base(
            "@app.function",
            chosen,
            env=env,
            secrets=secrets,
            gpu=gpu,
            network_file_systems=network_file_systems,
            volumes=volumes,
            cpu=cpu,
            memory=memory,
            ephemeral_disk=ephemeral_disk,
            min_containers=min_containers,
            max_containers=max_containers,
            buffer_containers=buffer_containers,
            scaledown_window=scaledown_window,
            proxy=proxy,
            timeout=timeout,
            startup_timeout=startup_timeout,
            cloud=cloud,
            region=region,
            routing_region=routing_region,
            nonpreemptible=nonpreemptible,
            enable_memory_snapshot=enable_memory_snapshot,
            block_network=block_network,
            restrict_modal_access=restrict_modal_access,
            single_use_containers=single_use_containers,
            i6pn=i6pn,
            experimental_options=experimental_options,
            max_inputs=max_inputs,
            name=check_object_name(name, "Function") if name is not None else "",
        )

        def decorate(wrapped: PartialFunction[P, R] | Callable[P, R]) -> Function[P, R]:
            partial = _check_function(wrapped, serialized=serialized)
            raw = partial.raw
            generates = _generates(raw) if is_generator is None else bool(is_generator)
            self._check_kind(partial, generates, again)
            spec = replace(
                base,
                name=base.name or (raw.__name__ if serialized else raw.__qualname__),
                module=raw.__module__,
                qualname=raw.__qualname__,
                web=partial.web,
                concurrency=partial.concurrency or Concurrency(),
                is_generator=generates,
                retries=None if again is None else again.policy,
            )
            function = Function(
                spec.name,
                app_name=self.name,
                spec=spec,
                raw=raw,
                by_value=serialized,
                mounts=chosen.mounts,
                include_source=self._include_source if include_source is None else include_source,
            )
            self._register(function)
            return function

        return decorate

    def local_entrypoint(
        self, *forgotten: object, name: str | None = None
    ) -> Callable[[Callable[P, R]], LocalEntrypoint[P, R]]:
        """The function is where `portico run` begins, on the user's side."""
        check_parentheses(forgotten, "@app.local_entrypoint()")
        if name is not None and not isinstance(name, str):
            raise InvalidError("Invalid value for `name`: Must be string.")

        def decorate(raw: Callable[P, R]) -> LocalEntrypoint[P, R]:
            tag = name or raw.__qualname__
            if tag in self._entrypoints:
                raise InvalidError(
                    f"Duplicate local entrypoint name: {tag}.", hint="Local entrypoint names must be unique."
                )
            entrypoint = LocalEntrypoint(tag, raw)
            self._entrypoints[tag] = entrypoint
            return entrypoint

        return decorate

    def include(self, other_app: App, inherit_tags: bool = True) -> App:
        """Take in all functions of another app, endpoints with them. Gives this app."""
        if not isinstance(other_app, App):
            raise InvalidError(f"`App.include` takes another `modal.App`, not {other_app!r}.")
        self._included.append(other_app)
        self._warnings.update(other_app._warnings)
        if inherit_tags:
            self._tags = other_app._tags | self._tags
        for function in other_app._functions.values():
            self._register(function)
        for tag, entrypoint in other_app._entrypoints.items():
            self._entrypoints.setdefault(tag, entrypoint)
        return self

    def cls(
        self,
        *forgotten: object,
        image: Image | None = None,
        env: Mapping[str, str | None] | None = None,
        secrets: Collection[Secret] | None = None,
        gpu: str | list[str] | None = None,
        serialized: bool = False,
        network_file_systems: Mapping[Any, Any] = {},
        volumes: Mapping[Any, Any] = {},
        cpu: float | tuple[float, float] | None = None,
        memory: int | tuple[int, int] | None = None,
        ephemeral_disk: int | None = None,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        proxy: object = None,
        retries: int | Retries | None = None,
        timeout: int = 300,
        startup_timeout: int | None = None,
        cloud: str | None = None,
        region: str | Sequence[str] | None = None,
        routing_region: str | None = None,
        nonpreemptible: bool = False,
        enable_memory_snapshot: bool = False,
        block_network: bool = False,
        restrict_modal_access: bool = False,
        single_use_containers: bool = False,
        i6pn: bool | None = None,
        include_source: bool | None = None,
        experimental_options: Mapping[str, Any] | None = None,
        max_inputs: int | None = None,
    ) -> Callable[[PartialFunction[..., Any] | Callable[..., Any]], Cls]:
        """The class belongs to this app: its methods run in containers, one object of it in each. As `function`."""
        check_parentheses(forgotten, "@app.cls()")
        chosen = self._choose_image(image)
        again = options.retries(retries)
        base = self._base(
            "@app.cls",
            chosen,
            env=env,
            secrets=secrets,
            gpu=gpu,
            network_file_systems=network_file_systems,
            volumes=volumes,
            cpu=cpu,
            memory=memory,
            ephemeral_disk=ephemeral_disk,
            min_containers=min_containers,
            max_containers=max_containers,
            buffer_containers=buffer_containers,
            scaledown_window=scaledown_window,
            proxy=proxy,
            timeout=timeout,
            startup_timeout=startup_timeout,
            cloud=cloud,
            region=region,
            routing_region=routing_region,
            nonpreemptible=nonpreemptible,
            enable_memory_snapshot=enable_memory_snapshot,
            block_network=block_network,
            restrict_modal_access=restrict_modal_access,
            single_use_containers=single_use_containers,
            i6pn=i6pn,
            experimental_options=experimental_options,
            max_inputs=max_inputs,
        )

        def decorate(wrapped: PartialFunction[..., Any] | Callable[..., Any]) -> Cls:
            partial = _check_class(wrapped, serialized=serialized)
            raw = cast(type, partial.raw)
            spec = replace(
                base,
                name=check_object_name(raw.__name__, "Class"),
                module=raw.__module__,
                qualname=raw.__qualname__,
                concurrency=partial.concurrency or Concurrency(),
                retries=None if again is None else again.policy,
                cls=class_spec(raw, snapshot=base.enable_memory_snapshot),
            )
            definition = Definition(
                spec,
                raw,
                app_name=self.name,
                by_value=serialized,
                mounts=chosen.mounts,
                include_source=self._include_source if include_source is None else include_source,
            )
            self._register(definition)
            return Cls(spec.name, app_name=self.name, definition=definition)

        return decorate

    def server(self, *args: object, **keywords: object) -> NoReturn:
        """Servers that are scaled by their load."""
        raise refusal("@app.server", hint="Use `@app.function()` with `@modal.web_server(port)`.")

    @property
    def description(self) -> str | None:
        """The app's name."""
        return self.name

    @property
    def functions(self) -> Mapping[str, Function[..., Any] | Definition]:
        """Its functions and classes, by name."""
        return self._functions

    @property
    def entrypoints(self) -> Mapping[str, LocalEntrypoint[..., Any]]:
        """Its local entrypoints, by name."""
        return self._entrypoints

    @property
    def included(self) -> Sequence[App]:
        """The apps that were included in it."""
        return self._included

    @property
    def mounts(self) -> tuple[LocalMount, ...]:
        """The local files that the images of its functions add, each once."""
        return tuple(dict.fromkeys(mount for function in self._functions.values() for mount in function.mounts))

    @property
    def include_source(self) -> bool:
        """Whether any function takes the files next to the entry along."""
        wishes = [function.include_source for function in self._functions.values()]
        return any(wishes) if wishes else self._include_source

    def spec(self, entry: EntrySpec, *, name: str | None = None, warnings: Sequence[str] = ()) -> AppSpec:
        """All of it as data. `name` wins over the app's own; `warnings` come after those that the app has itself.

        InvalidError when two endpoints would have the same URL, or a function cannot travel by value.
        """
        functions = tuple(function.complete_spec() for function in self._functions.values())
        app_name = check_object_name(name, "App") if name is not None else self.name
        _check_labels(app_name or entry.module, [part for function in functions for part in function.parts])
        return AppSpec(
            name=app_name,
            entry=entry,
            functions=functions,
            tags=dict(self._tags),
            warnings=tuple(dict.fromkeys((*self._warnings, *warnings))),
        )

    __getattr__ = later(
        "modal.App",
        dict.fromkeys(("run", "deploy"), _DEPLOY)
        | {"stop": "Use `portico app stop NAME`.", "logs": "Use `portico app logs NAME`."}
        | {"lookup": "`modal.Function.from_name(app, function)` finds a deployed function."}
        | dict.fromkeys(("set_tags", "get_tags", "info", "stats", "app_id", "get_dashboard_url"), "")
        | dict.fromkeys(("registered_functions", "registered_web_endpoints", "registered_entrypoints"), ""),
    )

    # -- below ----------------------------------------------------------------------------------------------------
    def _choose_image(self, image: object) -> Image:
        chosen = _check_image(image) or self._image
        self._warnings.update(dict.fromkeys(chosen.warnings))
        return chosen

    def _base(
        self,
        owner: str,
        image: Image,
        *,
        env: Mapping[str, str | None] | None,
        secrets: Collection[Secret] | None,
        gpu: str | list[str] | None,
        network_file_systems: Mapping[Any, Any],
        volumes: Mapping[Any, Any],
        cpu: float | tuple[float, float] | None,
        memory: int | tuple[int, int] | None,
        min_containers: int | None,
        max_containers: int | None,
        buffer_containers: int | None,
        scaledown_window: int | None,
        proxy: object,
        timeout: int,
        startup_timeout: int | None,
        enable_memory_snapshot: bool,
        block_network: bool,
        restrict_modal_access: bool,
        single_use_containers: bool,
        max_inputs: int | None,
        name: str = "",
        **left_out: object,
    ) -> FunctionSpec:
        """What the options that functions and classes share say."""
        options.refuse(
            owner,
            _HINTS,
            network_file_systems=network_file_systems,
            volumes=volumes,
            proxy=proxy,
            block_network=block_network,
            restrict_modal_access=restrict_modal_access,
        )
        for option, value in left_out.items():
            if value:
                self._warn(f"`{option}=` of {owner} means nothing on machines of your own; it is left out.")
        if max_inputs is not None:
            self._warn(f"`max_inputs=` of {owner} is deprecated: write single_use_containers=True.")
        return FunctionSpec(
            name=name,
            module="",
            qualname="",
            image=image.spec,
            autoscaler=options.autoscaler(min_containers, max_containers, buffer_containers, scaledown_window),
            resources=options.resources(cpu, memory, gpu),
            timeout=options.timeout(timeout),
            startup_timeout=options.startup_timeout(startup_timeout),
            secrets=tuple(secret.spec for secret in (*self._secrets, *check_secrets(secrets, owner))),
            env=options.environment(env),
            enable_memory_snapshot=bool(enable_memory_snapshot),
            single_use_containers=options.single_use(single_use_containers, max_inputs),
        )

    def _warn(self, text: str) -> None:
        self._warnings[text] = None

    def _check_kind(self, partial: PartialFunction[P, R], generates: bool, again: Retries | None) -> None:
        if partial.web is not None and generates:
            raise InvalidError(
                "Webhooks cannot be generators.",
                hint="For a streaming response, return a `StreamingResponse` of FastAPI with the generator in it.",
            )
        if again is not None and partial.web is not None:
            raise InvalidError("Web Functions do not support retries.")
        if again is not None and generates:
            raise InvalidError("Generator Functions do not support retries.")

    def _register(self, function: Function[..., Any] | Definition) -> None:
        known = self._functions.pop(function.name, None)  # so that the last one comes last
        if known is not None and known is not function:
            self._warn(
                f"Function name {function.name!r} collision! The later function has replaced the earlier one; "
                "give one of them another name with `@app.function(name=…)`."
            )
        self._functions[function.name] = function


def _check_image(image: object) -> Image | None:
    if image is not None and not isinstance(image, Image):
        raise InvalidError(f"`image=` has to be a `modal.Image` object, not {image!r}.")
    return image


def _check_function(wrapped: PartialFunction[P, R] | Callable[P, R], *, serialized: bool) -> PartialFunction[P, R]:
    """What `@app.function` was put on, or the error that tells why it does not belong there."""
    if isinstance(wrapped, Registered):
        above = wrapped.decorator
        raise InvalidError(f"`{above}` is already on {wrapped!r}.", hint="Apply it once, above all others.")
    partial = wrapped if isinstance(wrapped, PartialFunction) else PartialFunction(wrapped)
    raw = partial.raw
    if inspect.isclass(raw):
        raise TypeError("The `@app.function` decorator cannot be used on a class. Please use `@app.cls` instead.")
    if not inspect.isfunction(raw):
        raise InvalidError(f"The `@app.function` decorator must be used on a function, not {raw!r}.")
    if is_method(raw):
        raise InvalidError(
            "The `@app.function` decorator cannot be used on class methods.",
            hint="Use `@app.cls()` on the class and `@modal.method()` or a web decorator on the method:\n\n"
            "@app.cls()\nclass MyClass:\n    @modal.method()\n    def f(self, x):\n        ...",
        )
    if partial.called or partial.lifecycle is not None:
        raise InvalidError("`@modal.method`, `@modal.enter` and `@modal.exit` are for methods of classes.")
    if "<locals>" in raw.__qualname__ and not serialized:
        raise InvalidError(
            f"The `@app.function` decorator must apply to functions in global scope, unless `serialized=True` is set; "
            f"{raw.__qualname__!r} is not.",
            hint="If you apply further decorators, they may need to use `functools.wraps`.",
        )
    if raw.__name__ == "<lambda>":
        raise InvalidError("The `@app.function` decorator cannot be used on a lambda.", hint="Use `def`.")
    return partial


def _check_class(
    wrapped: PartialFunction[..., Any] | Callable[..., Any], *, serialized: bool
) -> PartialFunction[..., Any]:
    """What `@app.cls` was put on, or the error that tells why it does not belong there."""
    if isinstance(wrapped, Registered):
        raise InvalidError(f"`{wrapped.decorator}` is already on {wrapped!r}.", hint="Apply it once, above all others.")
    partial = wrapped if isinstance(wrapped, PartialFunction) else PartialFunction(wrapped)
    if not inspect.isclass(partial.raw):
        raise TypeError("The @app.cls decorator must be used on a class.")
    if "." in partial.raw.__qualname__ and not serialized:
        raise InvalidError(
            "The `@app.cls` decorator must apply to classes in global scope, unless `serialized=True` is set; "
            f"{partial.raw.__qualname__!r} is not."
        )
    return partial


def _generates(function: Callable[..., Any]) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _check_labels(app_name: str, functions: Sequence[FunctionSpec]) -> None:
    """InvalidError when two endpoints of the app would have the same address."""
    taken: dict[str, str] = {}
    for function in functions:
        if function.web is None:
            continue
        label = function.web.label or auto_label(app_name, function.name)
        other = taken.setdefault(label, function.name)
        if other != function.name:
            raise InvalidError(
                f"The endpoints {other!r} and {function.name!r} would have the same URL: both are labelled {label!r}.",
                hint="Give one of them a label of its own: label=…",
            )
