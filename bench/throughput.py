"""Throughput and latency with wrk at 32 connections: through the ingress, and the same app on bare uvicorn."""

from __future__ import annotations

import statistics

from bench.stand import APPS, command, get, get_when_up, report, stand, uvicorn, wrk

CONNECTIONS = 32


def main(quick: bool = False) -> None:
    """In turns: A B A B …; the ratio of each pair, and its median."""
    rounds, seconds = (1, 1) if quick else (5, 4)
    with stand() as here, uvicorn("bare:warm") as port:
        host = here.deploy(APPS / "warm_app.py")["hello"]
        assert get_when_up(port) == get(here.port, host)
        pairs = []
        for _ in range(rounds):
            bare = wrk(port, "localhost", connections=CONNECTIONS, seconds=seconds)
            ours = wrk(here.port, host, connections=CONNECTIONS, seconds=seconds)
            pairs.append((ours, bare))
    ratios = [ours["rps"] / bare["rps"] for ours, bare in pairs]
    report(
        "throughput, 32 connections",
        {
            "portico": _median([ours for ours, _ in pairs]),
            "bare uvicorn": _median([bare for _, bare in pairs]),
            "ratio": round(statistics.median(ratios), 3),
            "ratios": " ".join(f"{ratio:.2f}" for ratio in ratios),
        },
    )


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}


if __name__ == "__main__":
    command(main)
