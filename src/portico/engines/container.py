"""One container, seen from the server: its process, its lifeline, and what it has come to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

import msgspec

from portico.engines.channel import PacketChannel
from portico.engines.groups import Groups
from portico.engines.orphans import end_orphans
from portico.engines.wires import Wires
from portico.model.ports import ContainerEvents, ContainerStart, StartFailure
from portico.wire import container as wire

if TYPE_CHECKING:
    from portico.engines.forks import ForkServer


class Phase(Enum):
    """What a container has come to."""

    QUEUED = auto()  # waits for what it is forked from
    STARTING = auto()
    READY = auto()
    ENDING = auto()  # failed, told to stop, or killed
    GONE = auto()


_NEXT: dict[Phase, set[Phase]] = {
    Phase.QUEUED: {Phase.STARTING, Phase.ENDING, Phase.GONE},
    Phase.STARTING: {Phase.READY, Phase.ENDING, Phase.GONE},
    Phase.READY: {Phase.ENDING, Phase.GONE},
    Phase.ENDING: {Phase.GONE},
    Phase.GONE: set(),
}


class ProcessContainer:
    """A container that is a process; see `model.ports.Container`. `on_gone` is called before `exited` is reported.

    folder: its own, which it makes; whoever hears `on_gone` removes it. beside: gives all containers of the engine.
    `origin` is what it is forked from; `survivors` are the process ids of containers that a snapshot leaves behind when
    it ends.
    """

    is_snapshot = False
    origin: ForkServer

    def __init__(
        self,
        start: ContainerStart,
        folder: str,
        groups: Groups,
        events: ContainerEvents,
        on_gone: Callable[[ProcessContainer], None],
        beside: Callable[[], Iterable[ProcessContainer]] = tuple,
    ) -> None:
        self.id = start.container_id
        self.move(folder)
        self.was_killed = False
        self.takes_connections = start.function.program is None
        self.start = start
        self.phase = Phase.QUEUED
        self._overran = False
        self.pid: int | None = None
        self._loop = asyncio.get_running_loop()
        self._groups = groups
        self._events = events
        self._on_gone = on_gone
        self._beside = beside
        self._lifeline: PacketChannel | None = None
        self._tether: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pidfd: int | None = None

    def __repr__(self) -> str:
        return f"<ProcessContainer {self.id} {self.start.function.name} {self.phase.name.lower()} pid={self.pid}>"

    def move(self, folder: str) -> None:
        """Have this folder; before it is started."""
        self.folder = folder
        self.address = f"{folder}/http"

    @property
    def survivors(self) -> tuple[int, ...]:
        """None: it is no snapshot."""
        return ()

    @property
    def overran(self) -> bool:
        """See `model.ports.Container`."""
        if self.phase is not Phase.GONE and self.start.function.resources.memory_limit is not None:
            self._overran = self._groups.overran(self.id)
        return self._overran

    # -- what the pool and the supervisor ask of it -------------------------------------------------------------------
    def hand_over(self, input_id: str, descriptor: int, head: bytes) -> None:
        """See `model.ports.Container`."""
        if self._lifeline is None:
            os.close(descriptor)
        else:
            self._lifeline.send(wire.encode(wire.HandOver(input_id, head)), (descriptor,))

    def cancel(self, input_id: str) -> None:
        """See `model.ports.Container`."""
        if self._lifeline is not None:
            self._lifeline.send(wire.encode(wire.Cancel(input_id)))

    def stop(self, grace: float) -> None:
        """See `model.ports.Container`. One that is not ready yet has nothing to finish."""
        if self.phase is not Phase.READY:
            self.kill()
            return
        assert self._lifeline is not None
        self._to(Phase.ENDING)
        self._lifeline.send(wire.encode(wire.Stop(grace)))
        self._set_timer(grace, self.kill)

    def kill(self) -> None:
        """See `model.ports.Container`."""
        if self.phase is Phase.QUEUED:
            self._loop.call_soon(self.ended, "ended before it started")
        if self.phase in (Phase.QUEUED, Phase.STARTING, Phase.READY):
            self._to(Phase.ENDING)
        self._kill_group()

    # -- what its origin says of it -----------------------------------------------------------------------------------
    def connect(self, wires: Wires) -> None:
        """The origin is about to be asked for it: time counts from now."""
        self._to(Phase.STARTING)
        self._lifeline = PacketChannel(wires.lifeline, self._hear)
        self._tether = wires.tether
        function = self.start.function
        seconds = function.startup_timeout or float(function.timeout)
        self._set_timer(seconds, lambda: self.fail(StartFailure(f"It did not become ready within {seconds:g} s.")))

    def forked(self, pid: int) -> None:
        """It has a process."""
        self.pid = pid
        if self.phase is Phase.ENDING:
            self._kill_group()

    def fail(self, failure: StartFailure) -> None:
        """It cannot become ready."""
        if self.phase not in (Phase.QUEUED, Phase.STARTING):
            return
        self._events.failed(self, failure)
        self.kill()

    def ended(self, status: str, *, killed: bool = False) -> None:
        """Its process is gone. Whatever it had said before counts first. killed: by whom, nobody knows."""
        if self._lifeline is not None:
            self._lifeline.drain()
        if self.phase is Phase.GONE:
            return
        if self.overran:
            killed = False
            status = f"{status}: it took more than its {self.start.function.resources.memory_limit} MiB of memory"
        if self.phase in (Phase.QUEUED, Phase.STARTING):
            cause = f"The container ended while it started: {status}."
            self._events.failed(self, StartFailure(cause, killed=killed))
        self.was_killed = killed
        self._to(Phase.GONE)
        self._release()
        self._on_gone(self)
        self._events.exited(self, status)

    def adopt(self, origin: str) -> None:
        """Its origin is gone: wait for its process ourselves. It is our child now, or the template's."""
        if self.pid is None:
            self.fail(StartFailure(f"{origin} ended while the container started.", killed=True))
            self.ended("ended with what it was to be forked from")
            return
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self.ended("exit status unknown")
            return
        self._loop.add_reader(self._pidfd, self._reap)

    def is_ready(self, address: str | None = None) -> None:
        """It says so; a program of the user's with its own address."""
        if self.phase is Phase.STARTING:
            self.address = address or self.address
            self._to(Phase.READY)
            self._clear_timer()
            self._events.ready(self)

    def send(self, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
        """Say this over its lifeline. The descriptors are closed."""
        assert self._lifeline is not None, "it is ready"
        self._lifeline.send(wire.encode(message), descriptors)

    # -- inside -------------------------------------------------------------------------------------------------------
    def _to(self, phase: Phase) -> None:
        if phase not in _NEXT[self.phase]:
            raise AssertionError(f"{self!r} cannot become {phase.name}")
        self.phase = phase

    def _hear(self, packet: bytes) -> None:
        message = wire.from_container(packet)
        match message:
            case wire.Ready(address):
                self.is_ready(address)
            case wire.Failed(cause, detail, killed, taken):
                if taken and (holder := self._holder(taken)):
                    cause = f"Port {taken} is taken by {holder}; {cause.rpartition('; ')[2]}"
                self.fail(StartFailure(cause, detail, killed))
            case wire.Done(input_id):
                self._events.finished(self, input_id)

    def _holder(self, port: int) -> str | None:
        """Which function's container has a port of the machine's."""
        for other in self._beside():
            program = other.start.function.program
            if other is not self and program is not None and program.port == port:
                return f"the function {other.start.function.name!r} of the app {other.start.app_name!r}"
        return None

    def _set_timer(self, seconds: float, action: Callable[[], None]) -> None:
        self._clear_timer()
        self._timer = self._loop.call_later(seconds, action)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _kill_group(self) -> None:
        """Both ways: the tether works before we know the process, the signal works when it has cut its tether."""
        if self._tether is not None:
            os.close(self._tether)
            self._tether = None
        if self.pid is not None and self.phase is not Phase.GONE:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _reap(self) -> None:
        assert self.pid is not None
        assert self._pidfd is not None
        self._kill_group()
        self._loop.remove_reader(self._pidfd)
        end_orphans(self.id, self._bury)

    def _bury(self) -> None:
        """Last of all: until then nobody else can have its process id."""
        assert self.pid is not None
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            self.ended("exit status unknown")
        else:
            self.ended(describe(status), killed=was_killed(status))

    def _release(self) -> None:
        self._clear_timer()
        if self._lifeline is not None:
            self._lifeline.close()
        if self._tether is not None:
            os.close(self._tether)
            self._tether = None
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)


def was_killed(status: int) -> bool:
    """Whether a wait status tells of SIGKILL, which no process sends by itself."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def describe(status: int) -> str:
    """A wait status in words: "exit code 0", "signal 9 (SIGKILL)"."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"
