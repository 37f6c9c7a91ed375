"""What containers print: read from their pipes, kept in one file per app, passed to those who follow.

All of it runs on the control plane's loop. A container that floods its pipe is read in doses, so that it waits and
nobody else does; a file that grows too large is kept as the previous one and begun anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from portico.model.ports import ContainerStart
from portico.wire.control import Event, LogLine, decode_event, encode_event

MAX_LINE: Final = 16 * 1024
MAX_FILE: Final = 10 * 1024 * 1024  # bytes; one previous file is kept
DOSE: Final = 256 * 1024  # bytes read from one pipe ...
PERIOD: Final = 0.05  # ... in this many seconds
FOLLOWER_LIMIT: Final = 10_000  # lines that a slow follower may be behind


class AppLog:
    """The log of one app."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._size = 0
        self._followers: set[asyncio.Queue[LogLine | None]] = set()

    def write(self, lines: list[LogLine]) -> None:
        """Keep these lines and pass them on."""
        with contextlib.suppress(OSError):  # a full disk must not end the reading of pipes; followers get the lines
            self._keep(b"".join(encode_event(line) for line in lines))
        for follower in self._followers:
            for line in lines:
                if follower.qsize() < FOLLOWER_LIMIT:
                    follower.put_nowait(line)

    def tail(self, count: int, function: str | None) -> list[LogLine]:
        """The last lines that are kept."""
        kept: deque[LogLine] = deque(maxlen=count)
        for path in (self._previous, self._path):
            if path.exists():
                with path.open("rb") as file:
                    for raw in file:
                        line = _read(raw)
                        if line is not None and function in (None, line.function):
                            kept.append(line)
        return list(kept)

    async def follow(self, function: str | None) -> AsyncIterator[LogLine]:
        """Lines from now on, until `end`."""
        follower: asyncio.Queue[LogLine | None] = asyncio.Queue()
        self._followers.add(follower)
        try:
            while (line := await follower.get()) is not None:
                if function in (None, line.function):
                    yield line
        finally:
            self._followers.discard(follower)

    def end(self) -> None:
        """The app has ended: followers end when they have read what there is."""
        for follower in self._followers:
            follower.put_nowait(None)
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _keep(self, data: bytes) -> None:
        if self._fd is None:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(self._fd).st_size
        self._size += os.write(self._fd, data)
        if self._size > MAX_FILE:
            self.close()
            self._path.replace(self._previous)

    @property
    def _previous(self) -> Path:
        return self._path.with_suffix(".1.jsonl")


class LogBook:
    """The logs of all apps; the sink of the engine's containers."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._folder = folder
        self._loop = loop
        self._apps: dict[str, AppLog] = {}
        self._pipes: set[_Pipe] = set()

    def app(self, app_id: str) -> AppLog:
        """The log of an app."""
        if app_id not in self._apps:
            self._apps[app_id] = AppLog(self._folder / f"{app_id}.jsonl")
        return self._apps[app_id]

    def attach(self, start: ContainerStart, stdout: int, stderr: int) -> None:
        """Read these pipes from now on (any thread)."""
        self._loop.call_soon_threadsafe(self._attach, start, stdout, stderr)

    def system(self, app_id: str, function: str, container_id: str, text: str) -> None:
        """Say something of a container in its app's log (any thread)."""
        self._loop.call_soon_threadsafe(self._system, app_id, function, container_id, text)

    def close(self) -> None:
        """Let go of all pipes and files."""
        for pipe in list(self._pipes):
            pipe.close()
        for log in self._apps.values():
            log.end()

    def detached(self, pipe: _Pipe) -> None:
        """A pipe has come to its end."""
        self._pipes.discard(pipe)

    def _attach(self, start: ContainerStart, stdout: int, stderr: int) -> None:
        for fd, source in ((stdout, "stdout"), (stderr, "stderr")):
            self._pipes.add(_Pipe(self, start, source, fd, self._loop))

    def _system(self, app_id: str, function: str, container_id: str, text: str) -> None:
        now = time.time()
        self.app(app_id).write(
            [
                LogLine(at=now, function=function, container_id=container_id, source="system", line=line)
                for line in text.rstrip().splitlines()
            ]
        )


class _Pipe:
    """One output stream of one container."""

    def __init__(
        self, book: LogBook, start: ContainerStart, source: str, fd: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._book = book
        self._start = start
        self._source = source
        self._fd = fd
        self._loop = loop
        self._rest = b""
        self._dose = 0
        self._dose_began = 0.0
        self._pause: asyncio.TimerHandle | None = None
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._readable)

    def close(self) -> None:
        """Read it no more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._book.detached(self)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 64 * 1024)
        except BlockingIOError:
            return
        if not data:
            if self._rest:
                self._write([self._rest])
            self.close()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            lines.append(self._rest)
            self._rest = b""
        if lines:
            self._write(lines)
        self._dosed(len(data))

    def _dosed(self, size: int) -> None:
        now = self._loop.time()
        if now - self._dose_began > PERIOD:
            self._dose, self._dose_began = 0, now
        self._dose += size
        if self._dose > DOSE:
            self._loop.remove_reader(self._fd)
            self._pause = self._loop.call_later(PERIOD, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._fd, self._readable)

    def _write(self, lines: list[bytes]) -> None:
        now = time.time()
        self._book.app(self._start.app_id).write(
            [
                LogLine(
                    at=now,
                    function=self._start.function.name,
                    container_id=self._start.container_id,
                    source=self._source,
                    line=line[:MAX_LINE].decode(errors="replace").rstrip("\r"),
                )
                for line in lines
            ]
        )


def _read(raw: bytes) -> LogLine | None:
    """A kept line; None for one that a power cut has cut short."""
    try:
        event: Event = decode_event(raw)
    except ValueError:
        return None
    return event if isinstance(event, LogLine) else None
