"""One image's template process, seen from the server: its start, its fork requests, its end."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection
from enum import Enum, auto

import msgspec

from portico.engines import launch
from portico.engines.channel import PacketChannel
from portico.engines.container import Phase, ProcessContainer, describe, was_killed
from portico.engines.groups import Groups
from portico.engines.spawn import Output, Spawned, spawn
from portico.engines.wires import lay
from portico.model.errors import StartError
from portico.model.ports import BuiltImage, OutputSink, StartFailure
from portico.wire import container as wire

_log = logging.getLogger("portico.engine")


class State(Enum):
    """What a template has come to."""

    STARTING = auto()
    WARM = auto()
    ENDING = auto()  # told to end; takes no more containers
    GONE = auto()


class Template:
    """Owns the process, and the containers that it has forked or will fork.

    `told` are variables for its environment, `view` is what its containers see of the machine, `groups` has its limits
    and theirs. `retired` is called when it takes no more containers; `finished` is done when nothing of it is left.
    """

    def __init__(
        self,
        image: BuiltImage,
        sink: OutputSink,
        *,
        told: dict[str, str],
        view: wire.View,
        groups: Groups,
        idle_seconds: float,
        is_kept: Callable[[], bool],
        retired: Callable[[Template], None],
    ) -> None:
        self.image = image
        self.state = State.STARTING
        self._sink = sink
        self._view = view
        self._groups = groups
        self._idle_seconds = idle_seconds
        self._is_kept = is_kept
        self._retired = retired
        self._loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self._loop.create_future()
        self._warmed: asyncio.Future[None] = self._loop.create_future()
        self._environment = launch.base_environment(image, os.environ) | told
        self._containers: dict[str, ProcessContainer] = {}
        self._process: Spawned | None = None
        self._channel: PacketChannel | None = None
        self._output: Output | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Template {self.image.key[:12]} {self.state.name.lower()} {len(self._containers)} containers>"

    def start(self) -> None:
        """Start the process; returns at once."""
        command = launch.template_command(self.image)
        spawning = self._loop.run_in_executor(None, self._spawn, command)
        spawning.add_done_callback(self._spawned)

    @property
    def containers(self) -> Collection[ProcessContainer]:
        """Those that are not gone."""
        return self._containers.values()

    async def warm(self) -> None:
        """Returns when forks are quick; StartError when the process ended instead."""
        await asyncio.shield(self._warmed)

    def fork(self, container: ProcessContainer) -> None:
        """Fork this container, as soon as the process is warm."""
        self._containers[container.id] = container
        self._stop_idling()
        if self.state is State.WARM:
            self._request(container)

    def forget(self, container: ProcessContainer) -> None:
        """It is gone."""
        del self._containers[container.id]
        if self._containers:
            return
        if self.state is State.ENDING:
            self._hang_up()
        elif self.state is State.WARM:
            self._idle()
        self._check_finished()

    def close(self) -> None:
        """Kill its containers, then end it."""
        self._retire()
        for container in list(self._containers.values()):
            container.kill()
        if not self._containers:
            self._hang_up()

    def kill(self) -> None:
        """End the process now. Containers live on."""
        if self._process is not None:
            self._process.process.kill()

    # -- the process --------------------------------------------------------------------------------------------------
    def _spawn(self, command: list[str]) -> Spawned:
        """In a thread."""
        spawned = spawn(command, self._environment)
        self._groups.admit(f"template-{spawned.process.pid}", spawned.process.pid)
        return spawned

    def _spawned(self, spawning: asyncio.Future[Spawned]) -> None:
        error = spawning.exception()
        if error is not None:
            self._lost(StartFailure(f"The image's Python could not be started: {error}"))
            return
        self._process = spawning.result()
        self._channel = PacketChannel(self._process.channel, self._hear)
        self._output = Output(self._process.output, self.image.key[:12])
        self._output.open()
        self._loop.add_reader(self._process.pidfd, self._exited)
        if self.state is State.ENDING:
            self.kill()

    def _hear(self, packet: bytes) -> None:
        match wire.from_template(packet):
            case wire.Warmed(obstacle):
                if obstacle:
                    _log.warning("containers are not isolated from each other: %s", os.strerror(obstacle))
                self._is_warm()
            case wire.Forked(container_id, pid):
                if container := self._containers.get(container_id):
                    container.forked(pid)
            case wire.Refused(container_id, reason):
                if container := self._containers.get(container_id):
                    container.fail(StartFailure(f"The system gave the container no process: {reason}"))
                    container.ended("never started")
            case wire.Reaped(container_id, _, status):
                if container := self._containers.get(container_id):
                    container.ended(describe(status), killed=was_killed(status))

    def _is_warm(self) -> None:
        if self.state is not State.STARTING:
            return
        self.state = State.WARM
        self._warmed.set_result(None)
        for container in list(self._containers.values()):
            if container.phase is Phase.QUEUED:
                self._request(container)
        if not self._containers:
            self._idle()

    def _request(self, container: ProcessContainer) -> None:
        assert self._channel is not None
        start = container.start
        environment = launch.container_environment(self._environment, start)
        try:
            view = msgspec.structs.replace(self._view, folder=container.folder)
            groups = self._groups.of_container(container.id, start.function.resources)
            wires = lay(wire.encode(launch.launch_document(start, container.address, view, groups, environment)))
        except OSError as error:
            container.fail(StartFailure(f"The server has no descriptor or memory for the container: {error}"))
            return
        self._sink.attach(start, wires.stdout, wires.stderr)
        container.connect(wires)
        self._channel.send(wire.encode(wire.Fork(container.id)), wires.container)

    def _exited(self) -> None:
        assert self._process is not None
        assert self._channel is not None
        assert self._output is not None
        self._loop.remove_reader(self._process.pidfd)
        os.close(self._process.pidfd)
        code = self._process.process.wait()
        self._channel.drain()
        self._channel.close()
        lines = self._output.close()
        wait_status = code << 8 if code >= 0 else -code
        status = describe(wait_status)
        if self.state is State.WARM:
            _log.warning("template %s ended: %s", self.image.key[:12], status)
        reason = lines[-1] if lines else status
        cause = f"The image's Python could not start a container: {reason}"
        self._lost(StartFailure(cause, "\n".join(lines), was_killed(wait_status)))

    def _lost(self, failure: StartFailure) -> None:
        """There is no process any more."""
        self._retire()
        self.state = State.GONE
        if not self._warmed.done():
            self._warmed.set_exception(StartError(failure.cause, detail=failure.detail))
            self._warmed.exception()  # nobody has to be waiting for it
        for container in list(self._containers.values()):
            if container.phase is Phase.QUEUED:
                container.fail(failure)
            else:
                container.adopt()
        self._check_finished()

    # -- its end ------------------------------------------------------------------------------------------------------
    def _retire(self) -> None:
        self._stop_idling()
        if self.state in (State.STARTING, State.WARM):
            self.state = State.ENDING
            self._retired(self)

    def _hang_up(self) -> None:
        """Let the process end: it does so when its socket closes, once it is warm."""
        if self._channel is not None:
            self._channel.close()
        if not self._warmed.done():
            self.kill()

    def _idle(self) -> None:
        self._idle_timer = self._loop.call_later(self._idle_seconds, self._idled)

    def _idled(self) -> None:
        if self._is_kept():
            self._idle()
        else:
            self.close()

    def _stop_idling(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _check_finished(self) -> None:
        if self.state is State.GONE and not self._containers and not self.finished.done():
            if self._process is not None:
                self._groups.remove(f"template-{self._process.process.pid}")
            self.finished.set_result(None)
