"""The descriptors between the server and one container."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wires:
    """Both ends of everything. What is the container's has to be closed here once it is handed over."""

    lifeline: socket.socket
    tether: int  # the write end of a pipe; the kernel kills the container's process group when it is closed
    stdout: int  # read ends
    stderr: int
    container: tuple[int, int, int, int, int]  # lifeline, tether, stdout, stderr, launch document; as in wire.Fork


def lay(document: bytes) -> Wires:
    """New wires for a container that is started with this launch document. OSError leaves nothing open."""
    with contextlib.ExitStack() as undo:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo.callback(ours.close)
        undo.callback(theirs.close)
        tethered, tether = _pipe(undo)
        stdout, stdout_end = _pipe(undo)
        stderr, stderr_end = _pipe(undo)
        launch = _memory_file(document, undo)
        undo.pop_all()
    return Wires(ours, tether, stdout, stderr, (theirs.detach(), tethered, stdout_end, stderr_end, launch))


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    undo.callback(os.close, reading)
    undo.callback(os.close, writing)
    return reading, writing


def _memory_file(content: bytes, undo: contextlib.ExitStack) -> int:
    descriptor = os.memfd_create("portico-launch")
    undo.callback(os.close, descriptor)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return descriptor
