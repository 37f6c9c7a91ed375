"""A WSGI app, served as in a container, and connections to it that speak bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from portico.model.spec import Concurrency, FunctionSpec, WebKind, WebSpec
from portico.runtime import serve, web
from portico.wire.container import Cancel, Stop

WsgiFunction = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Connection:
    """A client's connection; what has come and was not looked at yet is in `received`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = b""

    def send(self, data: bytes) -> None:
        """These bytes, as they are."""
        self.writer.write(data)

    async def until(self, text: bytes) -> bytes:
        """All up to and including this."""
        while text not in self.received:
            data = await self.reader.read(65536)
            assert data, f"it ended without {text!r}: {self.received!r}"
            self.received += data
        before, _, self.received = self.received.partition(text)
        return before + text

    async def exactly(self, size: int) -> bytes:
        """So many bytes."""
        while len(self.received) < size:
            data = await self.reader.read(65536)
            assert data, f"it ended early: {self.received!r}"
            self.received += data
        wanted, self.received = self.received[:size], self.received[size:]
        return wanted

    async def rest(self) -> bytes:
        """All to the end of the connection."""
        while data := await self.reader.read(65536):
            self.received += data
        return self.received

    def leave(self) -> None:
        """Break the connection."""
        self.writer.transport.abort()


class Served:
    """The container's server."""

    def __init__(self, app: WsgiFunction, path: Path, threads: int) -> None:
        self.done: asyncio.Queue[str] = asyncio.Queue()
        spec = FunctionSpec(
            name="f",
            module="m",
            qualname="f",
            web=WebSpec(kind=WebKind.WSGI_APP),
            concurrency=Concurrency(max_inputs=threads),
        )
        self._path = str(path)
        self._server = serve.Server(
            {"": web.build(spec, lambda: app)},
            self._path,
            max_inputs=threads,
            done=self.done.put_nowait,
            explain=lambda error: (f"{type(error).__name__}: {error}", "TRACE"),
        )
        self._connections: list[Connection] = []

    async def connect(self, data: bytes = b"") -> Connection:
        """A connection on which this was sent."""
        connection = Connection(*await asyncio.open_unix_connection(self._path))
        self._connections.append(connection)
        connection.send(data)
        return connection

    async def ask(self, method: str = "GET", path: str = "/", *headers: str, body: bytes = b"") -> tuple[bytes, bytes]:
        """The head and the body, as they are on the wire, of the answer to one request."""
        connection = await self.connect(request(method, path, "connection: close", *headers) + body)
        head, _, rest = (await connection.rest()).partition(b"\r\n\r\n")
        return head, rest

    def cancel(self, input_id: str) -> None:
        """As the server does, when nobody waits for this input any more."""
        self._server.obey(Cancel(input_id))

    async def run(self, ready: asyncio.Event) -> None:
        await self._server.run(ready.set)

    def stop(self) -> None:
        for connection in self._connections:
            connection.leave()
        self._server.obey(Stop(0.0))


def request(method: str = "GET", path: str = "/", *headers: str, input_id: str = "in-1") -> bytes:
    """The head of a request, as the ingress writes it."""
    lines = [f"{method} {path} HTTP/1.1", f"x-portico-input: {input_id} 203.0.113.9 4711 https", "host: x.test:8443"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1")


@asynccontextmanager
async def serving(app: WsgiFunction, folder: Path, *, threads: int = 1) -> AsyncIterator[Served]:
    """A container that serves this app in so many threads."""
    served = Served(app, folder / "socket", threads)
    ready = asyncio.Event()
    running = asyncio.create_task(served.run(ready))
    await ready.wait()
    try:
        yield served
    finally:
        served.stop()
        await running
