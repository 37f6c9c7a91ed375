"""What containers are forked from, seen from the server: an image's template, or the snapshot of a function."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from enum import Enum, auto

from portico.engines import launch
from portico.engines.container import Phase, ProcessContainer, describe, was_killed
from portico.engines.groups import Groups
from portico.engines.wires import lay
from portico.model.ports import OutputSink, StartFailure
from portico.wire import container as wire


class State(Enum):
    """What a fork server has come to."""

    STARTING = auto()
    WARM = auto()
    ENDING = auto()  # told to end; takes no more containers
    GONE = auto()


class ForkServer(ABC):
    """Owns a process, and the containers that it has forked or will fork.

    title: what messages call it. environment: what its containers have of the image. `retired` is called when it takes
    no more containers; `ended` is done when nothing of it is left.
    """

    def __init__(
        self,
        title: str,
        sink: OutputSink,
        groups: Groups,
        environment: dict[str, str],
        retired: Callable[[], object],
    ) -> None:
        self.state = State.STARTING
        self.title = title
        self.environment = environment
        self._sink = sink
        self._groups = groups
        self._retired = retired
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._containers: dict[str, ProcessContainer] = {}

    @property
    def containers(self) -> Collection[ProcessContainer]:
        """Those that are not gone."""
        return self._containers.values()

    def fork(self, container: ProcessContainer) -> None:
        """Fork this container, as soon as the process is warm."""
        self._containers[container.id] = container
        container.origin = self
        if self.state is State.WARM:
            self._request(container)

    def forget(self, container: ProcessContainer) -> None:
        """It is gone."""
        del self._containers[container.id]
        if not self._containers and self.state is State.ENDING:
            self._hang_up()
        self._check_finished()

    def close(self) -> None:
        """Kill its containers, then end it."""
        self._retire()
        for container in list(self._containers.values()):
            container.kill()
        if not self._containers:
            self._hang_up()

    # -- what a kind of them has of its own ---------------------------------------------------------------------------
    @abstractmethod
    def _send(self, message: wire.Fork | wire.Spare, descriptors: Sequence[int] = ()) -> None:
        """Say this to the process."""

    @abstractmethod
    def _view(self, container: ProcessContainer) -> wire.View:
        """What a container of it sees of the machine."""

    @abstractmethod
    def _hang_up(self) -> None:
        """Let the process end: it has no containers any more."""

    @abstractmethod
    def _clean_up(self) -> None:
        """Nothing of it is left."""

    # -- inside -------------------------------------------------------------------------------------------------------
    def _answered(self, message: wire.Forked | wire.Refused | wire.Reaped) -> None:
        container = self._containers.get(message.container_id)
        if container is not None:
            match message:
                case wire.Forked(_, pid):
                    container.forked(pid)
                case wire.Refused(_, reason):
                    container.fail(StartFailure(f"The system gave the container no process: {reason}"))
                    container.ended("never started")
                case wire.Reaped(_, _, status):
                    container.ended(describe(status), killed=was_killed(status))

    def _is_warm(self) -> None:
        if self.state is State.STARTING:
            self.state = State.WARM
            for container in list(self._containers.values()):
                if container.phase is Phase.QUEUED:
                    self._request(container)

    def _request(self, container: ProcessContainer) -> None:
        start = container.start
        environment = launch.container_environment(self.environment, start)
        groups = self._groups.of_container(container.id, start.function.resources)
        document = launch.launch_document(
            start, container.address, self._view(container), groups, environment, snapshot=container.is_snapshot
        )
        try:
            wires = lay(wire.encode(document))
        except OSError as error:
            cause = f"The server has no descriptor or memory for the container: {error}"
            self._loop.call_soon(container.fail, StartFailure(cause))  # who asked for it does not have it yet
            return
        self._sink.attach(start, wires.stdout, wires.stderr)
        container.connect(wires)
        self._send(wire.Fork(container.id, container.is_snapshot), wires.container)

    def _lost(self, failure: StartFailure) -> None:
        """There is no process any more."""
        self._retire()
        self.state = State.GONE
        for container in list(self._containers.values()):
            if container.phase is Phase.QUEUED:
                container.fail(failure)
            else:
                container.adopt(self.title)
        self._check_finished()

    def _retire(self) -> None:
        if self.state in (State.STARTING, State.WARM):
            self.state = State.ENDING
            self._retired()

    def _check_finished(self) -> None:
        if self.state is State.GONE and not self._containers and not self.ended.done():
            self._clean_up()
            self.ended.set_result(None)
