"""The rate limit: what passes in ten seconds of overload against what may, and what it costs where it refuses nothing.

Beside it: the same endpoint on the same server without a limit, in turns. The processor time of the server for each
request varies less than rates do on a machine with few cores.
"""

from __future__ import annotations

import socket
import statistics
import time
import timeit
from typing import BinaryIO

from bench.stand import APPS, Stand, command, get, report, seconds_of, stand, summary, wrk
from portico.core.bucket import BURST, TokenBucket
from portico.ingress.admission import RateLimit
from portico.ingress.head import RequestHead

RATES = {200: ("--app", "warm", "--function", "hello"), 50: ("--app", "warm")}  # a second; each has its own bucket
NEVER = "1000000"  # the largest limit that there is
CONNECTIONS, ROUNDS, SECONDS = 32, 7, 4  # of wrk
BATCH = 16  # requests that are on their way at once


def main(quick: bool = False) -> None:
    """First the exactness, then the cost: off, on, off, on, …; `quick` leaves wrk out."""
    seconds, rates = (0.2, [200]) if quick else (10.0, [*RATES])
    with stand() as here:
        host = here.deploy(APPS / "warm_app.py")["hello"]
        get(here.port, host)
        exact = {f"limit of {rate} a second": _overload(here, host, rate, seconds) for rate in rates}
        report(f"rate limit, {seconds:g} s of overload", exact)
        cost = {"the step alone, µs": round(_step(), 3)} | ({} if quick else _cost(here, host))
        report("rate limit where it refuses nothing", cost)


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


def _cost(here: Stand, host: str) -> dict[str, object]:
    runs: dict[str, list[dict[str, float]]] = {"off": [], NEVER: []}
    for _ in range(ROUNDS):
        for limit, found in runs.items():
            here.portico("workspace", "set", "rate-limit", limit)
            before = seconds_of(here.server)
            run = wrk(here.port, host, connections=CONNECTIONS, seconds=SECONDS)
            run["cpu"] = (seconds_of(here.server) - before) / (run["rps"] * SECONDS) * 1e6
            found.append(run)
    here.portico("workspace", "set", "rate-limit", "off")
    result: dict[str, object] = {}
    for name, found in (("without a limit", runs["off"]), ("with a limit that refuses nothing", runs[NEVER])):
        result[f"{name}, requests/s"] = summary([run["rps"] for run in found], 0)
        result[f"{name}, µs of the server's CPU"] = summary([run["cpu"] for run in found])
    pairs = list(zip(runs[NEVER], runs["off"], strict=True))
    for key, name in (("rps", "ratio of the rates"), ("cpu", "ratio of the CPU times")):
        result[name] = round(statistics.median(on[key] / off[key] for on, off in pairs), 3)
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


if __name__ == "__main__":
    command(main)
