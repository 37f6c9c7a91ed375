"""Who listens on this machine's TCP ports, as /proc shows it."""

from __future__ import annotations

import contextlib
import os
from typing import Final

_LISTEN: Final = "0A"
_LOOPBACK: Final = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


def listeners(port: int) -> dict[int, bool]:
    """The sockets that listen on the port, by inode; whether they listen on more than 127.0.0.1 or ::1."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(table) as file:
            for line in list(file)[1:]:
                _, local, _, state, *rest = line.split()
                address, _, number = local.partition(":")
                if state == _LISTEN and int(number, 16) == port:
                    found[int(rest[5])] = address not in _LOOPBACK
    return found


def holder(inode: int) -> int | None:
    """A process, other than this one, that has the socket open: the oldest, as process ids go."""
    name = f"socket:[{inode}]"
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdecimal()):
        if pid != os.getpid() and name in _descriptors(pid):
            return pid
    return None


def title(pid: int | None) -> str:
    """What to call a process in a message: "nginx (pid 17)"."""
    if pid is None:
        return "a process of another container or user"
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            words = file.read().rstrip("\0").split("\0")
    except OSError:
        return f"pid {pid}"
    return f"{' '.join(words)[:100]!r} (pid {pid})"


def _descriptors(pid: int) -> set[str]:
    try:
        entries = os.listdir(f"/proc/{pid}/fd")
    except OSError:  # it has gone, or belongs to somebody else
        return set()
    found = set()
    for entry in entries:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return found
