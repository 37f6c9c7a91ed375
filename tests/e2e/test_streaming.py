"""Streams both ways: when their pieces arrive, what a client's leaving does, and how much memory they take."""

from __future__ import annotations

import json
import select
import socket

import psutil
import pytest

from tests.e2e.calls import Call, lines, peak
from tests.e2e.conftest import PATIENCE, Machine, parse, wait_until

MIB = 1024 * 1024
BOUND = 32 * MIB  # more than all buffers between a client and a function
KINDS = ["many", "wsgi", "program"]
GROWTH = 48 * MIB  # what a process may take more at its height; a body that was kept would be 512 MiB

APP = """
import asyncio
import os
import threading
import time
import modal

app = modal.App("streaming")
PIECE = bytes(1024 * 1024)


def note(text):
    with open({journal!r}, "a") as journal:
        print(text, file=journal)


def web():
    from fastapi import FastAPI, Request
    from fastapi.responses import StreamingResponse
    web_app = FastAPI()
    steps = threading.Semaphore(0)
    read_on = asyncio.Event()
    state = {{"produced": 0}}

    @web_app.get("/step")
    async def step():
        steps.release()
        read_on.set()
        return "gone on"

    @web_app.get("/ping")
    async def ping():
        note("ping")
        return os.getpid()

    async def wait_for_step():
        while not steps.acquire(blocking=False):
            await asyncio.sleep(0.001)

    @web_app.get("/async")
    async def stream_async():
        async def pieces():
            for number in range(3):
                yield f"piece {{number}}\\n"
                await wait_for_step()
        return StreamingResponse(pieces(), media_type="text/plain")

    @web_app.get("/sync")
    def stream_sync():
        def pieces():
            for number in range(3):
                yield f"piece {{number}}\\n"
                steps.acquire()
        return StreamingResponse(pieces(), media_type="text/plain")

    @web_app.get("/events")
    async def events():
        async def pieces():
            for number in range(3):
                yield f"id: {{number}}\\ndata: piece {{number}}\\n\\n"
                await wait_for_step()
        return StreamingResponse(pieces(), media_type="text/event-stream")

    @web_app.post("/upload")
    async def upload(request: Request):
        total = 0
        async for piece in request.stream():
            if len(piece) < 100 and piece:
                note(f"got {{piece.decode()}}")
            total += len(piece)
        return total

    @web_app.post("/slow-upload")
    async def slow_upload(request: Request):
        read_on.clear()
        total = 0
        async for piece in request.stream():
            total += len(piece)
            await read_on.wait()
        return total

    @web_app.get("/download/{{mebibytes}}")
    async def download(mebibytes: int):
        async def pieces():
            state["produced"] = 0
            for _ in range(mebibytes):
                yield PIECE
                state["produced"] += len(PIECE)
        return StreamingResponse(pieces())

    @web_app.get("/produced")
    async def produced():
        return state["produced"]

    # -- what goes on until its client leaves
    @web_app.get("/endless/async")
    async def endless_async():
        async def pieces():
            try:
                while True:
                    yield "begun"
                    await asyncio.sleep(0.001)
            finally:
                note("ended")
        return StreamingResponse(pieces())

    @web_app.get("/endless/silent")
    async def endless_silent():
        async def pieces():
            try:
                yield "begun"
                await asyncio.Event().wait()
            finally:
                note("ended")
        return StreamingResponse(pieces())

    @web_app.get("/endless/sync")
    def endless_sync():
        def pieces():
            try:
                while True:
                    yield "begun"
                    time.sleep(0.001)
            finally:
                note("ended")
        return StreamingResponse(pieces())

    @web_app.get("/endless/handler")
    async def endless_handler():
        try:
            note("begun")
            await asyncio.Event().wait()
        finally:
            note("ended")

    @web_app.get("/endless/asking")
    async def endless_asking(request: Request):
        try:
            note("begun")
            while not await request.is_disconnected():
                await asyncio.sleep(0.001)
        finally:
            note("ended")

    @web_app.post("/endless/upload")
    async def endless_upload(request: Request):
        try:
            async for piece in request.stream():
                note("begun")
        finally:
            note("ended")

    @web_app.get("/thread")
    def thread():
        note("begun")
        while not os.path.exists({gate!r}):
            time.sleep(0.001)
        note("ended")

    return web_app


@app.function(max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.asgi_app()
def many():
    return web()


@app.function(max_containers=1)
@modal.asgi_app()
def one():
    return web()


@app.function(max_containers=1)
@modal.concurrent(max_inputs=4)
@modal.wsgi_app()
def wsgi():
    read_on = threading.Event()
    state = {{"produced": 0}}

    def pieces(mebibytes):
        state["produced"] = 0
        for _ in range(mebibytes):
            yield PIECE
            state["produced"] += len(PIECE)

    def web_app(environ, start_response):
        start_response("200 OK", [])
        _, verb, *more = environ["PATH_INFO"].split("/")
        if verb == "download":
            return pieces(int(more[0]))
        if verb == "step":
            read_on.set()
        if verb.endswith("upload"):
            read_on.clear()
            total = 0
            while piece := environ["wsgi.input"].read(65536):
                total += len(piece)
                verb == "slow-upload" and read_on.wait(30)
            return [str(total).encode()]
        return [str(state["produced"] if verb == "produced" else os.getpid()).encode()]

    return web_app


@app.function(max_containers=1)
@modal.concurrent(max_inputs=4)
@modal.web_server(8000)
def program():
    import subprocess
    import sys
    subprocess.Popen([sys.executable, {program!r}])
"""

PROGRAM = """
import os, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = bytes(1024 * 1024)
read_on = threading.Event()
state = {"produced": 0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, value):
        self.send_response(200)
        self.send_header("Content-Length", str(len(str(value))))
        self.end_headers()
        self.wfile.write(str(value).encode())

    def do_GET(self):
        _, verb, *more = self.path.split("/")
        if verb == "download":
            return self.download(int(more[0]))
        if verb == "step":
            read_on.set()
        self.answer(state["produced"] if verb == "produced" else os.getpid())

    def download(self, mebibytes):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        state["produced"] = 0
        for _ in range(mebibytes):
            self.wfile.write(b"100000\\r\\n%b\\r\\n" % PIECE)
            state["produced"] += len(PIECE)
        self.wfile.write(b"0\\r\\n\\r\\n")

    def do_POST(self):
        read_on.clear()
        size = left = int(self.headers["content-length"])
        while left:
            left -= len(self.rfile.read(min(left, 65536)))
            self.path == "/slow-upload" and read_on.wait(30)
        self.answer(size)

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


class Site:
    """The deployed app."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.journal = machine.folder / "journal"
        self.gate = machine.folder / "gate"
        program = machine.write("streaming.txt", PROGRAM)
        text = APP.format(journal=str(self.journal), gate=str(self.gate), program=str(program))
        machine.write("streaming.py", text)
        urls = machine.deploy("streaming.py")
        self.many, self.one, self.wsgi, self.program = (urls[name] for name in ("many", "one", "wsgi", "program"))

    def noted(self, before: int) -> list[str]:
        """What the functions have noted since then."""
        return lines(self.journal)[before:]

    def counts(self, function: str) -> tuple[int, int]:
        """How many inputs of a function run, and how many wait."""
        found = next(f for f in self.machine.app("streaming")["functions"] if f["name"] == function)
        return found["running"], found["queued"]

    def head(self, url: str, method: str, *headers: str) -> bytes:
        host, _, path = url.partition("//")[2].partition("/")
        return "\r\n".join([f"{method} /{path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.machine.port), timeout=PATIENCE)


@pytest.fixture(scope="module")
def site(shared: Machine) -> Site:
    """Deployed once."""
    return Site(shared)


# -- each piece when it is there --------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["async", "sync", "events"])
def test_each_piece_arrives_when_it_is_yielded(site: Site, kind: str) -> None:
    """The next one is made only after the client has asked for it, with this one in its hands."""
    call = Call(site.machine, f"{site.many}/{kind}")
    for number in range(3):
        received = call.until(b"piece %d\n" % number)
        assert b"piece %d" % (number + 1) not in received
        assert site.machine.request(f"{site.many}/step").status == 200
    answer = call.answer()
    assert answer.text.count("piece") == 3
    assert answer.headers["content-type"].startswith("text/event-stream" if kind == "events" else "text/plain")


def test_each_chunk_of_an_upload_arrives_when_it_is_sent(site: Site) -> None:
    """The client sends the next one when the function has seen this one."""
    before = len(lines(site.journal))
    with site.connect() as connection:
        connection.sendall(site.head(f"{site.many}/upload", "POST", "Transfer-Encoding: chunked", "Connection: close"))
        for name in (b"one", b"two", b"three"):
            connection.sendall(b"%x\r\n%b\r\n" % (len(name), name))
            wait_until(lambda name=name: f"got {name.decode()}" in site.noted(before), "the chunk has arrived")
        connection.sendall(b"0\r\n\r\n")
        assert parse(receive_all(connection)).json == 11


def test_a_client_that_waits_for_100_continue_gets_it_when_the_body_is_read(site: Site) -> None:
    """And then the answer."""
    with site.connect() as connection:
        headers = ("Content-Length: 3", "Expect: 100-continue", "Connection: close")
        connection.sendall(site.head(f"{site.many}/upload", "POST", *headers))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"one")
        assert parse(receive_all(connection)).json == 3


def test_a_head_request_of_a_stream_has_no_body(site: Site) -> None:
    """And the connection goes on."""
    with site.connect() as connection:
        connection.sendall(site.head(f"{site.wsgi}/download/1", "HEAD"))
        connection.sendall(site.head(f"{site.wsgi}/ping", "GET", "Connection: close"))
        first, _, rest = receive_all(connection).partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200")
    assert parse(rest).status == 200
    assert parse(rest).body.isdigit()


def receive_all(connection: socket.socket) -> bytes:
    """All that comes, to the end."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


# -- clients that leave -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["async", "silent", "sync", "handler", "asking"])
def test_a_client_that_leaves_ends_what_runs_for_it_and_frees_its_slot(site: Site, kind: str) -> None:
    """`finally` runs, and then the container's only slot is another request's."""
    before = len(lines(site.journal))
    call = Call(site.machine, f"{site.one}/endless/{kind}")
    if kind in ("handler", "asking"):
        wait_until(lambda: site.noted(before) == ["begun"], "it has begun")
    else:
        call.until(b"begun")
    call.leave()
    assert site.machine.request(f"{site.one}/ping").status == 200
    assert [line for line in site.noted(before) if line != "begun"] == ["ended", "ping"]


def test_a_client_that_leaves_in_the_middle_of_its_upload_ends_it(site: Site) -> None:
    """The handler that reads hears of it."""
    before = len(lines(site.journal))
    call = Call(site.machine, f"{site.one}/endless/upload", "POST", body=b"x", length=1000)
    wait_until(lambda: site.noted(before) == ["begun"], "it has begun")
    call.leave()
    assert site.machine.request(f"{site.one}/ping").status == 200
    assert site.noted(before) == ["begun", "ended", "ping"]


def test_a_thread_that_works_for_a_client_that_left_keeps_its_slot_until_it_is_done(site: Site) -> None:
    """Nothing can end it; and nothing runs beside it."""
    before = len(lines(site.journal))
    call = Call(site.machine, f"{site.one}/thread")
    wait_until(lambda: site.noted(before) == ["begun"], "it has begun")
    call.leave()
    waiting = Call(site.machine, f"{site.one}/ping")
    wait_until(lambda: site.counts("one") == (1, 1), "one runs and one waits")
    assert site.noted(before) == ["begun"]
    site.gate.touch()
    assert waiting.answer().status == 200
    assert site.noted(before) == ["begun", "ended", "ping"]


# -- large bodies -----------------------------------------------------------------------------------------------------
class Heights:
    """How much memory the server and a container have had at most, since the beginning of this."""

    def __init__(self, site: Site, url: str) -> None:
        container = psutil.Process(int(site.machine.request(f"{url}/ping").text))
        self._processes = [*site.machine.servers(), container]
        self._before = self._peaks()

    def growth(self) -> int:
        """The largest growth of any of them, in bytes."""
        return max(now - before for now, before in zip(self._peaks(), self._before, strict=True))

    def _peaks(self) -> list[int]:
        return [peak(process) for process in self._processes]


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_download_takes_no_memory(site: Site, kind: str) -> None:
    """Neither of the server nor of the container."""
    url = getattr(site, kind)
    heights = Heights(site, url)
    with site.connect() as connection:
        connection.sendall(site.head(f"{url}/download/512", "GET", "Connection: close"))
        buffer, total = bytearray(4 * MIB), 0
        while size := connection.recv_into(buffer):
            total += size
    assert total > 512 * MIB
    assert heights.growth() < GROWTH


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_upload_takes_no_memory(site: Site, kind: str) -> None:
    """Neither of the server nor of the container."""
    url = getattr(site, kind)
    heights = Heights(site, url)
    with site.connect() as connection:
        length = f"Content-Length: {512 * MIB}"
        connection.sendall(site.head(f"{url}/upload", "POST", length, "Connection: close"))
        piece = bytes(4 * MIB)
        for _ in range(128):
            connection.sendall(piece)
        assert int(parse(receive_all(connection)).text) == 512 * MIB
    assert heights.growth() < GROWTH


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_reader_slows_the_writer(site: Site, kind: str) -> None:
    """It is never more than some buffers ahead of what the client has read."""
    url = getattr(site, kind)
    with site.connect() as connection:
        connection.sendall(site.head(f"{url}/download/128", "GET", "Connection: close"))
        read, looks = 0, 0
        while piece := connection.recv(MIB):
            read += len(piece)
            if read > looks * 8 * MIB:
                looks += 1
                produced = json.loads(site.machine.request(f"{url}/produced").text)
                assert produced - read < BOUND
    assert read > 128 * MIB


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_function_slows_the_uploader(site: Site, kind: str) -> None:
    """What it does not read is not taken from the client."""
    url = getattr(site, kind)
    size = 128 * MIB
    with site.connect() as connection:
        headers = (f"Content-Length: {size}", "Connection: close")
        connection.sendall(site.head(f"{url}/slow-upload", "POST", *headers))
        connection.setblocking(False)
        sent, piece = 0, bytes(MIB)
        while sent < size and select.select([], [connection], [], 1.0)[1]:
            sent += connection.send(piece[: size - sent])
        assert sent < BOUND
        assert site.machine.request(f"{url}/step").status == 200
        connection.settimeout(PATIENCE)
        while sent < size:
            sent += connection.send(piece[: size - sent])
        assert int(parse(receive_all(connection)).text) == size
