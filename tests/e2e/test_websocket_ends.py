"""WebSockets that end against the will of both sides: their time is up, or their container is killed."""

from __future__ import annotations

import http.client
import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage

from portico.wire.websocket import close_frame
from tests.e2e.calls import ask, chat, lines
from tests.e2e.conftest import PATIENCE, Machine, wait_until
from tests.e2e.test_kills import Clients

APP = """
import os
import subprocess
import sys

import modal

app = modal.App("sockets")
image = modal.Image.debian_slim().pip_install("simple-websocket", "aiohttp")


def note(code):
    with open({journal!r}, "a") as journal:
        print("closed", code, file=journal)


def asgi():
    from fastapi import FastAPI, WebSocket, WebSocketDisconnect
    site = FastAPI()

    @site.websocket("/")
    async def talk(ws: WebSocket):
        await ws.accept()
        try:
            while True:
                await ws.send_text(f"{{os.getpid()}} {{await ws.receive_text()}}")
        except WebSocketDisconnect as end:
            note(end.code)

    return site


def wsgi():
    from simple_websocket import ConnectionClosed, Server

    def talk(environ, start_response):
        ws = Server(environ)
        try:
            while True:
                ws.send(f"{{os.getpid()}} {{ws.receive()}}")
        except ConnectionClosed as end:
            note(end.reason)
        return []

    return talk


def program():
    subprocess.Popen([sys.executable, {program!r}])


prompt = dict(image=image, max_containers=1, timeout=1, startup_timeout=30)
steady = dict(image=image, max_containers=2)


@app.function(**prompt)
@modal.asgi_app()
def prompt_asgi():
    return asgi()


@app.function(**prompt)
@modal.wsgi_app()
def prompt_wsgi():
    return wsgi()


@app.function(**prompt)
@modal.web_server(8000, startup_timeout=30)
def prompt_program():
    program()


@app.function(**steady)
@modal.concurrent(max_inputs=3)
@modal.asgi_app()
def steady_asgi():
    return asgi()


@app.function(**steady)
@modal.concurrent(max_inputs=3)
@modal.wsgi_app()
def steady_wsgi():
    return wsgi()


@app.function(**steady)
@modal.concurrent(max_inputs=3)
@modal.web_server(8000, startup_timeout=30)
def steady_program():
    program()
"""


PROGRAM = """
import os
from aiohttp import web


async def talk(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(f"{{os.getpid()}} {{message.data}}")
    with open({journal!r}, "a") as journal:
        print("closed", ws.close_code, file=journal)
    return ws


site = web.Application()
site.add_routes([web.get("/", talk)])
web.run_app(site, host="0.0.0.0", port=8000)
"""
HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
KINDS = ("asgi", "wsgi", "program")


@pytest.fixture(scope="module")
def journal(shared: Machine) -> Path:
    """What the handlers write."""
    return shared.folder / "sockets.journal"


@pytest.fixture(scope="module")
def urls(shared: Machine, journal: Path) -> dict[str, str]:
    """The app's URLs."""
    program = shared.write("program.txt", PROGRAM.format(journal=str(journal)))
    shared.write("sockets.py", APP.format(journal=str(journal), program=str(program)))
    return shared.deploy("sockets.py")


# -- time -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_a_websocket_whose_time_is_up_closes_with_1001(
    shared: Machine, urls: dict[str, str], journal: Path, kind: str
) -> None:
    """Both sides hear it; the container goes on with the next one."""
    url = urls[f"prompt_{kind}"]
    before = len(lines(journal))
    with chat(shared, url) as ws:
        first = ask(ws, "here")
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    wait_until(lambda: lines(journal)[before:], "its handler has heard it")
    assert lines(journal)[before:] == ["closed 1001"]
    with chat(shared, url) as ws:
        assert ask(ws, "here") == first


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_does_not_answer_the_close_is_cut_off(shared: Machine, urls: dict[str, str], kind: str) -> None:
    """Soon, and the container's only slot is another one's."""
    url = urls[f"prompt_{kind}"]
    with chat(shared, url) as ws:
        first = ask(ws, "here")
    host = url.partition("//")[2]
    assert shared.raw(HANDSHAKE.format(host=host).encode()).endswith(close_frame(1001))
    with chat(shared, url) as ws:
        assert ask(ws, "here") == first


# -- versions ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_a_websocket_whose_version_has_to_go_closes_with_1012(shared: Machine, urls: dict[str, str], kind: str) -> None:
    """Also one of a program that waits for its client, and is killed in the end."""
    url = urls[f"steady_{kind}"]
    with chat(shared, url) as ws:
        first = ask(ws, "here")
        shared.write("sockets.py", (shared.folder / "sockets.py").read_text() + f"\n# without {kind}\n")
        shared.deploy("sockets.py", "--strategy", "recreate")
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    with chat(shared, url) as ws:
        assert ask(ws, "here") != first


# -- kills ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_a_websocket_whose_container_is_killed_ends_and_its_slot_is_given_back(
    shared: Machine, urls: dict[str, str], kind: str
) -> None:
    """None hangs; each other one is whole; afterwards there is room for as many as ever, and for no more."""
    url = urls[f"steady_{kind}"]

    def talk(_: http.client.HTTPConnection, number: int) -> str:
        try:
            with chat(shared, url) as ws:
                for turn in range(10):
                    if not re.fullmatch(rf"\d+ {number}/{turn}", str(ask(ws, f"{number}/{turn}"))):
                        return "wrong"
        except (ConnectionClosed, InvalidMessage):
            return "ended"
        return "whole"

    clients, rounds = Clients(shared, talk), 0
    with clients.at_work():
        while clients.ended["ended"] < 10:
            rounds += 1
            before = clients.ended["whole"]
            for container in shared.containers():
                container.kill()
            wait_until(lambda before=before: clients.ended["whole"] > before + 20, "the load goes on")
    assert set(clients.ended) == {"whole", "ended"}
    assert clients.ended.total() == clients.asked
    assert clients.ended["ended"] <= rounds * 6
    wait_until(lambda: counts(shared, kind) == (0, 0), "no slot is taken")
    with ExitStack() as stack:
        sockets = [stack.enter_context(chat(shared, url)) for _ in range(6)]
        pids = [str(ask(ws, "here")).split()[0] for ws in sockets]
        assert [pids.count(pid) for pid in set(pids)] == [3, 3]
        assert counts(shared, kind) == (6, 0)


def counts(machine: Machine, kind: str) -> tuple[int, int]:
    """Inputs that run, and that wait."""
    function = next(each for each in machine.app("sockets")["functions"] if each["name"] == f"steady_{kind}")
    return function["running"], function["queued"]
