"""WebSockets of a program behind `web_server`: an aiohttp server, which knows nothing of Portico."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.e2e.calls import Call, ask, chat, lines
from tests.e2e.conftest import PATIENCE, Machine, wait_until

MIB = 1024 * 1024

APP = """
import subprocess
import sys
import modal

app = modal.App("sockets", image=modal.Image.debian_slim().pip_install("aiohttp"))


@app.function(max_containers=1)
@modal.concurrent(max_inputs=10)
@modal.web_server(8000, startup_timeout=30)
def many():
    subprocess.Popen([sys.executable, {program!r}])


@app.function(max_containers=1)
@modal.web_server(8000, startup_timeout=30)
def alone():
    subprocess.Popen([sys.executable, {program!r}])
"""

PROGRAM = """
from aiohttp import WSMsgType, web


def note(text):
    with open({journal!r}, "a") as journal:
        print(text, file=journal)


async def once(request):
    note("once")
    return web.Response(text="done")


async def chat(request):
    ws = web.WebSocketResponse(protocols=("one", "two"), max_msg_size=0)
    await ws.prepare(request)
    async for message in ws:
        if message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)
        elif message.data.startswith("large "):
            await ws.send_bytes(b"x" * int(message.data.partition(" ")[2]))
        elif message.data == "enough":
            await ws.close(code=4000, message=b"enough")
        else:
            await ws.send_str(message.data)
    note(f"closed {{ws.close_code}}")
    return ws


site = web.Application()
site.add_routes([web.get("/chat", chat), web.get("/once", once)])
web.run_app(site, host="0.0.0.0", port=8000)
"""


class Site:
    """The deployed app."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.journal = machine.folder / "sockets.journal"
        program = machine.write("sockets.txt", PROGRAM.format(journal=str(self.journal)))
        machine.write("sockets.py", APP.format(program=str(program)))
        urls = machine.deploy("sockets.py")
        self.many, self.alone = urls["many"], urls["alone"]

    def chat(self, **more: Any) -> AbstractContextManager[ClientConnection]:
        """A WebSocket."""
        return chat(self.machine, f"{self.many}/chat", **more)


@pytest.fixture(scope="module")
def site(shared: Machine) -> Site:
    """Deployed once; its image takes some seconds."""
    return Site(shared)


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_websocket_echoes(site: Site, compression: str | None) -> None:
    """Text, bytes, fragments, an empty message and one of 2 MiB, pings, packed and not."""
    with site.chat(compression=compression) as ws:
        assert bool(ws.protocol.extensions) == bool(compression)
        for message in ("hello", b"\0\1", "", os.urandom(2 * MIB), "x" * 2 * MIB):
            assert ask(ws, message) == message
        assert ask(ws, ["frag", "ments"]) == "fragments"
        assert ws.ping(b"payload").wait(PATIENCE)


def test_the_program_chooses_the_subprotocol(site: Site) -> None:
    """Of those that the client offers."""
    with site.chat(subprotocols=["three", "two"]) as ws:
        assert ws.subprotocol == "two"


def test_the_clients_close_reaches_the_program(site: Site) -> None:
    """With its code; and the program's answer, the client."""
    with site.chat() as ws:
        ws.close(4001, "bye")
    assert ws.protocol.close_rcvd is not None
    wait_until(lambda: "closed 4001" in lines(site.journal), "the program has heard it")


def test_the_programs_close_reaches_the_client(site: Site) -> None:
    """With code and reason."""
    with site.chat() as ws, pytest.raises(ConnectionClosedError) as closed:
        ask(ws, "enough")
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "enough")


def test_a_refused_handshake_has_the_programs_answer(site: Site) -> None:
    """A page without a WebSocket, and none at all."""
    for path, status in (("once", 200), ("nowhere", 404)):
        with pytest.raises(InvalidStatus) as refused, chat(site.machine, f"{site.many}/{path}"):
            pass
        assert refused.value.response.status_code == status


@pytest.mark.parametrize("whole", [True, False])
def test_a_message_that_is_too_large_closes_with_1009(site: Site, whole: bool) -> None:
    """In one frame or in several; the program hears it too."""
    before = len(lines(site.journal))
    data = b"x" * (2 * MIB + 1)
    with site.chat(compression=None) as ws, pytest.raises(ConnectionClosedError) as closed:
        ask(ws, data if whole else [data[:MIB], data[MIB:]])
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    wait_until(lambda: lines(site.journal)[before:], "the program has heard it")
    assert lines(site.journal)[before].startswith("closed 1009" if whole else "closed 100")  # aiohttp's word: 1002


def test_a_message_of_the_program_that_is_too_large_closes_with_1009(site: Site) -> None:
    """2 MiB pass; the program hears it too."""
    before = len(lines(site.journal))
    with site.chat(compression=None) as ws:
        assert len(ask(ws, f"large {2 * MIB}")) == 2 * MIB
    with site.chat(compression=None) as ws, pytest.raises(ConnectionClosedError) as closed:
        ask(ws, f"large {2 * MIB + 1}")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    wait_until(lambda: "closed 1009" in lines(site.journal)[before:], "the program has heard it")


def test_a_websocket_is_one_input_for_as_long_as_it_lives(site: Site) -> None:
    """A container that takes one input at a time answers no request meanwhile."""
    with chat(site.machine, f"{site.alone}/chat") as ws:
        call = Call(site.machine, f"{site.alone}/once")
        before = len(lines(site.journal))
        assert ask(ws, "still here") == "still here"
        functions = site.machine.app("sockets")["functions"]
        assert next((f["running"], f["queued"]) for f in functions if f["name"] == "alone") == (1, 1)
        assert lines(site.journal)[before:] == []
    assert call.answer().text == "done"
