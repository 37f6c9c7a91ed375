"""WSGI apps in a container: their threads, their bodies, and what happens when a client leaves."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.wsgi_server import WsgiFunction, request, serving

Environ = dict[str, Any]
OK = "200 OK"
CHUNKED = "transfer-encoding: chunked"
BOUND = 4 * 1024 * 1024  # bytes: more than all buffers between a client and an app


def answering(*pieces: bytes, status: str = OK, headers: Iterable[tuple[str, str]] = ()) -> WsgiFunction:
    """An app that answers with these pieces."""

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(status, list(headers))
        return list(pieces)

    return app


class Closable:
    """An iterable of a response, which says when it was closed."""

    def __init__(self, pieces: Iterator[bytes], close: Callable[[], object]) -> None:
        self._pieces = pieces
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces


# -- responses --------------------------------------------------------------------------------------------------------
async def test_a_response_has_its_status_headers_and_body(tmp_path: Path) -> None:
    """With a Content-Length it is passed on as it is."""
    app = answering(b"not ", b"here", status="404 Not Found", headers=[("Content-Length", "8"), ("X-A", "é")])
    async with serving(app, tmp_path) as served:
        head, body = await served.ask()
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 404 Not Found"
    assert b"\r\nx-a: \xe9\r\n" in head
    assert body == b"not here"


async def test_a_body_of_unknown_length_is_chunked(tmp_path: Path) -> None:
    """Empty pieces are no chunks; what the app says about the connection is not passed on."""
    app = answering(b"", b"ab", b"", headers=[("Connection", "keep-alive"), ("Transfer-Encoding", "chunked")])
    async with serving(app, tmp_path) as served:
        head, body = await served.ask()
    assert head.count(b"transfer-encoding") == 1
    assert b"keep-alive" not in head
    assert body == b"2\r\nab\r\n0\r\n\r\n"


async def test_each_piece_is_sent_when_it_is_yielded(tmp_path: Path) -> None:
    """The app makes the second one only when the client has the first one."""
    seen = threading.Event()

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response(OK, [])
        yield b"first"
        assert seen.wait(10)
        yield b"second"

    async with serving(app, tmp_path) as served:
        connection = await served.connect(request())
        head = await connection.until(b"5\r\nfirst\r\n")
        seen.set()
        await connection.until(b"6\r\nsecond\r\n0\r\n\r\n")
        assert b"x-portico-held: 1" in head
        assert await served.done.get() == "in-1"


async def test_write_sends_at_once_and_before_what_is_returned(tmp_path: Path) -> None:
    """The callable that start_response returns."""
    seen = threading.Event()

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        write = start_response(OK, [])
        write(b"first")
        assert seen.wait(10)
        return [b"second"]

    async with serving(app, tmp_path) as served:
        connection = await served.connect(request())
        await connection.until(b"5\r\nfirst\r\n")
        seen.set()
        await connection.until(b"6\r\nsecond\r\n0\r\n\r\n")


async def test_the_client_does_not_wait_for_the_closing(tmp_path: Path) -> None:
    """The answer is whole before `close` returns; the input ends after it."""
    release = threading.Event()

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(OK, [])
        return Closable(iter([b"all"]), lambda: release.wait(10))

    async with serving(app, tmp_path) as served:
        connection = await served.connect(request())
        await connection.until(b"all\r\n0\r\n\r\n")
        assert served.done.empty()
        release.set()
        assert await served.done.get() == "in-1"


@pytest.mark.parametrize(("method", "status"), [("HEAD", OK), ("GET", "204 No Content"), ("GET", "304 Not Modified")])
async def test_a_response_without_a_body_has_none(tmp_path: Path, method: str, status: str) -> None:
    """Whatever the app returns, and however much of it; it is closed all the same."""
    closed = threading.Event()

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(status, [("Content-Length", "5")])
        return Closable(iter([b"hello"] * 1_000_000), closed.set)

    async with serving(app, tmp_path) as served:
        head, body = await served.ask(method)
    assert head.startswith(b"HTTP/1.1 " + status.encode())
    assert body == b""
    assert (b"content-length: 5" in head) == (method == "HEAD")
    assert closed.is_set()


async def test_an_error_before_the_first_piece_may_change_the_answer(tmp_path: Path) -> None:
    """start_response a second time, with exc_info."""

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(OK, [("X-Old", "1")])
        try:
            raise ValueError
        except ValueError:
            start_response("503 Service Unavailable", [("X-New", "1")], sys.exc_info())
        return [b"sorry"]

    async with serving(app, tmp_path) as served:
        head, body = await served.ask()
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"x-old" not in head
    assert b"sorry" in body


async def test_an_error_after_the_first_piece_cuts_the_answer_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """start_response with exc_info raises it again; the answer has no proper end."""

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response(OK, [])
        yield b"begun"
        try:
            raise ValueError("too late")
        except ValueError:
            start_response("503 Service Unavailable", [], sys.exc_info())

    async with serving(app, tmp_path) as served:
        _, body = await served.ask()
    assert body == b"5\r\nbegun\r\n"
    assert "Request in-1: GET / raised ValueError: too late" in capsys.readouterr().err


def _says_nothing(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    return [b"x"]


def _starts_twice(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response(OK, [])
    start_response(OK, [])
    return []


def _raises(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("app", "cause"),
    [
        (_raises, "SystemExit: 3"),
        (_says_nothing, "before it called start_response"),
        (_starts_twice, "start_response twice"),
        (answering("text"), "made of bytes, not of str"),  # type: ignore[arg-type]
        (answering(status="100 Continue"), "'100 Continue', which is not the status of a response"),
        (answering(b"abc", headers=[("Content-Length", "2")]), "more than its Content-Length"),
        (answering(b"", headers=[("Content-Length", "2")]), "2 bytes less than its Content-Length"),
    ],
)
async def test_a_mistake_of_the_app_is_a_500_and_named_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], app: WsgiFunction, cause: str
) -> None:
    """The container goes on."""
    async with serving(app, tmp_path) as served:
        for _ in range(2):
            head, body = await served.ask()
            assert (head.split(b" ")[1], body) == (b"500", b"Internal Server Error")
    assert capsys.readouterr().err.count(cause) == 2


async def test_a_slow_client_slows_the_app(tmp_path: Path) -> None:
    """The app is never more than some buffers ahead of what the client has read."""
    produced = 0

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
        nonlocal produced
        start_response(OK, [("Content-Length", str(32 * 1024 * 1024))])
        for _ in range(32):
            yield b"x" * 1024 * 1024
            produced += 1024 * 1024

    async with serving(app, tmp_path) as served:
        connection = await served.connect(request())
        await connection.until(b"\r\n\r\n")
        for received in range(0, 32 * 1024 * 1024, 1024 * 1024):
            assert produced - received < BOUND
            await connection.exactly(1024 * 1024)


# -- requests ---------------------------------------------------------------------------------------------------------
def echo(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """An app that answers with what it was sent."""
    data = environ["wsgi.input"].read()
    start_response(OK, [("Content-Length", str(len(data)))])
    return [data]


async def test_a_body_is_a_file(tmp_path: Path) -> None:
    """It can be read whole, in parts, and by lines."""

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        file = environ["wsgi.input"]
        parts = [file.read(3), file.readline(), file.readline(2), *file.readlines(1), *file, file.read(), file.read(1)]
        start_response(OK, [("Content-Length", str(len(repr(parts))))])
        return [repr(parts).encode()]

    body = b"abcd\nefgh\nij\nkl\nm"
    async with serving(app, tmp_path) as served:
        _, answer = await served.ask("POST", "/", f"content-length: {len(body)}", body=body)
    assert eval(answer) == [b"abc", b"d\n", b"ef", b"gh\n", b"ij\n", b"kl\n", b"m", b"", b""]


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
async def test_a_body_may_come_in_any_pieces(tmp_path: Path, size: int) -> None:
    """Byte by byte, in chunks, and in chunks that are cut themselves."""
    data = b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"
    async with serving(echo, tmp_path) as served:
        connection = await served.connect(request("POST", "/", CHUNKED, "connection: close"))
        for at in range(0, len(data), size):
            connection.send(data[at : at + size])
            await asyncio.sleep(0)
        assert (await connection.rest()).endswith(b"\r\n\r\nhello, world")


async def test_a_request_without_a_body_has_an_empty_one(tmp_path: Path) -> None:
    """Reading does not wait."""
    async with serving(echo, tmp_path) as served:
        assert (await served.ask())[1] == b""


async def test_an_app_may_answer_while_it_reads(tmp_path: Path) -> None:
    """Each piece of the body is there as soon as it was sent."""

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response(OK, [])
        while piece := environ["wsgi.input"].read1():
            yield piece

    async with serving(app, tmp_path) as served:
        connection = await served.connect(request("POST", "/", CHUNKED))
        for piece in (b"2\r\nab\r\n", b"3\r\ncde\r\n", b"0\r\n\r\n"):
            connection.send(piece)
            await connection.until(piece)


async def test_an_app_that_does_not_read_slows_the_client(tmp_path: Path) -> None:
    """Only so much is taken from the connection; the rest of it comes when the app reads."""
    read = threading.Event()

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["wsgi.input"].read(1)
        assert read.wait(10)
        start_response(OK, [("Content-Length", "0")])
        while environ["wsgi.input"].read(100_000):
            pass
        return []

    async with serving(app, tmp_path):
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect(str(tmp_path / "socket"))
            client.sendall(request("POST", "/", f"content-length: {2 * BOUND}"))
            sent = await _send_until_stuck(client, 2 * BOUND)
            assert sent < BOUND
            read.set()
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, b"x" * (2 * BOUND - sent))
            assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 200 OK")


async def _send_until_stuck(client: socket.socket, size: int) -> int:
    """Bytes that were taken when the server, which runs in this loop, has not taken any for a thousand turns."""
    sent = stuck = 0
    while sent < size and stuck < 1_000:
        try:
            sent += client.send(b"x" * min(65536, size - sent))
            stuck = 0
        except BlockingIOError:
            stuck += 1
        await asyncio.sleep(0)
    return sent


# -- threads ----------------------------------------------------------------------------------------------------------
async def test_as_many_requests_run_as_there_are_threads(tmp_path: Path) -> None:
    """Each waits for all the others."""
    together = threading.Barrier(8)

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        together.wait(10)
        start_response(OK, [])
        return [str(environ["wsgi.multithread"]).encode()]

    async with serving(app, tmp_path, threads=8) as served:
        answers = await asyncio.gather(*(served.ask() for _ in range(8)))
    assert all(b"True" in body for _, body in answers)


# -- leaving ----------------------------------------------------------------------------------------------------------
class Endless:
    """An app whose response goes on until somebody stops it."""

    def __init__(self) -> None:
        self.stopped: list[type[BaseException]] = []
        self.closed = threading.Event()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response(OK, [])
        try:
            while True:
                yield b"."
        except BaseException as error:
            self.stopped.append(type(error))
            raise
        finally:
            self.closed.set()


async def test_a_client_that_leaves_closes_the_generator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets GeneratorExit, the input ends after that, and the log is silent."""
    app = Endless()
    async with serving(app, tmp_path) as served:
        connection = await served.connect(request())
        await connection.until(b".")
        connection.leave()
        assert await served.done.get() == "in-1"
        assert app.closed.is_set()
    assert app.stopped == [GeneratorExit]
    assert capsys.readouterr().err == ""


async def test_cancel_closes_the_generator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a client that is still there, and does not read."""
    app = Endless()
    async with serving(app, tmp_path) as served:
        connection = await served.connect(request())
        await connection.until(b".")
        served.cancel("in-1")
        assert await served.done.get() == "in-1"
        assert app.stopped == [GeneratorExit]
    assert capsys.readouterr().err == ""


async def test_an_input_that_was_cancelled_ends_when_its_thread_does(tmp_path: Path) -> None:
    """Nothing can end a thread that works; Done has to wait for it."""
    begun, release = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        begun.set()
        release.wait(10)
        start_response(OK, [])
        return [b"late"]

    async with serving(app, tmp_path) as served:
        connection = await served.connect(request())
        await asyncio.to_thread(begun.wait)
        served.cancel("in-1")
        connection.leave()
        await asyncio.sleep(0)
        assert served.done.empty()
        release.set()
        assert await served.done.get() == "in-1"


async def test_an_app_that_reads_learns_that_the_client_has_left(tmp_path: Path) -> None:
    """Reading raises a ConnectionError, which is not logged as the app's fault."""
    reading = threading.Event()
    raised: list[BaseException] = []

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["wsgi.input"].read(3)
        reading.set()
        try:
            environ["wsgi.input"].read()
        except ConnectionError as error:
            raised.append(error)
            raise
        return []

    async with serving(app, tmp_path) as served:
        connection = await served.connect(request("POST", "/", "content-length: 100") + b"abc")
        await asyncio.to_thread(reading.wait)
        connection.leave()
        served.cancel("in-1")
        assert await served.done.get() == "in-1"
    assert len(raised) == 1


async def test_write_raises_when_the_client_has_left(tmp_path: Path) -> None:
    """The app's own loop ends."""
    raised = threading.Event()

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        write = start_response(OK, [])
        try:
            while True:
                write(b".")
        except ConnectionError:
            raised.set()
        return []

    async with serving(app, tmp_path) as served:
        connection = await served.connect(request())
        await connection.until(b".")
        connection.leave()
        await asyncio.to_thread(raised.wait)
