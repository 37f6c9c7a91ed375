"""The fork server's answers."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import pytest

from portico.runtime import confine
from portico.runtime.forkserver import Descriptors, ForkServer
from portico.wire import container as wire


def never(descriptors: Descriptors, gate: confine.Gate | None) -> NoReturn:
    raise AssertionError("nothing is forked here")


def test_a_fork_that_the_system_refuses_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork server goes on, keeps no descriptor, and says why."""

    def no_process() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_process)
    server, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with server, channel:
        forks = ForkServer(channel, never, isolated=False)
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(server, [wire.encode(wire.Fork("ct-1"))], [0] * 5)
        assert forks.answer()
        assert len(os.listdir("/proc/self/fd")) == before
        answer = wire.from_template(server.recv(wire.MAX_PACKET))
    assert answer == wire.Refused("ct-1", "[Errno 11] Resource temporarily unavailable")


def test_there_is_nothing_to_fork_when_the_server_is_gone() -> None:
    """The end of the stream is the end of the fork server."""
    server, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.close()
    with channel:
        assert not ForkServer(channel, never, isolated=False).answer()


# A fork server whose forks are fork servers, as a snapshot is: each tells on its "stdout" which processes it starts.
TREE = """
import os, signal, socket, subprocess, sys
from portico.runtime import isolate
from portico.runtime.forkserver import ForkServer
from portico.wire import container as wire


def begin(descriptors, gate):
    os.setsid()
    isolate.become_reaper()
    container = os.fork()
    if container:
        orphan = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        os.write(descriptors.stdout, f"{container} {orphan.pid}".encode())
    else:
        os.setsid()
    signal.pause()


isolate.become_reaper()
ForkServer(socket.socket(fileno=int(sys.argv[1])), begin, isolated=False).run(wire.Warmed())
"""


@contextmanager
def tree() -> Iterator[tuple[socket.socket, int, list[int]]]:
    """A running one: the server's end, a snapshot in it, and what that has started: a container, another process."""
    server, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.settimeout(30)
    reading, writing = os.pipe()
    with server, channel:
        process = subprocess.Popen([sys.executable, "-c", TREE, str(channel.fileno())], pass_fds=[channel.fileno()])
        channel.close()
        try:
            assert isinstance(hear(server), wire.Warmed)
            socket.send_fds(server, [wire.encode(wire.Fork("sn-1", snapshot=True))], [0, 0, writing, 0, 0])
            forked = hear(server)
            assert isinstance(forked, wire.Forked)
            yield server, forked.pid, [int(pid) for pid in os.read(reading, 100).split()]
        finally:
            server.close()
            assert process.wait(30) == 0
            os.close(reading)
            os.close(writing)


def hear(server: socket.socket) -> wire.Warmed | wire.Forked | wire.Refused | wire.Reaped:
    return wire.from_template(server.recv(wire.MAX_PACKET))


def gone(pid: int) -> None:
    """Returns when the process is."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([descriptor], [], [], 30)
    os.close(descriptor)
    assert ended


def buried(pid: int) -> None:
    """Returns when nobody has this process id; that nobody tells."""
    until = time.monotonic() + 30
    with suppress(ProcessLookupError):
        while True:
            os.kill(pid, 0)
            assert time.monotonic() < until
            time.sleep(0.001)


def test_containers_of_a_snapshot_that_is_killed_live_on() -> None:
    """The template ends what else the snapshot leaves behind, once it knows which processes are containers."""
    with tree() as (server, snapshot, (container, orphan)):
        os.kill(snapshot, signal.SIGKILL)
        assert hear(server) == wire.Reaped("sn-1", snapshot, signal.SIGKILL, snapshot=True)
        os.kill(container, 0)
        os.kill(orphan, 0)
        server.send(wire.encode(wire.Spare("sn-1", (container,))))
        gone(orphan)
        os.kill(container, 0)
        os.kill(container, signal.SIGKILL)
        gone(container)


def test_nothing_of_a_killed_snapshot_is_reaped_before_its_containers_are_known() -> None:
    """So a process id that the server watches is still that of the container."""
    with tree() as (server, snapshot, (container, orphan)):
        os.kill(snapshot, signal.SIGKILL)
        hear(server)
        os.kill(container, signal.SIGKILL)
        gone(container)  # as a corpse
        os.kill(container, 0)
        server.send(wire.encode(wire.Spare("sn-1", (container,))))
        gone(orphan)
        buried(container)


def test_the_end_of_the_server_ends_what_a_killed_snapshot_has_left() -> None:
    """Whether it was spared or not."""
    for spares in (True, False):
        with tree() as (server, snapshot, (container, orphan)):
            os.kill(snapshot, signal.SIGKILL)
            hear(server)
            if spares:
                server.send(wire.encode(wire.Spare("sn-1", (container,))))
        gone(container)
        gone(orphan)
