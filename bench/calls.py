"""Calls between warm containers: the round trip of `.remote()`, and the rate of `.map()` over two containers.

Beside them, the least that Python needs for the same with processes of one program: multiprocessing's pool.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.pool
import statistics
import time

from bench.stand import APPS, get, report, spread, stand

CALLS = 1000
INPUTS = 5000
ROUNDS = 5


def main() -> None:
    """In turns: ours, the pool, ours, …"""
    with stand() as here, multiprocessing.get_context("spawn").Pool(2) as pool:
        hosts = here.deploy(APPS / "calls_app.py")
        get(here.port, hosts["round_trips"], "/?number=100")
        pool.map(_echo, range(100))
        ours: list[float] = []
        theirs: list[float] = []
        rates: list[float] = []
        pooled: list[float] = []
        for _ in range(ROUNDS):
            ours += json.loads(get(here.port, hosts["round_trips"], f"/?number={CALLS // ROUNDS}"))
            theirs += [_timed(pool, i) for i in range(CALLS // ROUNDS)]
            rates.append(json.loads(get(here.port, hosts["mapping"], f"/?number={INPUTS}")))
            began = time.perf_counter()
            pool.map(_echo, range(INPUTS), chunksize=1)
            pooled.append(INPUTS / (time.perf_counter() - began))
    fine = {"p50_us": round(statistics.median(ours) * 1e6), "pool_p50_us": round(statistics.median(theirs) * 1e6)}
    report("remote, between two containers", {"portico": spread(ours), "multiprocessing": spread(theirs)} | fine)
    report(
        f"map of {INPUTS} over two containers, per second",
        {
            "portico": round(statistics.median(rates)),
            "multiprocessing": round(statistics.median(pooled)),
            "rates": " ".join(f"{rate:.0f}" for rate in rates),
        },
    )


def _timed(pool: multiprocessing.pool.Pool, value: int) -> float:
    began = time.perf_counter()
    pool.apply(_echo, (value,))
    return time.perf_counter() - began


def _echo(value: int) -> int:
    return value


if __name__ == "__main__":
    main()
