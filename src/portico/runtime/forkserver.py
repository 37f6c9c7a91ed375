"""A process that containers are forked from, on request: an image's template, or the snapshot of a function.

It has one thread, so that a fork is a whole process. It is the reaper of all that its containers leave behind. It ends
when the server closes its socket, and takes its containers with it; when it is killed, they live on: a template's with
the server, a snapshot's with the template.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, NoReturn

import msgspec

from portico.runtime import confine
from portico.wire import container as wire


class Descriptors(NamedTuple):
    """What a fork request brings, in this order."""

    lifeline: int
    tether: int
    stdout: int
    stderr: int
    launch: int


Begin = Callable[[Descriptors, confine.Gate | None], NoReturn]  # what a fork does


class ForkServer:
    """Forks on request, reaps, reports.

    isolated: whether forks get namespaces of their own, and so need a gate. own: descriptors that are not for forks.
    """

    def __init__(self, channel: socket.socket, begin: Begin, *, isolated: bool, own: Collection[int] = ()) -> None:
        self._channel = channel
        self._begin = begin
        self._isolated = isolated
        self._own = own
        self._containers: dict[int, str] = {}  # process id -> container id
        self._snapshots: set[int] = set()  # those of them that are forked from themselves
        self._mourned: set[str] = set()  # snapshots that have ended, and whose containers are not known yet
        self._spared: set[int] = set()  # process ids of their containers
        self._wake: tuple[int, int] = (-1, -1)  # a pipe that is written to when a child ends
        self._on_child: Any = signal.SIG_DFL  # how the signal was handled before

    def __repr__(self) -> str:
        return f"<ForkServer {len(self._containers)} containers>"

    def run(self, greeting: msgspec.Struct) -> None:
        """Say this, and serve until the server is gone."""
        self._wake_on_child()
        wake = self._wake[0]
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(wake, select.POLLIN)
        try:
            self._say(greeting)
            while True:
                ready = [descriptor for descriptor, _ in poll.poll()]
                if wake in ready:
                    os.read(wake, 4096)
                    self._reap()
                if self._channel.fileno() in ready and not self.answer():
                    return
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            self._end_all()

    def answer(self) -> bool:
        """One request; False when there will be no more."""
        packet, descriptors, _, _ = socket.recv_fds(
            self._channel, wire.MAX_PACKET, len(Descriptors._fields), socket.MSG_CMSG_CLOEXEC
        )
        if not packet:
            return False
        message = wire.to_fork_server(packet)
        if isinstance(message, wire.Fork):
            self._fork(message, descriptors)
        else:
            self._spare(message)
        return True

    def _fork(self, request: wire.Fork, descriptors: list[int]) -> None:
        gate = confine.Gate() if self._isolated else None
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, too little memory
            self._say(wire.Refused(request.container_id, str(error)))
        else:
            if pid == 0:
                self._let_go()
                self._begin(Descriptors(*descriptors), gate)
            self._containers[pid] = request.container_id
            if request.snapshot:
                self._snapshots.add(pid)
            self._say(wire.Forked(request.container_id, pid))  # before the fork can say anything
            if gate is not None:
                gate.open(pid)
        for descriptor in descriptors:
            os.close(descriptor)

    def _let_go(self) -> None:
        """In the fork: close what is the fork server's, and nothing else. Others' code may have more open."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, self._on_child)
        self._channel.close()
        for descriptor in (*self._wake, *self._own):
            os.close(descriptor)

    def _wake_on_child(self) -> None:
        self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        self._on_child = signal.signal(signal.SIGCHLD, lambda number, frame: None) or signal.SIG_DFL

    # -- ends ---------------------------------------------------------------------------------------------------------
    def _reap(self) -> None:
        """Every child that has ended: containers, and what they left behind."""
        while not self._mourned and (pid := _ended(os.P_ALL, 0)) is not None:
            pid = self._ended_snapshot() or pid
            container_id = self._containers.pop(pid, None)
            if container_id is not None or pid in self._spared:
                _kill_group(pid)  # before the process is reaped: until then nobody else can have its id
                self._spared.discard(pid)
            _, status = os.waitpid(pid, 0)
            is_snapshot = pid in self._snapshots
            if is_snapshot and container_id is not None:
                self._snapshots.discard(pid)
                self._mourned.add(container_id)
            self._kill_orphans()
            if container_id is not None:
                self._say(wire.Reaped(container_id, pid, status, is_snapshot))

    def _ended_snapshot(self) -> int | None:
        """One that has ended and is not reaped. Its containers became children of this process in the same moment."""
        return next((pid for pid in self._snapshots if _ended(os.P_PID, pid) is not None), None)

    def _spare(self, message: wire.Spare) -> None:
        self._spared.update(message.pids)
        self._mourned.discard(message.snapshot_id)
        self._kill_orphans()
        self._reap()

    def _kill_orphans(self) -> None:
        """What a container that is gone has left in other process groups: living containers keep theirs below them.

        What an orphan leaves in turn comes here too, when it is reaped.
        """
        children = children_of_this_thread()
        if self._mourned or self._ended_snapshot() is not None:  # asked last: until then none of them was a child
            return
        for pid in children:
            if pid not in self._containers and pid not in self._spared:
                _kill(pid)

    def _end_all(self) -> None:
        """Kill everything below, and what that leaves behind, until there is nothing."""
        for pid in (*self._containers, *self._spared):
            _kill_group(pid)
        while children := children_of_this_thread():
            for pid in children:
                _kill(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)

    def _say(self, message: msgspec.Struct) -> None:
        self._channel.send(wire.encode(message))


def children_of_this_thread() -> list[int]:
    """Their process ids."""
    try:
        with open("/proc/thread-self/children") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return []  # a kernel without CONFIG_PROC_CHILDREN: process groups have to do


def _ended(kind: int, pid: int) -> int | None:
    try:
        info = os.waitid(kind, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if info is None else info.si_pid


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
