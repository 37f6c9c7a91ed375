"""One image's template process, seen from the server: its start, its fork requests, its end."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence

import msgspec

from portico.engines import launch
from portico.engines.channel import PacketChannel
from portico.engines.container import ProcessContainer, describe, was_killed
from portico.engines.forks import ForkServer, State
from portico.engines.groups import Groups
from portico.engines.spawn import Output, Spawned, spawn
from portico.model.errors import StartError
from portico.model.ports import BuiltImage, OutputSink, StartFailure
from portico.wire import container as wire

_log = logging.getLogger("portico.engine")


class Template(ForkServer):
    """Started with the image's Python.

    `told` are variables for its environment, `view` is what its containers see of the machine, `groups` has its limits
    and theirs. While `is_kept`, it stays however idle.
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
        retired: Callable[[], object],
    ) -> None:
        environment = launch.base_environment(image, os.environ) | told
        super().__init__("The image's template process", sink, groups, environment, retired)
        self.image = image
        self._shown = view
        self._idle_seconds = idle_seconds
        self._is_kept = is_kept
        self._warmed: asyncio.Future[None] = self._loop.create_future()
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

    async def warm(self) -> None:
        """Returns when forks are quick; StartError when the process ended instead."""
        await asyncio.shield(self._warmed)

    def fork(self, container: ProcessContainer) -> None:
        """See `ForkServer`."""
        self._stop_idling()
        super().fork(container)

    def forget(self, container: ProcessContainer) -> None:
        """See `ForkServer`."""
        super().forget(container)
        if not self._containers and self.state is State.WARM:
            self._idle()

    def kill(self) -> None:
        """End the process now. Containers live on."""
        if self._process is not None:
            self._process.process.kill()

    # -- the process --------------------------------------------------------------------------------------------------
    def _spawn(self, command: list[str]) -> Spawned:
        """In a thread."""
        spawned = spawn(command, self.environment)
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
        message = wire.from_template(packet)
        if isinstance(message, wire.Warmed):
            if message.obstacle:
                _log.warning("containers are not isolated from each other: %s", os.strerror(message.obstacle))
            self._is_warm()
            return
        container = self._containers.get(message.container_id)
        self._answered(message)
        if isinstance(message, wire.Reaped) and message.snapshot:
            self._send(wire.Spare(message.container_id, container.survivors if container is not None else ()))

    def _is_warm(self) -> None:
        if self.state is not State.STARTING:
            return
        super()._is_warm()
        self._warmed.set_result(None)
        if not self._containers:
            self._idle()

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
        if not self._warmed.done():
            self._warmed.set_exception(StartError(failure.cause, detail=failure.detail))
            self._warmed.exception()  # nobody has to be waiting for it
        super()._lost(failure)

    def _send(self, message: wire.Fork | wire.Spare, descriptors: Sequence[int] = ()) -> None:
        assert self._channel is not None
        self._channel.send(wire.encode(message), descriptors)

    def _view(self, container: ProcessContainer) -> wire.View:
        return msgspec.structs.replace(self._shown, folder=container.folder)

    # -- its end ------------------------------------------------------------------------------------------------------
    def _retire(self) -> None:
        self._stop_idling()
        super()._retire()

    def _hang_up(self) -> None:
        """The process ends when its socket closes, once it is warm."""
        if self._channel is not None:
            self._channel.close()
        if not self._warmed.done():
            self.kill()

    def _idle(self) -> None:
        self._stop_idling()
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

    def _clean_up(self) -> None:
        if self._process is not None:
            self._groups.remove(f"template-{self._process.process.pid}")
