"""Starts a template process, and reads what it prints."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import socket
import subprocess
from collections import deque
from dataclasses import dataclass

_log = logging.getLogger("portico.engine")
_PR_SET_CHILD_SUBREAPER = 36
_LAST_LINES = 20
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Spawned:
    """A started process with our end of its socket pair, the read end of its output, and its pidfd."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    output: int
    pidfd: int


def spawn(command: list[str], environment: dict[str, str]) -> Spawned:
    """Start it in a session of its own; `{fd}` in the command stands for its end of the socket pair.

    Takes milliseconds: call it in a thread. OSError when it cannot be started.
    """
    # Containers that outlive their template become our children, so that we learn of their end.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    output, output_end = os.pipe()
    with theirs:
        try:
            process = subprocess.Popen(
                [part.replace("{fd}", str(theirs.fileno())) for part in command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output_end,
                stderr=output_end,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(output)
            raise
        finally:
            os.close(output_end)
    return Spawned(process, ours, output, os.pidfd_open(process.pid))


class Output:
    """What a template prints: logged line by line; its last lines are kept."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._rest = b""
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._loop = asyncio.get_running_loop()

    def open(self) -> None:
        """Read on the running loop from now on."""
        os.set_blocking(self._descriptor, False)
        self._loop.add_reader(self._descriptor, self._read)

    def close(self) -> list[str]:
        """Read what is left, close; the last lines."""
        while self._read():
            pass
        if self._rest:
            self._say(self._rest)
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        return list(self._last)

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._descriptor)
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._say(line)
        return True

    def _say(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self._last.append(text)
        _log.warning("template %s: %s", self._name, text)
