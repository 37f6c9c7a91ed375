"""How the cost of a request grows: with the number of deployed functions, and of containers of one function.

All sizes are up at the same time, each number of functions on a server of its own, and are asked in turns.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.latency import Asker, in_pairs, median_ms
from bench.load import in_turns, portico, shown
from bench.results import Goal, Run, Table
from bench.stand import Stand, get, memory, spread, stand

CONNECTIONS = 16
EACH = 100  # functions of one app
APP = """import modal

app = modal.App("{app}")


def endpoint(name):
    async def hello():
        return {{"message": "Hello world!"}}

    hello.__name__ = hello.__qualname__ = name
    return app.function(scaledown_window=2, name=name)(modal.fastapi_endpoint()(hello))


for n in range({number}):
    globals()[f"hello{{n}}"] = endpoint(f"hello{{n}}")
"""
SCALED = """import modal

app = modal.App("bench-scaled-{number}")


@app.function(min_containers={number}, max_containers={number})
@modal.fastapi_endpoint()
async def hello():
    return {{"message": "Hello world!"}}
"""


def main(run: Run) -> Iterator[Table]:
    """Two tables, one for each kind of growth."""
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder:
        with contextlib.ExitStack() as stack:
            yield _functions(run, Path(folder), stack)
        with stand() as here:
            yield _containers(run, Path(folder), here)


def _functions(run: Run, folder: Path, stack: contextlib.ExitStack) -> Table:
    sizes, requests = ([1, 10], 20) if run.quick else ([1, 10, 100, 1000], 3000)
    servers = {size: stack.enter_context(stand(alone=True)) for size in sizes}
    hosts, took = {}, {}
    for size, here in servers.items():
        began = time.perf_counter()
        hosts[size] = _deploy(here, folder, size)
        took[size] = time.perf_counter() - began
    for size, here in servers.items():
        get(here.port, hosts[size])
    askers = [Asker(here.port, hosts[size]) for size, here in servers.items()]
    times = dict(zip(sizes, in_pairs(askers, requests), strict=True))
    figures = {
        str(size): {
            **spread(values, 3),
            "server_mb": memory(servers[size].server.pid)["uss"],
            "deploy_s": round(took[size], 1),
        }
        for size, values in times.items()
    }
    return Table("a request, by the number of deployed functions", figures, (_flat("deployed functions", times),))


def _containers(run: Run, folder: Path, here: Stand) -> Table:
    sizes, requests, rounds, seconds = ([1, 2], 20, 1, 1) if run.quick else ([1, 5, 10, 20], 3000, 4, 2)
    sides = {}
    for size in sizes:
        before = here.container_pids()
        file = folder / f"scaled{size}.py"
        file.write_text(SCALED.format(number=size))
        host = here.deploy(file)["hello"]
        while here.containers(f"bench-scaled-{size}") < size:
            time.sleep(0.1)
        sides[str(size)] = portico(here, host, before)
    askers = [Asker(here.port, side.host) for side in sides.values()]
    times = dict(zip(sizes, in_pairs(askers, requests), strict=True))
    samples = in_turns(sides, rounds, connections=CONNECTIONS, seconds=seconds)
    figures = {
        str(size): {**spread(times[size], 3), f"with {CONNECTIONS} connections": shown(samples[str(size)])}
        for size in sizes
    }
    return Table("a request, by the number of containers", figures, (_flat("containers of one function", times),))


def _deploy(here: Stand, folder: Path, number: int) -> str:
    """So many functions, in apps of at most a hundred; the host of one of them."""
    hosts: dict[str, str] = {}
    for first in range(0, number, EACH):
        file = folder / f"grown{number}_{first}.py"
        file.write_text(APP.format(app=f"grown-{first}", number=min(EACH, number - first)))
        hosts = here.deploy(file)
    return next(iter(hosts.values()))


def _flat(what: str, times: dict[int, list[float]]) -> Goal:
    p50 = {size: median_ms(values) for size, values in times.items()}
    base = min(p50)
    slowest = max(p50, key=lambda size: p50[size])
    return Goal(
        f"p50 with {base} to {max(p50):,} {what}, the slowest against {base}",
        p50[slowest] / p50[base],
        at_most=1.1,
        ours=f"{p50[slowest]:.3f} ms with {slowest:,}",
        beside=f"{p50[base]:.3f} ms with {base}",
    )
