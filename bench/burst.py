"""A burst: many requests at once to a function without containers, one input per container.

Beside it the same burst to containers that are all there already. Connections are open before the clock starts.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator

import uvloop

from bench.cold import wait_for_zero
from bench.results import Goal, Run, Table
from bench.stand import APPS, get, spread, stand

REQUESTS = 200
CONTAINERS = 20
EACH = 0.05  # seconds, as in burst_app.py


def main(run: Run) -> Iterator[Table]:
    """In turns: from zero, warm, from zero, …"""
    rounds, requests = (1, 20) if run.quick else (5, REQUESTS)
    cold, warm, first = [], [], []
    with stand() as here:
        hosts = here.deploy(APPS / "burst_app.py") | here.deploy(APPS / "burst_warm_app.py")
        while here.containers("bench-burst-warm") < CONTAINERS:
            time.sleep(0.1)
        get(here.port, hosts["warm"])
        for _ in range(rounds):
            wait_for_zero(here, "bench-burst")
            times = burst(here.port, hosts["cold"], requests)
            cold.append(max(times))
            first.append(min(times))
            warm.append(max(burst(here.port, hosts["warm"], requests)))
    ratio = statistics.median(a / b for a, b in zip(cold, warm, strict=True))
    yield Table(
        f"burst of {requests} requests of {EACH * 1000:.0f} ms, at most {CONTAINERS} containers, to the last answer",
        {
            "portico, from zero": spread(cold, 0),
            "its first answer": spread(first, 0),
            "portico, warm": spread(warm, 0),
            "the sum, ms": round(requests / CONTAINERS * EACH * 1000),
            "ratio": round(ratio, 2),
        },
        (
            Goal(
                f"burst of {requests} at zero, {CONTAINERS} containers",
                ratio,
                at_most=1.5,
                ours=f"{statistics.median(cold) * 1000:,.0f} ms",
                beside=f"{statistics.median(warm) * 1000:,.0f} ms, {CONTAINERS} warm containers",
            ),
        ),
    )


def burst(port: int, host: str, requests: int) -> list[float]:
    """Seconds until the answer of each."""
    return uvloop.run(_burst(port, host, requests))


async def _burst(port: int, host: str, requests: int) -> list[float]:
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(requests)]
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    began = time.perf_counter()

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        writer.write(request)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200"), answer[:300]
        took = time.perf_counter() - began
        writer.close()
        return took

    return list(await asyncio.gather(*(ask(*connection) for connection in connections)))
