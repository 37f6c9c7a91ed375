"""What a container runs: a function, or an object of a class with all its methods and its life around them."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from portico.model import parameters
from portico.model.spec import FunctionSpec
from portico.runtime import web
from portico.runtime.asgi import App, Receive, Scope, Send
from portico.runtime.guard import Explain
from portico.sdk.classes import Definition, Instance


class Service:
    """The user's side of a container. Making one runs what is to happen before the first input, on `loop`.

    text: the canonical values of a class's parameters; None: there is nothing to run, the class only was to load.
    endpoint, instance: the app of a function, and the object of a class, where a snapshot has made them.
    """

    def __init__(
        self,
        spec: FunctionSpec,
        raw: Callable[..., Any],
        text: str | None,
        *,
        app_name: str,
        loop: asyncio.AbstractEventLoop,
        endpoint: web.Endpoint | None = None,
        instance: Instance | None = None,
    ) -> None:
        self.endpoints: dict[str, web.Endpoint] = {}  # by the method's name; "" for a function
        self._exits: list[Callable[[], Any]] = []
        self.loop = loop
        self.start: Callable[[], Any] = raw  # for a `web_server`: starts the program
        if spec.cls is None:
            if spec.program is None:
                self.endpoints[""] = endpoint or web.build(spec, raw)
            return
        assert isinstance(raw, type), "a class's specification was made of a class"
        definition = Definition(spec, raw, app_name=app_name)
        if text is None:
            return
        instance = instance or definition.instance(text)
        # Between its coroutines the loop stands still, so that plain methods may block, and run loops of their own.
        instance.enter(loop.run_until_complete)
        self._exits = instance.exits
        names = frozenset(parameter.name for parameter in spec.cls.parameters)
        for method, part in zip(spec.cls.methods, spec.parts, strict=True):
            if part.program is not None:
                self.start = instance.bound(method.name)
                continue
            endpoint = web.build(part, instance.bound(method.name))
            if part.web is not None and names:
                endpoint = replace(endpoint, app=_WithoutParameters(endpoint.app, names))
            self.endpoints[method.name] = endpoint

    @property
    def is_plain(self) -> bool:
        """Whether all of it may be served as `plain` has it."""
        return all(endpoint.plain for endpoint in self.endpoints.values())

    def end(self, explain: Explain) -> None:
        """What is to happen after the last input. One that raises is told of, and the others run all the same."""
        for method in self._exits:
            try:
                result = method()
                if inspect.iscoroutine(result):
                    self.loop.run_until_complete(result)
            except Exception as error:
                cause, text = explain(error)
                sys.stderr.write(f"{method.__name__} raised {cause}\n{text.rstrip()}\n")


class _WithoutParameters:
    """An app that does not see those query parameters that are the class's."""

    def __init__(self, app: App, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if query := scope.get("query_string"):
            scope["query_string"] = parameters.without(self._names, query)
        await self._app(scope, receive, send)
