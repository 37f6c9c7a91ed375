"""A real ingress on a real port, in front of a scripted container on a real Unix socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from portico.ingress import pages
from portico.ingress.door import Ingress
from portico.ingress.ports import Lease, Refusal, Route, Waiter

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RecordedLease:
    """A lease that writes down what becomes of it."""

    def __init__(self, address: str, ends: asyncio.Queue[str], *, is_foreign: bool) -> None:
        self.address = address
        self.is_foreign = is_foreign
        self.overran = False
        self.queued = 0
        self.takes_connections = False
        self.stopping = False
        self.handed_over: list[tuple[int, bytes]] = []
        self._ends = ends

    def release(self) -> None:
        self._ends.put_nowait("release")

    def hold(self) -> None:
        self._ends.put_nowait("hold")

    def hand_over(self, descriptor: int, head: bytes) -> None:
        self.handed_over.append((descriptor, head))
        self._ends.put_nowait("hand over")

    def cancel(self) -> None:
        self._ends.put_nowait("cancel")

    def broken(self) -> None:
        self._ends.put_nowait("broken")


class Scripted:
    """An endpoint whose slots are given out by the test, or at once while `open`."""

    def __init__(self, address: Path) -> None:
        self.address = str(address)
        self.open = True
        self.is_foreign = False
        self.takes_connections = False
        self.stopping = False
        self.handed_over: list[tuple[int, bytes]] = []
        self.refusal: Refusal | None = None
        self.waiters: list[Waiter] = []
        self.ends: asyncio.Queue[str] = asyncio.Queue()
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()

    def new_lease(self) -> Lease:
        lease = RecordedLease(self.address, self.ends, is_foreign=self.is_foreign)
        lease.takes_connections, lease.handed_over = self.takes_connections, self.handed_over
        lease.stopping = self.stopping
        return lease

    def lease(self, waiter: Waiter, input_id: str) -> Lease | Refusal | None:
        if self.refusal is not None:
            return self.refusal
        if self.open:
            return self.new_lease()
        self.waiters.append(waiter)
        self.arrived.set()
        return None

    def leave(self, waiter: Waiter) -> None:
        self.waiters.remove(waiter)
        self.left.set()


class Client:
    """A raw connection to the ingress."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def response(self) -> tuple[bytes, bytes]:
        """Head and body of a response with a Content-Length."""
        head = await self.head()
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        return head, await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        return await self.reader.read()


class House:
    """The ingress, the endpoint behind its only host `app.test`, and the container's script."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = Scripted(folder / "c.sock")
        self.ingress = Ingress(self, asyncio.get_running_loop())
        self.route: Route | None = None  # where the test brings its own
        self.port = 0
        self._servers: list[asyncio.AbstractServer] = []
        self._writers: list[asyncio.StreamWriter] = []

    def find(self, host: str) -> Route | Refusal:
        return self.route or Route(self.endpoint) if host == "app.test" else pages.INVALID_CALL

    async def start(self) -> None:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        await self.ingress.listen(sock)

    async def container(self, script: Script) -> None:
        """Serve each connection from the ingress with this script."""
        self._servers.append(await asyncio.start_unix_server(script, self.endpoint.address))

    async def program(self, script: Script) -> None:
        """Serve them as a program of the user's own would, on a TCP port."""
        server = await asyncio.start_server(script, "127.0.0.1", 0)
        self._servers.append(server)
        self.endpoint.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self.endpoint.is_foreign = True

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        self._writers.append(writer)
        return Client(reader, writer)

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        await self.ingress.close(grace=0.1)
        for server in self._servers:
            server.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """The ingress with its endpoint; the test brings the container."""
    house = House(tmp_path)
    await house.start()
    yield house
    await house.close()


def answering(*responses: bytes, requests: list[bytes] | None = None) -> Script:
    """A container that reads a whole request (by its Content-Length or chunks), answers, and does so again."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for response in responses:
            try:
                request = await read_request(reader)
            except asyncio.IncompleteReadError:
                break
            if requests is not None:
                requests.append(request)
            writer.write(response)
            await writer.drain()
        await reader.read()
        writer.close()

    return script


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body, as it stands on the wire."""
    head = await reader.readuntil(b"\r\n\r\n")
    body = b""
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        while not body.endswith(b"0\r\n\r\n"):
            body += await reader.readuntil(b"\r\n")
    elif b"content-length:" in lower:
        length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
    return head + body
