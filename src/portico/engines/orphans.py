"""What a container leaves behind that has lost its template: its processes are then the server's children.

They are known by the container's id in their environment, which children inherit. A process that has cleared its
environment is not found, and ends with the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path


def end_orphans(container_id: str, then: Callable[[], None]) -> None:
    """Kill what is left of a container that is gone, and what that leaves behind; `then` is called when nothing is."""
    left = [pid for pid in _children() if _belongs(pid, container_id)]
    if not left:
        then()
        return
    loop = asyncio.get_running_loop()
    waiting = set(left)

    def ended(pid: int, descriptor: int) -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        waiting.discard(pid)
        if not waiting:
            end_orphans(container_id, then)

    for pid in left:
        descriptor = os.pidfd_open(pid)  # it is a child that nobody else waits for: its id stays its own
        loop.add_reader(descriptor, ended, pid, descriptor)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _children() -> list[int]:
    """The children of all of this process's threads."""
    found: list[int] = []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended, or the kernel does not list children
            found += map(int, (thread / "children").read_text().split())
    return found


def _belongs(pid: int, container_id: str) -> bool:
    with contextlib.suppress(OSError):
        return f"PORTICO_TASK_ID={container_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False
