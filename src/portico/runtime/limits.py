"""What a container may take: memory, processes, the size of files. Set before the user's code runs."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable
from typing import Final

from portico.wire.container import Group

MAX_PROCESSES: Final = 4096
MAX_FILE: Final = 64 << 30  # bytes


def join(groups: Iterable[Group]) -> None:
    """Make these control groups, and be in them from now on. OSError when that cannot be."""
    for group in groups:
        os.mkdir(group.folder)
        for name, value in group.settings.items():
            with contextlib.suppress(FileNotFoundError) if name[0] == "?" else contextlib.nullcontext():
                _write(os.path.join(group.folder, name.removeprefix("?")), value)
        _write(os.path.join(group.folder, "cgroup.procs"), "0")


def limit_data(mib: int) -> None:
    """Let allocations fail (MemoryError) beyond this many MiB of private memory."""
    _limit(resource.RLIMIT_DATA, mib << 20)


def limit_files() -> None:
    """Let writes fail (OSError) that would make a file huge."""
    _limit(resource.RLIMIT_FSIZE, MAX_FILE)


def limit_processes() -> None:
    """Bound the number of processes and threads in this process's own user namespace. It does not bind root."""
    _limit(resource.RLIMIT_NPROC, MAX_PROCESSES)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, most))


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
