"""The snapshot of one function, seen from the server: a fork of the template that has loaded the user's code.

It has a place like a container's: a process, a lifeline, a folder, limits. What is forked from it has a folder in that
folder, for it sees of the machine what the snapshot sees.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from portico.engines.container import Phase, ProcessContainer
from portico.engines.forks import ForkServer, State
from portico.engines.groups import Groups
from portico.engines.template import Template
from portico.model.ports import Container, ContainerEvents, ContainerStart, OutputSink, StartFailure
from portico.wire import container as wire


class Snapshot(ForkServer):
    """Made for the first container that asks for it; stays, also without containers, until it is closed or dismissed.

    name: what starts call it. start: the one that it is made for.
    `unfit` is called when it turns out that it cannot be forked; who waits for it has to get another origin.
    """

    def __init__(
        self,
        name: str,
        start: ContainerStart,
        template: Template,
        run_dir: str,
        sink: OutputSink,
        groups: Groups,
        *,
        place_gone: Callable[[ProcessContainer], None],
        retired: Callable[[], object],
        unfit: Callable[[Snapshot], None],
    ) -> None:
        super().__init__("The function's snapshot", sink, groups, template.environment, retired)
        self.name = name
        self.start = start
        self._unfit = unfit
        self._failure: StartFailure | None = None
        self._numbers = itertools.count(1)
        cls = start.function.cls
        shared = replace(
            start,
            container_id=f"sn-{secrets.token_hex(4)}",  # short: the paths of containers' sockets begin with it
            snapshot=None,
            parameters=None if cls is not None and cls.parameters else start.parameters,
        )
        self.folder = f"{run_dir}/{shared.container_id}"
        self.place = _Place(shared, self.folder, groups, self, place_gone, self._hear, self._pids)
        self._template = template

    def __repr__(self) -> str:
        return f"<Snapshot {self.start.function.name} {self.state.name.lower()} {len(self._containers)} containers>"

    def begin(self) -> None:
        """Have it made."""
        self._template.fork(self.place)

    def fits(self, start: ContainerStart) -> bool:
        """Whether a container that starts so may be forked from it: its secrets may have changed."""
        return self.start.function == start.function

    def next_folder(self) -> str:
        """For another container."""
        return f"{self.folder}/{next(self._numbers)}"

    def hand_on(self, origin: Callable[[], ForkServer], folder: Callable[[ProcessContainer], str]) -> None:
        """Have all who wait for it forked from something else, in other folders."""
        for container in list(self._containers.values()):
            if container.phase is Phase.QUEUED:
                other = origin()
                del self._containers[container.id]
                container.move(folder(container))
                other.fork(container)

    def dismiss(self) -> None:
        """It is needed no more: it ends with its last container."""
        self._retire()
        if not self._containers:
            self._hang_up()

    # -- events of its place ------------------------------------------------------------------------------------------
    def ready(self, container: Container) -> None:
        """It can be forked."""
        self._is_warm()

    def failed(self, container: Container, failure: StartFailure) -> None:
        """It does not come about; neither do those who wait for it."""
        self._failure = failure
        self._retire()
        for waiting in list(self._containers.values()):
            waiting.fail(failure)

    def finished(self, container: Container, input_id: str) -> None:
        """It has no inputs."""

    def exited(self, container: Container, status: str) -> None:
        """It is gone."""
        self._lost(self._failure or StartFailure(f"{self.title} ended: {status}", killed=True))

    # -- inside -------------------------------------------------------------------------------------------------------
    def _hear(self, packet: bytes) -> None:
        match message := wire.from_snapshot(packet):
            case wire.Forked() | wire.Refused() | wire.Reaped():
                self._answered(message)
            case wire.Ready():
                self.place.is_ready()
            case wire.Failed(cause, detail, killed):
                self.place.fail(StartFailure(cause, detail, killed))
            case wire.Unfit() if self.state is State.STARTING:
                self._unfit(self)
                self.place.kill()

    def _pids(self) -> tuple[int, ...]:
        return tuple(container.pid for container in self._containers.values() if container.pid is not None)

    def _send(self, message: wire.Fork | wire.Spare, descriptors: Sequence[int] = ()) -> None:
        self.place.send(message, descriptors)

    def _view(self, container: ProcessContainer) -> wire.View:
        return wire.View(folder=container.folder, hidden=(self.folder,), temporary=os.path.join(self.folder, "tmp"))

    def _hang_up(self) -> None:
        self.place.kill()

    def _clean_up(self) -> None:
        """Its folder goes with the last one that is in it, as `ended` tells."""


class _Place(ProcessContainer):
    """The process of a snapshot. hear: takes what it says. pids: of its containers that are there."""

    is_snapshot = True

    def __init__(
        self,
        start: ContainerStart,
        folder: str,
        groups: Groups,
        events: ContainerEvents,
        on_gone: Callable[[ProcessContainer], None],
        hear: Callable[[bytes], None],
        pids: Callable[[], tuple[int, ...]],
    ) -> None:
        super().__init__(start, folder, groups, events, on_gone)
        self._hear_packet = hear
        self._pids = pids

    @property
    def survivors(self) -> tuple[int, ...]:
        """See `ProcessContainer`."""
        return self._pids()

    def _hear(self, packet: bytes) -> None:
        self._hear_packet(packet)
