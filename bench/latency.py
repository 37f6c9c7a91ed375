"""What the ingress adds to a request: through it, and directly to the same container, on kept-alive connections."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from bench.results import Goal, Run, Table
from bench.stand import APPS, connect, get, quantile, spread, stand


def main(run: Run) -> Iterator[Table]:
    """In turns, request by request."""
    requests = 50 if run.quick else 10_000
    with stand() as here:
        before = here.sockets()
        host = here.deploy(APPS / "latency_app.py")["hello"]
        get(here.port, host)
        (container,) = here.sockets() - before
        through, directly = in_pairs([Asker(here.port, host), Asker(container)], requests)
    added = {part: (quantile(through, part) - quantile(directly, part)) * 1000 for part in (0.5, 0.99)}
    yield Table(
        "latency at one connection",
        {
            "portico": spread(through, 3),
            "the container, directly": spread(directly, 3),
            "added, ms (of pairs)": spread([a - b for a, b in zip(through, directly, strict=True)], 3),
        },
        tuple(
            Goal(
                f"latency at one connection, added at {name}",
                added[part],
                "ms",
                at_most=at_most,
                ours=f"{quantile(through, part) * 1000:.3f} ms",
                beside=f"{quantile(directly, part) * 1000:.3f} ms, the same container directly",
            )
            for name, part, at_most in (("p50", 0.5, 0.12), ("p99", 0.99, 0.4))
        ),
    )


class Asker:
    """One kept-alive connection, to a port or to a Unix socket."""

    def __init__(self, address: int | Path, host: str = "localhost") -> None:
        self._connection = connect(address)
        self._request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._length = 0
        self._length = len(self._answer())

    def seconds(self) -> float:
        """How long a request takes, to the last byte of its answer."""
        began = time.perf_counter()
        self._answer()
        return time.perf_counter() - began

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def _answer(self) -> bytes:
        self._connection.sendall(self._request)
        answer = b""
        while len(answer) < self._length or b"Hello" not in answer:
            part = self._connection.recv(65536)
            assert part, f"the connection ended after {answer!r}"
            answer += part
        return answer


def in_pairs(askers: list[Asker], requests: int, warm: int = 100) -> list[list[float]]:
    """The times of each one's requests, one of each in turn, after some that do not count."""
    times: list[list[float]] = [[] for _ in askers]
    for number in range(-warm, requests):
        for asker, kept in zip(askers, times, strict=True):
            took = asker.seconds()
            if number >= 0:
                kept.append(took)
    for asker in askers:
        asker.close()
    return times


def median_ms(times: list[float]) -> float:
    """The median, in ms."""
    return statistics.median(times) * 1000
