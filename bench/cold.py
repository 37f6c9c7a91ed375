"""Cold start: the first request to a function without containers, to its last byte.

Against a fresh uvicorn and a replica of Ray Serve; and the same with a module that takes long to import.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence

from bench import sides
from bench.results import Goal, Run, Table
from bench.stand import APPS, Stand, get, get_when_up, quantile, spread, stand, uvicorn

ANSWER = b'{"square":9}'


def main(run: Run) -> Iterator[Table]:
    """Rounds of cold starts and a few fresh uvicorns; then some replicas of Ray Serve."""
    rounds, uvicorns = (1, 1) if run.quick else (5, 3)
    cold: list[float] = []
    fresh: list[float] = []
    with stand() as here:
        hosts = here.deploy(APPS / "cold_app.py")
        for _ in range(rounds):
            cold += _cold(here, "cold", list(hosts.values())[: 3 if run.quick else None])
            fresh += [_fresh("bare:cold") for _ in range(uvicorns)]
    sides_ = {"portico": spread(cold), "fresh uvicorn": spread(fresh)}
    if run.peers:
        sides_["Ray Serve replica"] = spread(_replicas(1 if run.quick else 5))
    beside = ", ".join(f"{row['p50_ms']:,.0f} ms {name}" for name, row in sides_.items() if name != "portico")
    yield Table(
        "cold start",
        {
            **sides_,
            "times faster than uvicorn": round(sides_["fresh uvicorn"]["p50_ms"] / sides_["portico"]["p50_ms"], 1),
        },
        (
            _goal("cold start, p50", statistics.median(cold), 30, beside),
            _goal("cold start, p99", quantile(cold, 0.99), 80, f"{sides_['fresh uvicorn']['p99_ms']:,.0f} ms uvicorn"),
        ),
    )


def heavy(run: Run) -> Iterator[Table]:
    """numpy and pandas at the top of the module: as it is, with a snapshot, and what a light module takes meanwhile."""
    rounds = 1 if run.quick else 4
    kinds = {"light": "light", "numpy and pandas": "plain", "numpy and pandas, snapshot": "snapshot"}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    fresh: list[float] = []
    with stand() as here:
        hosts = here.deploy(APPS / "heavy_app.py") | here.deploy(APPS / "light_app.py")
        for _ in range(rounds):
            for name, prefix in kinds.items():
                names = [function for function in hosts if function.startswith(prefix)]
                app = "bench-light" if prefix == "light" else "bench-heavy"
                times[name] += _cold(here, app, [hosts[function] for function in names])
            if run.peers:
                fresh.append(_fresh("heavy:application", python=str(sides.installed("python"))))
    p50 = {name: statistics.median(values) for name, values in times.items()}
    snapshot, light = p50["numpy and pandas, snapshot"], p50["light"]
    plain = p50["numpy and pandas"]
    beside = f"{plain * 1000:,.0f} ms without" + (f", {statistics.median(fresh) * 1000:,.0f} ms uvicorn" * bool(fresh))
    yield Table(
        "cold start of a module that imports numpy and pandas",
        {
            **{name: spread(values) for name, values in times.items()},
            **({"fresh uvicorn": spread(fresh)} if fresh else {}),
        },
        (
            Goal(
                "cold start with numpy, pandas and `enable_memory_snapshot`, against a light module",
                snapshot / light,
                at_most=1.1,
                ours=f"{snapshot * 1000:.1f} ms",
                beside=f"{light * 1000:.1f} ms light; {beside}",
            ),
        ),
    )


def _goal(figure: str, seconds: float, at_most: float, beside: str) -> Goal:
    return Goal(figure, seconds * 1000, "ms", at_most=at_most, ours=f"{seconds * 1000:.1f} ms", beside=beside)


def _cold(here: Stand, app: str, hosts: Sequence[str]) -> list[float]:
    """The first request to each of these, when the app has no containers any more."""
    wait_for_zero(here, app)
    times = []
    for host in hosts:
        began = time.perf_counter()
        assert get(here.port, host) == ANSWER
        times.append(time.perf_counter() - began)
    return times


def _fresh(module: str, python: str = sys.executable) -> float:
    began = time.perf_counter()
    with uvicorn(module, python=python) as port:
        assert get_when_up(port) == ANSWER
        return time.perf_counter() - began


def _replicas(number: int) -> list[float]:
    """The first request to each of so many deployments of Ray Serve without a replica."""
    times = []
    with sides.ray_serve(cold=number) as other:
        for n in range(number):
            began = time.perf_counter()
            assert get_when_up(other.port, f"/cold{n}/") == ANSWER
            times.append(time.perf_counter() - began)
    return times


def wait_for_zero(here: Stand, app: str) -> None:
    """Until no container of the app is left, and a moment more: what ends computes, too."""
    while here.containers(app):
        print(f"waiting for {app} to scale to zero", file=sys.stderr)
        time.sleep(0.5)
    time.sleep(0.2)
