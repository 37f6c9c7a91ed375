"""WebSocket echo of 100-byte messages: through the ingress, and the same app on bare uvicorn.

Each of 32 connections sends its next message when it has the echo of the one before. A second figure is the round trip
of a single connection, on which nothing else waits.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from typing import cast

import uvloop

from bench.results import Goal, Run, Table
from bench.stand import APPS, WEB, get_when_up, seconds_of, spread, stand, summary, uvicorn

PAYLOAD = 100
CONNECTIONS = 32


def main(run: Run) -> Iterator[Table]:
    """In turns: A B A B …; the ratio of each pair, and its median."""
    rounds, seconds = (1, 0.1) if run.quick else (11, 2.0)
    with stand() as here, uvicorn(*WEB) as bare:
        host = here.deploy(APPS / "web_app.py")["web"]
        get_when_up(bare)
        ours, theirs, alone, bare_alone, costs = [], [], [], [], []
        for _ in range(rounds):
            theirs.append(len(echoes(bare, "localhost", CONNECTIONS, seconds)) / seconds)
            before = seconds_of(here.server)
            times = echoes(here.port, host, CONNECTIONS, seconds)
            costs.append((seconds_of(here.server) - before) / len(times) * 1e6)
            ours.append(len(times) / seconds)
            bare_alone += echoes(bare, "localhost", 1, seconds / 4)
            alone += echoes(here.port, host, 1, seconds / 4)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    yield Table(
        f"WebSocket echo of {PAYLOAD} bytes, {CONNECTIONS} connections, messages per second",
        {
            "portico": summary(ours, 0),
            "bare uvicorn": summary(theirs, 0),
            "ratio": summary(ratios),
            "ingress, µs of CPU per echo": summary(costs, 1),
            "one connection, portico": spread(alone, 3),
            "one connection, bare": spread(bare_alone, 3),
            "added, ms": round((statistics.median(alone) - statistics.median(bare_alone)) * 1000, 3),
        },
        (
            Goal(
                "WebSocket echoes/s",
                statistics.median(ratios),
                at_least=0.9,
                ours=f"{statistics.median(ours):,.0f}/s",
                beside=f"{statistics.median(theirs):,.0f}/s, bare uvicorn",
            ),
        ),
    )


def echoes(port: int, host: str, connections: int, seconds: float) -> list[float]:
    """The time of each echo, over so many connections at once."""
    return uvloop.run(_echoes(port, host, connections, seconds))


async def _echoes(port: int, host: str, connections: int, seconds: float) -> list[float]:
    loop = asyncio.get_running_loop()
    clients = [Client(host) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
        await client.opened
    for client in clients:
        client.begin()
    await asyncio.sleep(seconds)
    await clients[0].echoed  # on a busy machine, a short time is over before anything has come
    for client in clients:
        client.close()
    return [echo for client in clients for echo in client.times]


class Client(asyncio.Protocol):
    """One WebSocket, as cheap as it can be: the load must not be what is measured."""

    MESSAGE = b"\x82" + bytes([0x80 | PAYLOAD]) + b"\0\0\0\0" + b"x" * PAYLOAD  # a mask of zeros
    ECHO = 2 + PAYLOAD

    def __init__(self, host: str) -> None:
        self.times: list[float] = []
        self.opened = asyncio.get_running_loop().create_future()
        self.echoed = asyncio.get_running_loop().create_future()  # the first one
        self._host = host
        self._transport = cast("asyncio.Transport", None)
        self._received = 0
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(handshake(self._host))

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            assert data.startswith(b"HTTP/1.1 101 "), data
            assert data.endswith(b"\r\n\r\n"), data
            self.opened.set_result(None)
            return
        self._received += len(data)
        if self._received == self.ECHO:
            self.times.append(time.perf_counter() - self._sent)
            if not self.echoed.done():
                self.echoed.set_result(None)
            self.begin()

    def begin(self) -> None:
        """Send the next message."""
        self._received = 0
        self._sent = time.perf_counter()
        self._transport.write(self.MESSAGE)

    def close(self) -> None:
        """Leave."""
        self._transport.abort()


def handshake(host: str) -> bytes:
    """What asks for a WebSocket."""
    lines = ["GET /echo HTTP/1.1", f"Host: {host}", "Connection: Upgrade", "Upgrade: websocket"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
    return "\r\n".join([*lines, "", ""]).encode()
