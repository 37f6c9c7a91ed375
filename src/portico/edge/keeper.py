"""Keeps a Caddy running: starts it, tells it what to do, starts it again when it ends. On one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from portico.core.backoff import Backoff
from portico.edge import admin
from portico.edge.document import Pem, Plan, bare, document
from portico.edge.news import Entry, News, read
from portico.model.errors import StateError

log = logging.getLogger("portico.edge")

START_TIMEOUT: Final = 20.0  # seconds until its admin socket is there
END_TIMEOUT: Final = 3.0  # seconds to send what is written, once the ingress has closed
_PAUSE: Final = 0.01  # seconds between looks for the socket
_LINE: Final = 1 << 20  # bytes of a line of its log
_LAST: Final = 8  # lines of its log that are told when it does not start


class Keeper:
    """One Caddy after the other. `on_news` hears what becomes of certificates."""

    def __init__(self, program: Path, plan: Plan, on_news: Callable[[News], None]) -> None:
        self._program = program
        self._plan = plan
        self._on_news = on_news
        self._wildcard: Pem | None = None
        self._dropped: tuple[str, ...] = ()
        self._process: Process | None = None
        self._tether: int | None = None
        self._reading: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._last: deque[str] = deque(maxlen=_LAST)
        self._ending = False

    def __repr__(self) -> str:
        return f"<Keeper of {self._program}, pid {self._process.pid if self._process else None}>"

    async def start(self) -> None:
        """Return when it serves; StateError when it does not."""
        try:
            await self._begin()
        except BaseException:
            self._kill()
            raise
        self._keeping = asyncio.create_task(self._keep())

    async def change(self, *, wildcard: Pem | None = None, dropped: tuple[str, ...] | None = None) -> None:
        """Serve the own names with this certificate, and no connections to these names; StateError when it cannot."""
        self._wildcard = wildcard or self._wildcard
        self._dropped = self._dropped if dropped is None else dropped
        with contextlib.suppress(OSError):  # it has just ended: the next one begins with this
            await self._load()

    def drain(self) -> None:
        """Have it take no more connections, and end when all requests have ended."""
        self._ending = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    async def close(self) -> None:
        """End it; the ingress has closed."""
        self.drain()
        if self._process is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), END_TIMEOUT)
        if self._keeping is not None:
            self._keeping.cancel()
        self._kill()
        if self._process is not None:
            await self._process.wait()

    # -- inside ---------------------------------------------------------------------------------------------------
    async def _keep(self) -> None:
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        while True:
            assert self._process is not None
            status = await self._process.wait()
            if self._ending:
                return
            log.error("Caddy has ended (%s); there is no HTTPS until it runs again", _status(status))
            backoff.failed(loop.time())
            while True:
                self._kill()
                await asyncio.sleep(backoff.remaining(loop.time()))
                try:
                    await self._begin()
                except (StateError, OSError) as error:
                    log.error("Caddy does not start: %s", error)
                    backoff.failed(loop.time())
                else:
                    log.info("Caddy runs again")
                    break

    async def _begin(self) -> None:
        self._plan.admin.unlink(missing_ok=True)
        self._plan.storage.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._last.clear()
        self._process = process = await self._spawn()
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended, and is about to be missed
            process.stdin.write(msgspec.json.encode(bare(self._plan)))
            process.stdin.write_eof()
        self._reading = asyncio.create_task(self._read(process))
        await self._wait_for_socket(process)
        await self._load()

    async def _spawn(self) -> Process:
        ours = {"XDG_DATA_HOME": str(self._plan.storage), "XDG_CONFIG_HOME": str(self._plan.storage)}
        theirs, self._tether = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(self._program, "run", "--config", "-"),
                env=os.environ | ours,
                stdin=PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=PIPE,
                pass_fds=(theirs,),
                limit=_LINE,
                start_new_session=True,
            )
            tie(theirs, process.pid)
        except OSError as error:
            raise StateError(f"Caddy cannot be run: {error}.") from None
        finally:
            os.close(theirs)
        return process

    async def _wait_for_socket(self, process: Process) -> None:
        until = asyncio.get_running_loop().time() + START_TIMEOUT
        while not self._plan.admin.exists():
            if process.returncode is not None or asyncio.get_running_loop().time() > until:
                if self._reading is not None and process.returncode is not None:
                    await self._reading
                raise StateError("Caddy does not start.", detail="\n".join(self._last) or None)
            await asyncio.sleep(_PAUSE)

    async def _load(self) -> None:
        async with self._changing:
            await admin.load(self._plan.admin, document(self._plan, self._wildcard, self._dropped))

    async def _read(self, process: Process) -> None:
        assert process.stderr is not None
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:
                continue  # longer than any that is of interest
            if not line:
                return
            self._hear(read(line))

    def _hear(self, entry: Entry) -> None:
        self._last.append(entry.text)
        log.log(entry.severity, "%s", entry.text)
        if (news := entry.news) is not None:
            self._on_news(news)

    def _kill(self) -> None:
        if self._tether is not None:
            os.close(self._tether)  # that is its end
            self._tether = None


def tie(descriptor: int, pid: int) -> None:
    """The kernel kills the process when the other end of this pipe closes: when we end, however that comes about.

    descriptor: the read end, which the process has too.
    """
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, pid)
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)


def _status(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"code {code}"
