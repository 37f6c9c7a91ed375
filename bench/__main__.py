"""The measurements that are named, or all, one after the other.

Each prints a short table on stderr and one JSON object for each table on stdout, and its figures go to the file of
results. One that fails is reported at the end; the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import (
    bodies,
    burst,
    calls,
    cold,
    commands,
    deploying,
    growth,
    idle_connections,
    idle_memory,
    ingress,
    latency,
    limits,
    reload,
    rollouts,
    soak,
    streaming,
    throughput,
    websocket,
)
from bench.results import PROMISED, RESULTS, Run, Table, keep, keep_failure, machine, show
from bench.stand import stand

LIMIT = 420  # seconds for one measurement, beside a soak's own
ROWS: dict[str, Callable[[Run], Iterator[Table]]] = {
    "throughput": throughput.main,
    "ray_serve": throughput.ray_serve,
    "bentoml": throughput.bentoml,
    "litserve": throughput.litserve,
    "sync": throughput.sync,
    "raw": throughput.raw,
    "latency": latency.main,
    "cold": cold.main,
    "heavy": cold.heavy,
    "burst": burst.main,
    "reload": reload.main,
    "deploying": deploying.main,
    "calls": calls.main,
    "websocket": websocket.main,
    "bodies": bodies.main,
    "streaming": streaming.main,
    "limits": limits.main,
    "idle_memory": idle_memory.main,
    "idle_connections": idle_connections.main,
    "commands": commands.main,
    "growth": growth.main,
    "ingress": ingress.main,
    "rollouts": rollouts.main,
    "soak": soak.main,
}

USUAL = [name for name in ROWS if name != "soak"]  # which takes ten minutes, and is asked for by name


def main() -> int:
    """0, or 1 where a measurement has failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean nothing")
    parser.add_argument("--minutes", type=float, help="how long the soak goes on (10)")
    parser.add_argument("--requests", type=int, help="how many rollouts counts at least (20,000)")
    parser.add_argument("--no-peers", action="store_true", help="without what only .venv-bench and apt have")
    parser.add_argument("--results", type=Path, help=f"where figures go (default: {RESULTS.name}; not if --quick)")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.names) - set(ROWS)):
        parser.error(f"There is no measurement {', '.join(unknown)}; there are {', '.join(ROWS)}.")
    file = asked.results or (None if asked.quick else RESULTS)
    run = Run(quick=asked.quick, peers=not asked.no_peers, minutes=asked.minutes, requests=asked.requests)
    signal.signal(signal.SIGTERM, _stopped)
    where = machine()
    with stand() if asked.quick else contextlib.nullcontext():
        failed = [name for name in asked.names or USUAL if not _measure(name, run, file, where)]
    if failed:
        print(f"\nFailed: {' '.join(failed)}. Again: python -m bench {' '.join(failed)}", file=sys.stderr)
    return bool(failed)


def _measure(name: str, run: Run, file: Path | None, where: dict[str, Any]) -> bool:
    began = time.monotonic()
    tables = []
    signal.signal(signal.SIGALRM, _too_long)
    limit = LIMIT + (round(60 * (run.minutes or 10)) if name == "soak" else 0)
    signal.alarm(limit)
    try:
        for table in ROWS[name](run):
            show(table)
            tables.append(table)
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit):
            print(f"\n{name}: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        if file:
            keep_failure(file, name, f"{type(error).__name__}: {error}"[:200])
        return False
    finally:
        signal.alarm(0)
    if file:
        keep(file, name, tables, time.monotonic() - began, where)
    return name not in PROMISED or all(goal.met for table in tables for goal in table.goals)


def _stopped(*_: object) -> None:
    raise KeyboardInterrupt  # so that everything that runs is ended


def _too_long(*_: object) -> None:
    raise TimeoutError("not done in time")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
