"""Connections of calls that are awaited: kept for the next call, and not for longer than their loop."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import uvloop

from portico.client import loops
from portico.client.answers import Route
from portico.wire import codec
from portico.wire.calls import CONTENT_TYPE, Kind, frames, size


@pytest.fixture
def route(tmp_path: Path) -> Iterator[Route]:
    """The way to a server that answers each call with 7."""
    path = str(tmp_path / "calls.sock")
    payload = codec.dump(7, "seven")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (CONTENT_TYPE, size(payload))

    def converse(connection: socket.socket) -> None:
        with connection:
            while connection.recv(65536):
                connection.sendall(head + b"".join(frames(Kind.VALUE, payload)))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=converse, args=(connection,), daemon=True).start()

    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(path)
        server.listen()
        accepting = threading.Thread(target=serve)
        accepting.start()
        yield Route(path, ("f",), "f", "app", "remote")
        server.shutdown(socket.SHUT_RDWR)
        accepting.join()


def sockets(path: str) -> int:
    """Connections of this process to that socket: the server's ends have its name."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    inodes = {line.split()[6] for line in lines if line.endswith(f" {path}") and line.split()[5] == "03"}
    ours = {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    }
    return sum(f"socket:[{inode}]" in ours for inode in inodes)


async def call_twice(route: Route) -> int:
    """One after the other; how many connections there are then."""
    assert await loops.call(route, (), {}) == 7
    assert await loops.call(route, (), {}) == 7
    return sockets(route.socket)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_kept_connection_ends_with_its_loop(route: Route, run: Callable[..., int]) -> None:
    """However many loops come and go."""
    for _ in range(3):
        assert run(call_twice(route)) == 1
        assert not loops._kept
        end = time.monotonic() + 20
        while sockets(route.socket):  # the server's thread hears of the end
            assert time.monotonic() < end, "the connection is still open"
            time.sleep(0.001)


def test_a_loop_that_was_only_closed_is_forgotten(route: Route) -> None:
    """With its connections, when the next loop calls."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(call_twice(route))
    loop.close()

    def call_elsewhere() -> None:
        asyncio.run(call_twice(route))
        gc.collect()

    with pytest.warns(ResourceWarning):  # of the loop's own transports
        call_elsewhere()
    assert not loops._kept
