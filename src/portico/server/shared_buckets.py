"""Token buckets that several ingress processes take from: what a limit covers may live in any of them."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from hashlib import sha256
from pathlib import Path
from typing import Final

from portico.core.bucket import TokenBucket

_STATE: Final = struct.Struct("dd")  # level, and when it was so; both 0 at first, which fills it


class SharedBuckets:
    """The buckets of one server, as files in a folder; each process has its own object of this class."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, tuple[int, mmap.mmap]] = {}

    def new(self, name: str, rate: float, now: float) -> TokenBucket:
        """That of this name, in all processes."""
        found = self._files.get(name)
        if found is None:
            path = self._folder / sha256(name.encode()).hexdigest()[:32]
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.truncate(descriptor, _STATE.size)
            found = self._files[name] = descriptor, mmap.mmap(descriptor, _STATE.size)
        return SharedBucket(rate, now, *found)


class SharedBucket(TokenBucket):
    """`has_one` takes one at once, for between the two verbs another process could; `put_back` returns it.

    The lock is held for some microseconds, and the kernel lets it go when a process dies that holds it.
    """

    __slots__ = ("_descriptor", "_memory")

    def __init__(self, rate: float, now: float, descriptor: int, memory: mmap.mmap) -> None:
        super().__init__(rate, now)
        self._descriptor = descriptor
        self._memory = memory

    def has_one(self, now: float) -> bool:
        """See `TokenBucket`. The clock is the machine's; another process may have looked at it later."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            level, at = _STATE.unpack_from(self._memory)
            self._at = max(now, at)
            self._level = min(self.burst, level + (self._at - at) * self.rate)
            has = self._level >= 1.0
            _STATE.pack_into(self._memory, 0, self._level - 1.0 if has else self._level, self._at)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        return has

    def take(self) -> None:
        """`has_one` has."""

    def put_back(self) -> None:
        """See `TokenBucket`."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            level, at = _STATE.unpack_from(self._memory)
            _STATE.pack_into(self._memory, 0, level + 1.0, at)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
