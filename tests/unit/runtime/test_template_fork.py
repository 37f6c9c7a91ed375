"""The fork server's answers."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from portico.runtime.template import Template
from portico.wire import container as wire


def test_a_fork_that_the_system_refuses_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The template goes on, keeps no descriptor, and says why."""

    def no_process() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_process)
    server, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with server, channel:
        template = Template(channel, errno.EPERM)
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(server, [wire.encode(wire.Fork("ct-1"))], [0] * 5)
        assert template.fork()
        assert len(os.listdir("/proc/self/fd")) == before
        answer = wire.from_template(server.recv(wire.MAX_PACKET))
    assert answer == wire.Refused("ct-1", "[Errno 11] Resource temporarily unavailable")


def test_there_is_nothing_to_fork_when_the_server_is_gone() -> None:
    """The end of the stream is the end of the template."""
    server, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.close()
    with channel:
        assert not Template(channel, errno.EPERM).fork()
