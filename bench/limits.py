"""The rate limit: what passes in ten seconds of overload against what may, and what it costs where it refuses nothing.

Beside it: the same endpoint on the same server without a limit, in turns. The processor time of the server for each
request varies less than rates do on a machine with few cores.
"""

from __future__ import annotations

import socket
import statistics
import time
import timeit
from collections.abc import Iterator
from typing import BinaryIO

from bench.load import Sample, Side, portico, ratio, wrk
from bench.results import Goal, Run, Table
from bench.stand import APPS, Stand, stand, summary
from portico.core.bucket import BURST, TokenBucket
from portico.ingress.admission import RateLimit
from portico.ingress.head import RequestHead

RATES = {200: ("--app", "warm", "--function", "hello"), 50: ("--app", "warm")}  # a second; each has its own bucket
NEVER = "1000000"  # the largest limit that there is
CONNECTIONS, ROUNDS, SECONDS = 32, 7, 2  # of wrk
BATCH = 16  # requests that are on their way at once


def main(run: Run) -> Iterator[Table]:
    """First the exactness, then the cost: off, on, off, on, …; a quick run leaves wrk out."""
    seconds, rates = (0.2, [200]) if run.quick else (10.0, [*RATES])
    with stand() as here:
        host = here.deploy(APPS / "warm_app.py")["hello"]
        side = portico(here, host)
        exact = {f"limit of {rate} a second": _overload(here, host, rate, seconds) for rate in rates}
        yield Table(f"rate limit, {seconds:g} s of overload", exact, tuple(map(_exactness, rates, exact.values())))
        cost = {"the step alone, µs": round(_step(), 3)} | ({} if run.quick else _cost(here, side))
        yield Table("rate limit where it refuses nothing", cost)


def _exactness(rate: int, found: dict[str, float]) -> Goal:
    return Goal(
        f"what passes a limit of {rate} a second in overload, off by",
        abs(found["off by, %"]),
        "%",
        at_most=1,
        ours=f"{found['passed']:,} pass",
        beside=f"{found['may pass']:,} may pass",
    )


def _overload(here: Stand, host: str, rate: int, seconds: float) -> dict[str, float]:
    """All that passes, the burst and the rate's worth, against what may pass in the time that it took."""
    here.portico("workspace", "set", "rate-limit", str(rate), *RATES[rate])
    requests = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() * BATCH
    passed = asked = 0
    refused = False
    with socket.create_connection(("127.0.0.1", here.port)) as connection:
        stream = connection.makefile("rb")
        began = now = time.perf_counter()
        while now - began < seconds or not refused:  # it ends with a refusal: then nothing is left in the bucket
            connection.sendall(requests)
            statuses = [_status(stream) for _ in range(BATCH)]
            now = time.perf_counter()
            refused = statuses[-1] == 429
            asked += BATCH
            passed += statuses.count(200)
    here.portico("workspace", "set", "rate-limit", "off", *RATES[rate])
    may = rate * (BURST + now - began)
    return {
        "asked": asked,
        "passed": passed,
        "may pass": round(may, 1),
        "off by, %": round((passed / may - 1) * 100, 3),
        "without the burst, %": round(((passed - rate * BURST) / (rate * (now - began)) - 1) * 100, 3),
    }


def _cost(here: Stand, side: Side) -> dict[str, object]:
    runs: dict[str, list[Sample]] = {"off": [], NEVER: []}
    for _ in range(ROUNDS):
        for limit, found in runs.items():
            here.portico("workspace", "set", "rate-limit", limit)
            found.append(wrk(side, connections=CONNECTIONS, seconds=SECONDS))
    here.portico("workspace", "set", "rate-limit", "off")
    result: dict[str, object] = {}
    for name, found in (("without a limit", runs["off"]), ("with a limit that refuses nothing", runs[NEVER])):
        result[f"{name}, requests/s"] = summary([run["rps"] for run in found], 0)
        result[f"{name}, µs of the server's CPU"] = summary([run["cpu_us"]["ingress"] for run in found])
    pairs = list(zip(runs[NEVER], runs["off"], strict=True))
    result["ratio of the rates"] = round(ratio(runs[NEVER], runs["off"]), 3)
    costs = [on["cpu_us"]["ingress"] / off["cpu_us"]["ingress"] for on, off in pairs]
    result["ratio of the CPU times"] = round(statistics.median(costs), 3)
    return result


def _step() -> float:
    """What the look at one bucket takes."""
    step, head = RateLimit([TokenBucket(1e6, 0.0)]), RequestHead()
    count = 100_000
    return min(timeit.repeat(lambda: step(head, 1e9), number=count, repeat=5)) / count * 1e6


def _status(stream: BinaryIO) -> int:
    """The status of one answer with a Content-Length, read to its end."""
    status, length = int(stream.readline().split()[1]), 0
    while (line := stream.readline().lower()) != b"\r\n":
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    stream.read(length)
    return status
