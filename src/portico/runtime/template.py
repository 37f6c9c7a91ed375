"""The template process: everything imported and warmed, ready to be forked into containers.

It has one thread, so that a fork is a whole process. It is the reaper of all that its containers leave behind. It ends
when the server closes its socket, and takes its containers with it; when it is killed, they live on.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from typing import NoReturn

import msgspec

from portico.runtime import confine, container, isolate, warmth
from portico.sdk import alias
from portico.wire import container as wire


def main(descriptor: int) -> NoReturn:
    """Warm up and serve fork requests from this socket until its other end closes."""
    gc.disable()
    isolate.become_reaper()
    isolate.give_way()
    isolate.keep_freed_memory()
    template = Template(socket.socket(fileno=descriptor), confine.obstacle())
    alias.install()
    warmth.generate()
    gc.collect()
    gc.freeze()  # what is there now is shared with the containers; a collection would touch, and so copy, it
    sys.exit(template.run())


class Template:
    """The fork server: fork on request, reap, report."""

    def __init__(self, channel: socket.socket, obstacle: int) -> None:
        self._channel = channel
        self._obstacle = obstacle
        self._programs = confine.programs()
        self._containers: dict[int, str] = {}  # process id -> container id

    def __repr__(self) -> str:
        return f"<Template {len(self._containers)} containers>"

    def run(self) -> int:
        """Until the server is gone; the exit status."""
        wake = _wake_on_child()
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(wake, select.POLLIN)
        try:
            self._say(wire.Warmed(self._obstacle))
            while True:
                ready = [descriptor for descriptor, _ in poll.poll()]
                if wake in ready:
                    os.read(wake, 4096)
                    self._reap()
                if self._channel.fileno() in ready and not self.fork():
                    return 0
        except (BrokenPipeError, ConnectionResetError):
            return 0
        finally:
            self._end_all()

    def fork(self) -> bool:
        """Answer one request; False when there will be no more."""
        packet, descriptors, _, _ = socket.recv_fds(
            self._channel, wire.MAX_PACKET, len(container.Descriptors._fields), socket.MSG_CMSG_CLOEXEC
        )
        if not packet:
            return False
        container_id = wire.to_template(packet).container_id
        gate = None if self._obstacle else confine.Gate()
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, too little memory
            self._say(wire.Refused(container_id, str(error)))
        else:
            if pid == 0:
                container.main(container.Descriptors(*descriptors), gate, self._programs)
            self._containers[pid] = container_id
            if gate is not None:
                gate.open(pid)
            self._say(wire.Forked(container_id, pid))
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _reap(self) -> None:
        """Every child that has ended: containers, and what they left behind."""
        while (pid := _ended_child()) is not None:
            container_id = self._containers.pop(pid, None)
            if container_id is not None:
                _kill_group(pid)  # before the process is reaped: until then nobody else can have its id
            _, status = os.waitpid(pid, 0)
            self._kill_orphans()
            if container_id is not None:
                self._say(wire.Reaped(container_id, pid, status))

    def _kill_orphans(self) -> None:
        """What a container that is gone has left in other process groups: living containers keep theirs below them.

        What an orphan leaves in turn comes here too, when it is reaped.
        """
        for pid in _children():
            if pid not in self._containers:
                _kill(pid)

    def _end_all(self) -> None:
        """Kill everything below, and what that leaves behind, until there is nothing."""
        for pid in self._containers:
            _kill_group(pid)
        while children := _children():
            for pid in children:
                _kill(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)

    def _say(self, message: msgspec.Struct) -> None:
        self._channel.send(wire.encode(message))


def _wake_on_child() -> int:
    """A descriptor that becomes readable when a child ends."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    return readable


def _ended_child() -> int | None:
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if info is None else info.si_pid


def _children() -> list[int]:
    try:
        with open("/proc/thread-self/children") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return []  # a kernel without CONFIG_PROC_CHILDREN: process groups have to do


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
