"""Long requests whose clients are sent to the URL of a result: what they get there, and what becomes of slots."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable

import pytest

from portico.ingress import redirect
from portico.ingress.ports import Refusal, Route
from portico.ingress.redirect import KEPT, WINDOW
from tests.unit.ingress.conftest import Client, House, read_request

AFTER = 150.0
POST = b"POST /a/b?c=d HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello"
OK = b"HTTP/1.1 201 Created\r\nx-mine: yes\r\ncontent-length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n"


class Container:
    """One connection, in the hands of the test: it answers when it is told what."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[bytes] = asyncio.Queue()
        self.left = asyncio.Event()
        self.writer: asyncio.StreamWriter | None = None

    async def script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        try:
            while True:
                self.requests.put_nowait(await read_request(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
            writer.close()

    def says(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)

    def dies(self) -> None:
        assert self.writer is not None
        self.writer.close()


class Scene:
    """The house with redirects, its clock, and its container."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.container = Container()
        self.now = 1000.0
        house.ingress.now = lambda: self.now
        house.route = Route(house.endpoint, redirect_after=AFTER)

    def pass_time(self, seconds: float = AFTER + 2) -> None:
        self.now += seconds
        self.house.ingress._tick()

    async def ask(self, request: bytes = POST) -> Client:
        """A client whose request the container has."""
        client = await self.house.connect()
        await client.send(request)
        await self.container.requests.get()
        return client

    async def sent_away(self, request: bytes = POST) -> bytes:
        """The path of the result of a request whose client is gone."""
        client = await self.ask(request)
        self.pass_time()
        path = path_of(await client.head())
        client.writer.close()
        return path

    async def fetch(self, path: bytes, version: bytes = b"1.1") -> Client:
        """A client that has come for the answer."""
        client = await self.house.connect()
        await client.send(b"GET %b HTTP/%b\r\nHost: app.test\r\n\r\n" % (path, version))
        return client

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when the ingress has come so far."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    async def waits(self, path: bytes) -> Client:
        """A client that waits for the answer, so far as the ingress is concerned."""
        (result,) = self.house.ingress.results._results.values()
        before = result.exchange.client
        client = await self.fetch(path)
        await self.until(lambda: result.exchange.client not in (result, before))
        return client

    async def no_client(self) -> None:
        """Return when the ingress knows that nobody is there."""
        (result,) = self.house.ingress.results._results.values()
        await self.until(lambda: result.exchange.client is result)


def path_of(head: bytes) -> bytes:
    """Where this redirection leads."""
    assert head.startswith(b"HTTP/1.1 303 See Other\r\n")
    assert b"\r\ncontent-length: 0\r\n" in head
    found = re.search(rb"\r\nlocation: http://app\.test(/\S+)\r\n", head)
    assert found is not None
    return found[1]


@pytest.fixture
async def scene(house: House) -> Scene:
    scene = Scene(house)
    await house.container(scene.container.script)
    return scene


async def test_a_long_request_is_answered_at_the_url_of_its_result(scene: Scene) -> None:
    """303 until the answer is there, which comes as the function gave it; the function runs once."""
    client = await scene.ask()
    scene.pass_time()
    path = path_of(await client.head())
    assert re.fullmatch(rb"/a/b\?__modal_function_call_id=fc-[0-9A-Z]{26}", path)
    for _ in range(2):
        client = await scene.waits(path)
        scene.pass_time()
        assert path_of(await client.head()) == path
    client = await scene.waits(path)
    scene.container.says(OK)
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 201 Created\r\nx-mine: yes\r\n")
    assert body == b"ok"
    assert await scene.house.endpoint.ends.get() == "release"
    assert scene.container.requests.empty()


async def test_the_same_connection_may_fetch_the_answer(scene: Scene) -> None:
    """It stays open, before and after."""
    client = await scene.ask()
    scene.pass_time()
    path = path_of(await client.head())
    await client.send(b"GET %b HTTP/1.1\r\nHost: app.test\r\n\r\n" % path)
    scene.container.says(OK)
    assert (await client.response())[1] == b"ok"
    await client.send(POST)
    await scene.container.requests.get()
    scene.container.says(OK)
    assert (await client.response())[1] == b"ok"


async def test_an_answer_waits_for_its_client(scene: Scene) -> None:
    """The slot is free meanwhile; who fetches the answer gets all of it at once."""
    path = await scene.sent_away()
    scene.container.says(OK)
    assert await scene.house.endpoint.ends.get() == "release"
    scene.pass_time(KEPT - 10)
    head, body = await (await scene.fetch(path)).response()
    assert (head[:13], body) == (b"HTTP/1.1 201 ", b"ok")
    assert repr(scene.house.ingress.results) == "<Results 0>"


async def test_an_answer_that_nobody_fetches_is_dropped(scene: Scene) -> None:
    """After an hour; its URL leads to the endpoint then, like any other."""
    path = await scene.sent_away()
    scene.container.says(OK)
    assert await scene.house.endpoint.ends.get() == "release"
    scene.pass_time(KEPT + 2)
    assert repr(scene.house.ingress.results) == "<Results 0>"
    await scene.fetch(path)
    assert (await scene.container.requests.get()).startswith(b"GET " + path)


async def test_an_input_goes_on_without_a_client(scene: Scene) -> None:
    """However long it takes: it is the function's timeout that ends it. So its answer is fetched hours later."""
    path = await scene.sent_away()
    for _ in range(3):
        scene.pass_time(KEPT + 2)
    client = await scene.waits(path)
    client.writer.close()
    await scene.no_client()
    scene.container.says(OK)
    assert (await (await scene.fetch(path)).response())[1] == b"ok"
    assert await scene.house.endpoint.ends.get() == "release"


async def test_an_answer_that_is_read_in_part_ends_with_its_time(scene: Scene) -> None:
    """A container that waits with the rest is not left waiting."""
    await scene.sent_away()
    scene.container.says(STREAM)
    (result,) = scene.house.ingress.results._results.values()
    await scene.until(lambda: result._size == 2)
    scene.pass_time(KEPT + 2)
    await scene.container.left.wait()
    assert await scene.house.endpoint.ends.get() == "cancel"


async def test_a_long_answer_waits_in_the_container(scene: Scene) -> None:
    """The ingress keeps a part of it; the client gets all of it."""
    path = await scene.sent_away()
    size = 32 * 2**20
    assert scene.container.writer is not None
    scene.container.says(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
    (result,) = scene.house.ingress.results._results.values()
    writing = asyncio.create_task(write_much(scene.container, size))
    await scene.until(lambda: result._size > WINDOW)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert result._size < WINDOW + 2**20
    client = await scene.fetch(path)
    await client.head()
    assert len(await client.reader.readexactly(size)) == size
    await writing
    assert await scene.house.endpoint.ends.get() == "release"


async def write_much(container: Container, size: int) -> None:
    assert container.writer is not None
    for _ in range(size >> 16):
        container.says(b"x" * 2**16)
        await container.writer.drain()


async def test_an_answer_is_framed_for_who_fetches_it(scene: Scene) -> None:
    """A stream that began unheard has no chunks for HTTP/1.0."""
    path = await scene.sent_away()
    scene.container.says(STREAM)
    (result,) = scene.house.ingress.results._results.values()
    await scene.until(lambda: result._size == 2)
    client = await scene.fetch(path, b"1.0")
    head = await client.head()
    assert b"transfer-encoding" not in head
    scene.container.says(b"2\r\ncd\r\n0\r\n\r\n")
    assert await client.rest() == b"abcd"


async def test_of_two_clients_the_newer_one_waits(scene: Scene) -> None:
    """The other is sent away at once."""
    path = await scene.sent_away()
    first = await scene.waits(path)
    second = await scene.waits(path)
    assert path_of(await first.head()) == path
    scene.container.says(OK)
    assert (await second.response())[1] == b"ok"


@pytest.mark.parametrize("method", [b"POST", b"HEAD", b"DELETE"])
async def test_results_are_fetched_with_get(scene: Scene, method: bytes) -> None:
    """Another method changes nothing."""
    path = await scene.sent_away()
    client = await scene.house.connect()
    await client.send(b"%b %b HTTP/1.1\r\nHost: app.test\r\n\r\n" % (method, path))
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 400 ")
    if method != b"HEAD":
        assert await client.reader.readline() == b"modal-http: bad redirect method\n"
    scene.container.says(OK)
    assert (await (await scene.fetch(path)).response())[1] == b"ok"


async def test_who_fetches_passes_the_steps_of_the_route(scene: Scene) -> None:
    """A result is as well protected as its endpoint."""
    path = await scene.sent_away()
    refusal = Refusal(401, "no")
    scene.house.route = Route(scene.house.endpoint, (lambda head, now: refusal,), redirect_after=AFTER)
    scene.house.ingress.routes_changed()
    assert (await (await scene.fetch(path)).head()).startswith(b"HTTP/1.1 401 ")


async def test_a_failure_is_told_at_the_results_url(scene: Scene) -> None:
    """Like any answer, once: here a container that ended."""
    path = await scene.sent_away()
    scene.container.dies()
    assert await scene.house.endpoint.ends.get() == "broken"
    head, body = await (await scene.fetch(path)).response()
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"the container ended before it answered" in body


async def test_an_answer_that_was_cut_short_does_not_look_whole(scene: Scene) -> None:
    """Also when it was cut before it was fetched."""
    path = await scene.sent_away()
    scene.container.says(STREAM)
    (result,) = scene.house.ingress.results._results.values()
    await scene.until(lambda: result._size == 2)
    scene.container.dies()
    assert await scene.house.endpoint.ends.get() == "cancel"
    client = await scene.fetch(path)
    with contextlib.suppress(ConnectionResetError):
        assert not (await client.rest()).endswith(b"0\r\n\r\n")


async def test_who_waits_in_the_queue_is_redirected_too(scene: Scene) -> None:
    """Its place stays."""
    endpoint = scene.house.endpoint
    endpoint.open = False
    client = await scene.house.connect()
    await client.send(POST)
    await endpoint.arrived.wait()
    scene.pass_time()
    path = path_of(await client.head())
    (waiter,) = endpoint.waiters
    waiter.granted(endpoint.new_lease())
    assert (await scene.container.requests.get()).endswith(b"hello")
    scene.container.says(OK)
    assert (await (await scene.fetch(path)).response())[1] == b"ok"


async def test_an_input_that_runs_for_too_long_ends_without_its_client(scene: Scene) -> None:
    """The function's timeout holds, and is what the result says."""
    endpoint = scene.house.endpoint
    endpoint.open = False
    client = await scene.house.connect()
    await client.send(POST)
    await endpoint.arrived.wait()
    (waiter,) = endpoint.waiters
    waiter.granted(endpoint.new_lease())
    await scene.container.requests.get()
    scene.pass_time()
    path = path_of(await client.head())
    waiter.timed_out()
    assert await endpoint.ends.get() == "cancel"
    head, body = await (await scene.fetch(path)).response()
    assert head.startswith(b"HTTP/1.1 500 ")
    assert b"function execution timed out" in body


async def test_an_answer_that_has_begun_is_never_redirected(scene: Scene) -> None:
    """It streams for as long as it likes."""
    client = await scene.ask()
    scene.container.says(STREAM)
    await client.head()
    assert await client.reader.readexactly(7) == b"2\r\nab\r\n"
    for _ in range(3):
        scene.pass_time()
    scene.container.says(b"2\r\ncd\r\n0\r\n\r\n")
    assert await client.reader.readexactly(12) == b"2\r\ncd\r\n0\r\n\r\n"
    assert await scene.house.endpoint.ends.get() == "release"


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS"])
async def test_some_methods_are_held_open(scene: Scene, method: bytes) -> None:
    """A GET would not bring what they ask for."""
    client = await scene.ask(b"%b / HTTP/1.1\r\nHost: app.test\r\n\r\n" % method)
    scene.pass_time()
    scene.container.says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    assert (await client.head()).startswith(b"HTTP/1.1 200 ")


async def test_a_request_comes_in_whole_before_it_is_redirected(scene: Scene) -> None:
    """However long that takes."""
    client = await scene.house.connect()
    await client.send(POST[:-4])
    (connection,) = await connections(scene)
    for size in range(1, 5):
        await scene.until(lambda size=size: connection._current is not None and connection._current.body_size == size)
        scene.pass_time(AFTER / 3)
        await client.send(POST[size - 5 : size - 4 or None])
    assert (await scene.container.requests.get()).endswith(b"hello")
    scene.pass_time()
    assert b"fc-" in path_of(await client.head())


async def connections(scene: Scene) -> list:
    """The ingress's connections, as soon as there is one."""
    await scene.until(lambda: bool(scene.house.ingress._connections))
    return list(scene.house.ingress._connections)


async def test_a_pipelined_request_has_a_time_of_its_own(scene: Scene) -> None:
    """The one before it is redirected; the next begins then."""
    client = await scene.ask(POST + POST)
    first = scene.container.writer
    assert first is not None
    scene.pass_time()
    path = path_of(await client.head())
    first.write(OK)  # the second has a connection of its own
    assert (await (await scene.fetch(path)).response())[1] == b"ok"
    await scene.container.requests.get()
    scene.container.says(OK)
    assert (await client.response())[1] == b"ok"


async def test_past_the_bound_requests_are_held_open(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were no redirects."""
    monkeypatch.setattr(redirect, "MOST", 1)
    await scene.sent_away()
    scene.container.writer = None
    client = await scene.ask()
    scene.pass_time()
    scene.container.says(OK)
    assert (await client.head()).startswith(b"HTTP/1.1 201 ")


async def test_without_the_option_requests_are_held_open(scene: Scene) -> None:
    """The default."""
    scene.house.route = None
    client = await scene.ask()
    for _ in range(3):
        scene.pass_time()
    scene.container.says(OK)
    assert (await client.response())[1] == b"ok"


async def test_a_server_that_ends_redirects_nobody(scene: Scene) -> None:
    """Who waits is held; slots whose clients were sent away are given back."""
    await scene.sent_away()
    scene.container.writer = None
    client = await scene.ask()
    closing = asyncio.create_task(scene.house.ingress.close(grace=30))
    await asyncio.sleep(0)
    scene.pass_time()
    scene.container.says(OK)
    assert (await client.head()).startswith(b"HTTP/1.1 201 ")
    assert await scene.house.endpoint.ends.get() == "release"
    await closing
    assert await scene.house.endpoint.ends.get() == "cancel"


async def test_a_connection_that_stays_idle_is_closed(scene: Scene) -> None:
    """After a redirection as after any answer."""
    client = await scene.ask()
    scene.pass_time()
    path_of(await client.head())
    scene.pass_time()
    assert await client.rest() == b""
