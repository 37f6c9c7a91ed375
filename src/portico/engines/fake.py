"""An engine whose containers are no processes but do what a test says: the double of `ProcessEngine`.

By itself it behaves like an engine whose containers all work: they become ready, stop when they are told to, and
answer `cancel`. With a handler they serve HTTP at their addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from portico.model.ports import BuiltImage, ContainerEvents, ContainerStart, StartFailure

KILLED = "signal 9 (SIGKILL)"


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """A request, as a container gets it. Header names are in lower case."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class FakeResponse:
    """What a container answers."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[FakeRequest], Awaitable[FakeResponse]]


class FakeEngine:
    """See `model.ports.Engine`.

    run_dir: where sockets go. handler: answers requests; without one nothing listens. manual: containers do nothing
    until the test says `become_ready` or `fail`. `failing` has the functions whose containers fail, and why.
    """

    def __init__(self, run_dir: Path, handler: Handler | None = None, *, manual: bool = False) -> None:
        self.containers: list[FakeContainer] = []  # all that were ever started, in that order
        self.warmed: list[str] = []  # image keys
        self.kept: frozenset[str] = frozenset()
        self.dismissed: list[str] = []  # snapshots
        self.failing: dict[str, StartFailure] = {}
        self._run_dir = run_dir
        self._handler = handler
        self._manual = manual
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, start: ContainerStart, events: ContainerEvents) -> FakeContainer:
        """See `model.ports.Engine`."""
        container = FakeContainer(start, str(self._run_dir / f"{start.container_id}.sock"), events, self._handler)
        self.containers.append(container)
        failure = StartFailure("The server is ending.") if self._closed else self.failing.get(start.function.name)
        if failure is not None:
            asyncio.get_running_loop().call_soon(container.fail, failure)
        elif not self._manual:
            task = asyncio.get_running_loop().create_task(container.become_ready())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return container

    async def warm(self, image: BuiltImage) -> None:
        """See `model.ports.Engine`."""
        self.warmed.append(image.key)

    def keep(self, keys: Collection[str]) -> None:
        """See `model.ports.Engine`."""
        self.kept = frozenset(keys)

    def dismiss(self, snapshot: str) -> None:
        """See `model.ports.Engine`."""
        self.dismissed.append(snapshot)

    async def close(self) -> None:
        """See `model.ports.Engine`."""
        self._closed = True
        for container in self.containers:
            container.kill()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    @property
    def living(self) -> list[FakeContainer]:
        """The containers that have not exited."""
        return [container for container in self.containers if not container.gone]


class FakeContainer:
    """See `model.ports.Container`. `cancelled`, `stopped` and `killed` record what it was asked."""

    def __init__(self, start: ContainerStart, address: str, events: ContainerEvents, handler: Handler | None) -> None:
        self.id = start.container_id
        self.address = address
        self.takes_connections = False
        self.start = start
        self.gone = False
        self.cancelled: list[str] = []
        self.stopped: float | None = None
        self.killed = False
        self.overran = False
        self.was_killed = False
        self._events = events
        self._handler = handler
        self._ready = False
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._running = 0

    def __repr__(self) -> str:
        state = "gone" if self.gone else "ready" if self._ready else "starting"
        return f"<FakeContainer {self.id} {self.start.function.name} {state}>"

    # -- what the pool and the supervisor ask of it -------------------------------------------------------------------
    def hand_over(self, input_id: str, descriptor: int, head: bytes) -> None:
        """See `model.ports.Container`."""
        os.close(descriptor)

    def cancel(self, input_id: str) -> None:
        """See `model.ports.Container`. It has no such input: it answers at once."""
        self.cancelled.append(input_id)
        asyncio.get_running_loop().call_soon(self.finish, input_id)

    def stop(self, grace: float) -> None:
        """See `model.ports.Container`."""
        self.stopped = grace
        if not self._ready:
            self.kill()
        elif self._running == 0:
            self._exit_soon("exit code 0")
        else:
            asyncio.get_running_loop().call_later(grace, self.kill)

    def kill(self) -> None:
        """See `model.ports.Container`."""
        self.killed = True
        self._exit_soon(KILLED)

    # -- what a test makes of it --------------------------------------------------------------------------------------
    async def become_ready(self) -> None:
        """Listen, if there is a handler, and report it."""
        if self._handler is not None:
            self._server = await asyncio.start_unix_server(self._converse, self.address)
        if self.gone or self.killed:
            self._close()
            return
        self._ready = True
        self._events.ready(self)

    def fail(self, failure: StartFailure) -> None:
        """Report a failed start, and exit."""
        if not self.gone:
            self._events.failed(self, failure)
            self.exit("exit code 1")

    def finish(self, input_id: str) -> None:
        """Report the end of an input."""
        if not self.gone:
            self._events.finished(self, input_id)

    def exit(self, status: str) -> None:
        """Be gone; connections break."""
        if self.gone:
            return
        self.gone = True
        self._close()
        self._events.exited(self, status)

    # -- inside -------------------------------------------------------------------------------------------------------
    def _exit_soon(self, status: str) -> None:
        asyncio.get_running_loop().call_soon(self.exit, status)

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            with contextlib.suppress(FileNotFoundError):
                Path(self.address).unlink()
        for connection in self._connections:
            connection.cancel()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            while request := await _read(reader):
                writer.write(_encode(await self._answer(request)))
                await writer.drain()
                if self.stopped is not None and self._running == 0:
                    self._exit_soon("exit code 0")
                if ("connection", "close") in request.headers:
                    break
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._connections.discard(connection)
            writer.close()

    async def _answer(self, request: FakeRequest) -> FakeResponse:
        assert self._handler is not None
        self._running += 1
        try:
            return await self._handler(request)
        finally:
            self._running -= 1


async def _read(reader: asyncio.StreamReader) -> FakeRequest | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = int(dict(headers).get("content-length", "0"))
    return FakeRequest(method, target, headers, await reader.readexactly(length))


def _encode(response: FakeResponse) -> bytes:
    headers = (*response.headers, ("content-length", str(len(response.body))))
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + response.body
