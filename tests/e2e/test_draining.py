"""Versions and servers that have to go while requests, streams and WebSockets are in flight."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.calls import Call, ask, chat, lines
from tests.e2e.conftest import PATIENCE, Machine, wait_until

SITE = """
import asyncio
import os
import time

import modal
from contextlib import asynccontextmanager
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

app = modal.App("site")
WORD = {word!r}


class Held:
    pass


@asynccontextmanager
async def lifespan(site):
    yield
    print(WORD, "has shut down")


@app.function(max_containers=2)
@modal.concurrent(max_inputs=20)
@modal.asgi_app()
def web():
    {before}
    site = FastAPI(lifespan=lifespan)

    @site.get("/")
    async def word():
        return WORD

    @site.api_route("/waits", methods=["GET", "POST"])
    async def waits(journal: str):
        with open(journal, "a") as file:
            file.write(WORD + "\\n")
        if WORD == "old":
            await asyncio.sleep(1000)
        return WORD

    @site.get("/blocks")
    def blocks(journal: str):
        with open(journal, "a") as file:
            file.write(WORD + "\\n")
        if WORD == "old":
            time.sleep(1000)
        return WORD

    @site.get("/stream")
    async def stream():
        async def pieces():
            while True:
                yield b"piece;"
                await asyncio.sleep(0.02)

        return StreamingResponse(pieces())

    @site.websocket("/ws")
    async def ws(websocket: WebSocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(WORD + text)

    return site
"""


def deploy(machine: Machine, word: str, *options: str, before: str = "pass") -> str:
    """A version of the site that says this word; its URL."""
    machine.write("drains.py", SITE.format(word=word, before=before))
    return machine.deploy("drains.py", *options)["web"]


def begun(machine: Machine, url: str, journal: Path, path: str = "/waits", method: str = "GET") -> Call:
    """A request that its function has in hand."""
    before = len(lines(journal))
    call = Call(machine, f"{url}{path}?journal={journal}", method)
    wait_until(lambda: len(lines(journal)) > before, "it has begun")
    return call


# -- the bound of a drain ---------------------------------------------------------------------------------------------
def test_what_drains_too_long_is_ended(machine: Machine, tmp_path: Path) -> None:
    """Meanwhile it goes on. Then a WebSocket closes with 1012, a stream breaks, a GET is answered by the new version, a
    POST with 502 and its id."""
    machine.env["PORTICO_DRAIN_TIMEOUT"] = "3"
    machine.up()
    url = deploy(machine, "old")
    stream = Call(machine, f"{url}/stream")
    stream.until(b"piece;")
    get, post = (begun(machine, url, tmp_path / method, method=method) for method in ("GET", "POST"))
    with chat(machine, f"{url}/ws") as ws:
        deploy(machine, "new")
        assert machine.request(url).json == "new"
        assert ask(ws, "!") == "old!"
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert get.answer().json == "new"
    lost = post.answer()
    assert lost.status == 502
    assert lost.headers["x-request-id"] in lost.text
    assert not stream.rest().endswith(b"0\r\n\r\n")
    assert (lines(tmp_path / "GET"), lines(tmp_path / "POST")) == (["old", "new"], ["old"])


# -- recreate ---------------------------------------------------------------------------------------------------------
def test_recreate_ends_the_old_version_before_the_new_one_starts(shared: Machine, tmp_path: Path) -> None:
    """No two containers side by side; requests wait or are repeated, and only a POST that had begun is lost."""
    lock = str(tmp_path / "lock")
    once = f"import fcntl; Held.file = open({lock!r}, 'w'); fcntl.flock(Held.file, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    url = deploy(shared, "old", before=once)
    assert shared.request(url).json == "old"
    get = begun(shared, url, tmp_path / "get")
    blocked = begun(shared, url, tmp_path / "blocked", "/blocks")
    post = begun(shared, url, tmp_path / "post", method="POST")
    with chat(shared, f"{url}/ws") as ws:
        assert ask(ws, "!") == "old!"
        deploy(shared, "new", "--strategy", "recreate", before=once)
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert shared.request(url).json == "new"
    assert (get.answer().json, blocked.answer().json, post.answer().status) == ("new", "new", 502)


def test_recreate_brings_the_old_version_back_when_the_new_one_fails(shared: Machine, tmp_path: Path) -> None:
    """Also to those who waited."""
    url = deploy(shared, "first")
    assert shared.request(url).json == "first"
    shared.write(
        "drains.py", SITE.format(word="broken", before=f"open({str(tmp_path / 'tried')!r}, 'w'); time.sleep(1); 1 / 0")
    )
    deploying = shared.start("deploy", "drains.py", "--strategy", "recreate")
    wait_until((tmp_path / "tried").exists, "the new one tries")
    assert shared.request(url).json == "first"
    assert deploying.popen.wait(PATIENCE) == 1
    assert any("ZeroDivisionError" in line for line in deploying.rest())
    assert shared.app("site")["version"] >= 1


# -- exit handlers ----------------------------------------------------------------------------------------------------
BUSY = """
import asyncio
import time
from contextlib import asynccontextmanager

import modal

app = modal.App("busy")
VERSION = {version}


def note(text):
    with open({journal!r}, "a") as journal:
        print(text, file=journal)


class Noted:
    @modal.exit()
    def bye(self):
        note(f"{{type(self).__name__}} has exited")


@app.cls()
class InTasks(Noted):
    @modal.fastapi_endpoint(method="POST")
    async def busy(self):
        note("busy")
        await asyncio.sleep(1000)


@app.cls()
class InOneThread(Noted):
    @modal.fastapi_endpoint(method="POST")
    def busy(self):
        note("busy")
        time.sleep(1000)


@app.cls()
@modal.concurrent(max_inputs=2)
class InThreads(Noted):
    @modal.fastapi_endpoint(method="POST")
    def busy(self):
        note("busy")
        time.sleep(1000)


@app.cls()
class InWsgi(Noted):
    @modal.wsgi_app()
    def busy(self):
        def site(environ, start_response):
            note("busy")
            time.sleep(1000)
        return site


@asynccontextmanager
async def lifespan(site):
    yield
    note("lifespan has exited")


@app.function()
@modal.asgi_app()
def site():
    from fastapi import FastAPI
    site = FastAPI(lifespan=lifespan)

    @site.post("/")
    async def busy():
        note("busy")
        await asyncio.sleep(1000)

    return site
"""


def test_a_container_that_is_stopped_amid_its_input_runs_its_exit_handlers(shared: Machine, tmp_path: Path) -> None:
    """Also where a thread goes on, which nothing can end."""
    journal = tmp_path / "journal"
    shared.write("busy.py", BUSY.format(version=1, journal=str(journal)))
    urls = shared.deploy("busy.py").values()
    calls = [Call(shared, url, "POST", length=0) for url in urls]
    wait_until(lambda: lines(journal).count("busy") == len(calls) == 5, "all are busy")
    shared.write("busy.py", BUSY.format(version=2, journal=str(journal)))
    shared.deploy("busy.py", "--strategy", "recreate")
    kinds = ("InTasks", "InOneThread", "InThreads", "InWsgi", "lifespan")
    wait_until(lambda: set(lines(journal)) == {"busy", *(f"{kind} has exited" for kind in kinds)}, "they have exited")
    for call in calls:
        assert call.answer().status == 502


# -- the server's end -------------------------------------------------------------------------------------------------
def test_a_server_that_ends_finishes_what_runs_and_takes_nothing_new(machine: Machine) -> None:
    """A stream goes on to the end of the grace; a WebSocket closes with 1012, and the app shuts down; new connections
    are refused."""
    server = machine.up()
    url = deploy(machine, "old")
    stream = Call(machine, f"{url}/stream")
    stream.until(b"piece;")
    with chat(machine, f"{url}/ws") as ws:
        assert ask(ws, "!") == "old!"
        began = time.monotonic()
        server.popen.send_signal(signal.SIGTERM)
        wait_until(lambda: refused(machine), "the door is closed")
        seen = len(stream.received)
        stream._receive()
        assert len(stream.received) > seen
        assert ask(ws, "?") == "old?"
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert not stream.rest().endswith(b"0\r\n\r\n")
    assert server.popen.wait(PATIENCE) == 0
    assert time.monotonic() - began < 20
    assert "old has shut down" in "".join(path.read_text() for path in (machine.home / "logs" / "apps").iterdir())


def test_a_second_signal_ends_the_server_at_once(machine: Machine) -> None:
    """And everything below it."""
    server = machine.up()
    stream = Call(machine, f"{deploy(machine, 'old')}/stream")
    stream.until(b"piece;")
    below = psutil.Process(server.popen.pid).children(recursive=True)
    server.popen.send_signal(signal.SIGTERM)
    server.until("ending")
    began = time.monotonic()
    server.popen.send_signal(signal.SIGTERM)
    assert server.popen.wait(PATIENCE) == 130
    assert time.monotonic() - began < 5
    wait_until(lambda: not any(process.is_running() for process in below), "all are gone")
    stream.leave()


def refused(machine: Machine) -> bool:
    """Whether nobody listens any more."""
    try:
        socket.create_connection(("127.0.0.1", machine.port)).close()
    except OSError:
        return True
    return False
