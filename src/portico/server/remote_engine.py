"""The engine of a shard: containers are started, and their lifelines held, by the server's first process."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

from portico.engines.groups import Groups
from portico.model.ports import BuiltImage, ContainerEvents, ContainerStart, StartFailure
from portico.server.shard_messages import ContainerNews, ContainerVerb, Dismiss, Message, Start

Send = Callable[[Message, Sequence[int]], None]


class RemoteEngine:
    """See `model.ports.Engine`. groups: the control groups of containers, for a look at them."""

    def __init__(self, send: Send, groups: Groups) -> None:
        self._send = send
        self._groups = groups
        self._containers: dict[str, RemoteContainer] = {}

    def start(self, start: ContainerStart, events: ContainerEvents) -> RemoteContainer:
        """See `model.ports.Engine`."""
        container = self._containers[start.container_id] = RemoteContainer(start, events, self._send, self._groups)
        self._send(Start(start), ())
        return container

    def heard(self, news: ContainerNews) -> None:
        """The first process reports this."""
        container = self._containers.get(news.container_id)
        if container is None:
            return
        if news.event == "exited":
            del self._containers[news.container_id]
        container.heard(news.event, news.arguments)

    async def warm(self, image: BuiltImage) -> None:
        """The first process does."""

    def keep(self, keys: Collection[str]) -> None:
        """The first process knows."""

    def dismiss(self, snapshot: str) -> None:
        """See `model.ports.Engine`."""
        self._send(Dismiss(snapshot), ())

    async def close(self) -> None:
        """The first process ends what is left."""


class RemoteContainer:
    """See `model.ports.Container`."""

    def __init__(self, start: ContainerStart, events: ContainerEvents, send: Send, groups: Groups) -> None:
        self.id = start.container_id
        self.address = ""
        self.takes_connections = start.function.program is None
        self.was_killed = False
        self._limited = start.function.resources.memory_limit is not None
        self._overran: bool | None = None  # once it is gone
        self._events = events
        self._send = send
        self._groups = groups

    def __repr__(self) -> str:
        return f"<RemoteContainer {self.id}>"

    @property
    def overran(self) -> bool:
        """See `model.ports.Container`."""
        return self._groups.overran(self.id) if self._overran is None and self._limited else bool(self._overran)

    def hand_over(self, input_id: str, descriptor: int, head: bytes) -> None:
        """See `model.ports.Container`."""
        self._send(ContainerVerb(self.id, "hand_over", [input_id, head]), (descriptor,))

    def cancel(self, input_id: str) -> None:
        """See `model.ports.Container`."""
        self._send(ContainerVerb(self.id, "cancel", [input_id]), ())

    def stop(self, grace: float) -> None:
        """See `model.ports.Container`."""
        self._send(ContainerVerb(self.id, "stop", [grace]), ())

    def kill(self) -> None:
        """See `model.ports.Container`."""
        self._send(ContainerVerb(self.id, "kill"), ())

    def heard(self, event: str, arguments: list[Any]) -> None:
        """See `ContainerNews`."""
        if event == "ready":
            (self.address,) = arguments
            self._events.ready(self)
        elif event == "failed":
            self._events.failed(self, StartFailure(*arguments))
        elif event == "finished":
            self._events.finished(self, *arguments)
        else:
            status, self._overran, self.was_killed = arguments
            self._events.exited(self, status)


class Reporter:
    """What the first process hears of a shard's container, it tells the shard."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send

    def ready(self, container: Any) -> None:
        """See `model.ports.ContainerEvents`."""
        self._send(ContainerNews(container.id, "ready", [container.address]))

    def failed(self, container: Any, failure: StartFailure) -> None:
        """See `model.ports.ContainerEvents`."""
        self._send(ContainerNews(container.id, "failed", [failure.cause, failure.detail, failure.killed]))

    def finished(self, container: Any, input_id: str) -> None:
        """See `model.ports.ContainerEvents`."""
        self._send(ContainerNews(container.id, "finished", [input_id]))

    def exited(self, container: Any, status: str) -> None:
        """See `model.ports.ContainerEvents`."""
        self._send(ContainerNews(container.id, "exited", [status, container.overran, container.was_killed]))


def obey(container: Any, verb: ContainerVerb, descriptors: list[int]) -> None:
    """Do to a container what its shard says. One that is gone takes no connection."""
    match verb.verb, verb.arguments:
        case "hand_over", [input_id, head]:
            (descriptor,) = descriptors
            if container is None:
                os.close(descriptor)
            else:
                container.hand_over(input_id, descriptor, head)
        case name, arguments:
            if container is not None:
                getattr(container, name)(*arguments)
