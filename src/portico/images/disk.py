"""What builds ask of the file system: locks between servers, whole files, and all of it on disk before it counts."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

_RETRY = 0.2  # seconds; file locks tell nobody when they are given back, and another server's build takes seconds


@contextlib.asynccontextmanager
async def locked(path: Path, on_wait: Callable[[], None]) -> AsyncIterator[None]:
    """Hold the lock file `path`, alone among all processes; `on_wait` is called once when somebody else has it."""
    with contextlib.ExitStack() as stack:
        descriptor = _open(path, stack)
        if not _take(descriptor):
            on_wait()
            while not _take(descriptor):  # noqa: ASYNC110 - see _RETRY
                await asyncio.sleep(_RETRY)
        yield


@contextlib.contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock file `path` if nobody has it; says whether."""
    with contextlib.ExitStack() as stack:
        yield _take(_open(path, stack))


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file's content in one step that survives a power cut."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def flush_filesystem(folder: Path) -> None:
    """Have all that was written to this folder's file system on disk."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor):
            raise OSError(ctypes.get_errno(), "could not be written to disk", str(folder))
    finally:
        os.close(descriptor)


def _open(path: Path, stack: contextlib.ExitStack) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, descriptor)
    return descriptor


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
