"""Cold start: the first request to a function without containers, to its last byte, against a fresh uvicorn."""

from __future__ import annotations

import sys
import time

from bench.stand import APPS, Stand, command, get, get_when_up, report, spread, stand, uvicorn


def main(quick: bool = False) -> None:
    """Rounds of ten cold starts and a few fresh uvicorns."""
    rounds, uvicorns = (1, 1) if quick else (4, 3)
    cold: list[float] = []
    fresh: list[float] = []
    with stand() as here:
        hosts = here.deploy(APPS / "cold_app.py")
        for _ in range(rounds):
            _wait_for_zero(here)
            for host in hosts.values():
                began = time.perf_counter()
                assert get(here.port, host) == b'{"square":9}'
                cold.append(time.perf_counter() - began)
            for _ in range(uvicorns):
                began = time.perf_counter()
                with uvicorn("bare:cold") as port:
                    assert get_when_up(port) == b'{"square":9}'
                    fresh.append(time.perf_counter() - began)
    ours, theirs = spread(cold), spread(fresh)
    report(
        "cold start",
        {"portico": ours, "fresh uvicorn": theirs, "times faster": round(theirs["p50_ms"] / ours["p50_ms"], 1)},
    )


def _wait_for_zero(here: Stand) -> None:
    while here.containers("cold"):
        print("waiting for the function to scale to zero", file=sys.stderr)
        time.sleep(0.5)


if __name__ == "__main__":
    command(main)
