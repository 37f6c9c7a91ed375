"""Connections that go on in another ingress process: two ingresses, with an endpoint and a container each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from portico.ingress import pages
from portico.ingress.door import Ingress
from portico.ingress.moving import MOST_HOPS, Passenger
from portico.ingress.ports import Refusal, Route, Waiter
from portico.server.away import Elsewhere
from portico.server.endpoint import Gate
from tests.unit.ingress.conftest import Client, Scripted, read_request

HOSTS = {"zero.test": 0, "one.test": 1}


class Half:
    """One process: its ingress, its endpoint, and what its container was asked."""

    def __init__(self, town: Town, number: int, folder: Path) -> None:
        self.number = number
        self.endpoint = Scripted(folder / f"{number}.sock")
        self.ingress = Ingress(self, asyncio.get_running_loop())
        self.ingress.mover = town.move
        self.requests: list[bytes] = []
        self.came = 0  # connections, from the other one
        self.gate: Gate | None = None

    def find(self, host: str) -> Route | Refusal:
        if host not in HOSTS:
            return pages.INVALID_CALL
        if self.gate is not None:
            return Route(self.gate)
        return Route(self.endpoint if HOSTS[host] == self.number else Elsewhere(HOSTS[host]))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Its container answers with its number, and with what it was asked for."""
        while True:
            try:
                request = await read_request(reader)
            except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                break
            self.requests.append(request)
            target = request.split(b" ", 2)[1]
            body = b"%d %b" % (self.number, target)
            if target.startswith(b"/large"):
                body = bytes(60_000)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()


class Town:
    """Both, and who brings connections from one to the other. Clients come to the first one."""

    def __init__(self, folder: Path) -> None:
        self.halves = [Half(self, number, folder) for number in range(2)]
        self.port = 0
        self._servers: list[asyncio.AbstractServer] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def move(self, leaving: Passenger, process: int) -> None:
        half = self.halves[process]
        half.came += 1
        task = asyncio.ensure_future(half.ingress.adopt(leaving))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def start(self) -> None:
        for half in self.halves:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sock.bind(("127.0.0.1", 0))
            self.port = self.port or sock.getsockname()[1]
            await half.ingress.listen(sock)
            self._servers.append(await asyncio.start_unix_server(half.serve, half.endpoint.address))

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        self._writers.append(writer)
        return Client(reader, writer)

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        for half in self.halves:
            await half.ingress.close(grace=0.1)
        for server in self._servers:
            server.close()


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    """Two ingress processes in one."""
    town = Town(tmp_path)
    await town.start()
    yield town
    await town.close()


def request(host: int, target: str = "/", body: bytes | None = None) -> bytes:
    """A request for an endpoint of that process."""
    name = next(name for name, process in HOSTS.items() if process == host)
    head = f"{'GET' if body is None else 'POST'} {target} HTTP/1.1\r\nhost: {name}\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def test_a_connection_goes_where_its_request_belongs(town: Town) -> None:
    """With the client's address."""
    client = await town.connect()
    await client.send(request(1, "/x"))
    assert (await client.response())[1] == b"1 /x"
    address = client.writer.get_extra_info("sockname")
    assert f" {address[0]} {address[1]} http".encode() in town.halves[1].requests[0]
    assert not town.halves[0].requests


async def test_it_goes_back_and_forth_with_its_requests(town: Town) -> None:
    """As often as they alternate; those that belong where it is move nothing."""
    client = await town.connect()
    for turn in range(10):
        for number in (1, 1, 0, 0):
            await client.send(request(number, f"/{turn}", b"body" if turn % 2 else None))
            assert (await client.response())[1] == b"%d /%d" % (number, turn)
    assert [half.came for half in town.halves] == [10, 10]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_a_request_that_is_cut_anywhere_arrives_whole(town: Town, chunked: bool) -> None:
    """Whatever had come when it was known where it belongs."""
    whole = request(1, "/cut", b"a body\r\n\r\nwith lines")
    if chunked:
        whole = whole.replace(b"content-length: 20", b"transfer-encoding: chunked")
        whole = whole.replace(b"a body\r\n\r\nwith lines", b"6\r\na body\r\ne\r\n\r\n\r\nwith lines\r\n0\r\n\r\n")
    client = await town.connect()
    for cut in range(1, len(whole)):
        await client.send(request(0))
        assert (await client.response())[1] == b"0 /"
        await client.send(whole[:cut])
        await asyncio.sleep(0.001)  # the rest comes by itself, wherever the connection is then
        await client.send(whole[cut:])
        assert (await client.response())[1] == b"1 /cut"
    bodies = {request.partition(b"\r\n\r\n")[2] for request in town.halves[1].requests}
    assert len(town.halves[1].requests) == len(whole) - 1
    assert bodies == {whole.partition(b"\r\n\r\n")[2]} or chunked  # pieces are framed anew


async def test_what_stands_behind_a_request_goes_with_it(town: Town) -> None:
    """Several requests in one piece, for the same process."""
    client = await town.connect()
    await client.send(request(1, "/1") + request(1, "/2", b"two") + request(1, "/3"))
    assert [(await client.response())[1] for _ in range(3)] == [b"1 /1", b"1 /2", b"1 /3"]


async def test_a_request_behind_one_that_runs_is_refused_when_it_belongs_elsewhere(town: Town) -> None:
    """Nothing was done for it, says 421; what came before is answered, and the connection ends."""
    client = await town.connect()
    await client.send(request(0, "/1") + request(0, "/2") + request(1, "/3") + request(0, "/4"))
    assert [(await client.response())[1] for _ in range(2)] == [b"0 /1", b"0 /2"]
    head, _ = await client.response()
    assert head.startswith(b"HTTP/1.1 421 ")
    assert b"connection: close" in head
    assert await client.rest() == b""
    assert not town.halves[1].requests


async def test_a_connection_moves_when_the_answers_before_are_out(town: Town) -> None:
    """However late its client reads them: what the kernel does not take waits here, and the connection with it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", town.port))
    client = Client(*await asyncio.open_connection(sock=sock, limit=1024))
    await client.send(request(0, "/large"))
    assert b"content-length: 60000" in await client.head()
    (connection,) = town.halves[0].ingress._connections
    while connection._current is not None:
        await asyncio.sleep(0)
    assert not connection.is_flushed
    await client.send(request(1, "/next"))
    while connection._current is None:
        await asyncio.sleep(0)
    assert not town.halves[1].came
    assert await client.reader.readexactly(60_000) == bytes(60_000)
    assert (await client.response())[1] == b"1 /next"
    assert town.halves[1].came == 1
    client.writer.close()


async def test_a_request_that_has_waited_goes_with_all_that_came_meanwhile(town: Town) -> None:
    """It was not known yet where its host leads."""
    first = town.halves[0]
    gate = first.gate = Gate()
    client = await town.connect()
    whole = request(1, "/waited", bytes(30_000))
    for start in range(0, len(whole), 7000):
        await client.send(whole[start : start + 7000])
        await asyncio.sleep(0.002)
    first.gate = None
    first.ingress.routes_changed()
    gate.open(first.find("one.test"))
    assert (await client.response())[1] == b"1 /waited"
    assert town.halves[1].requests[0].endswith(b"\r\n\r\n" + bytes(30_000))


async def test_a_request_that_nobody_has_is_not_sent_about_for_ever(town: Town) -> None:
    """Each takes the other one for its home."""
    first, second = town.halves
    first.find = lambda host: Route(Elsewhere(1))  # type: ignore[method-assign]
    second.find = lambda host: Route(Elsewhere(0))  # type: ignore[method-assign]
    client = await town.connect()
    await client.send(request(1))
    assert (await client.head()).startswith(b"HTTP/1.1 503 ")
    assert first.came + second.came == MOST_HOPS


async def test_a_client_that_has_left_is_not_missed(town: Town) -> None:
    """Its connection ends in the process that got it."""
    client = await town.connect()
    town.halves[1].endpoint.open = False
    await client.send(request(1))
    await town.halves[1].endpoint.arrived.wait()
    client.writer.close()
    await town.halves[1].endpoint.left.wait()
    waiters: list[Waiter] = town.halves[1].endpoint.waiters
    assert not waiters


async def test_while_a_process_ends_a_request_that_comes_is_answered(town: Town) -> None:
    """And is the last of its connection."""
    town.halves[1].ingress.refuse()
    client = await town.connect()
    await client.send(request(1, "/last"))
    head, body = await client.response()
    assert body == b"1 /last"
    assert b"connection: close" in head
    assert await client.rest() == b""
