"""Load: wrk against one of several sides in turns, with the processor time that each process of a side took."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.stand import Stand, get, seconds_of, summary

Sample = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """What is asked. processes: what each of its parts computes with; a part is all processes of one role."""

    port: int
    host: str = "localhost"
    path: str = "/"
    script: Path | None = None
    processes: Mapping[str, Sequence[psutil.Process]] = field(default_factory=dict)


def portico(here: Stand, host: str, before: Sequence[int] = ()) -> Side:
    """A deployed function. before: containers that there were before it was deployed."""
    get(here.port, host)
    containers = [psutil.Process(pid) for pid in here.container_pids() if pid not in before]
    return Side(here.port, host, processes={"ingress": [here.server], "app": containers})


def wrk(side: Side, *, connections: int, seconds: float, refused: bool = False) -> Sample:
    """Requests per second, percentiles of the latency in ms, and µs of processor time per request for each part.

    refused: answers are not to be good ones.
    """
    if shutil.which("wrk") is None:
        raise SystemExit("wrk makes the load of this measurement, and is not installed: make bench-packages")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "20s", "--latency"]
    command += ["-H", f"Host: {side.host}", *(["-s", str(side.script)] if side.script else [])]
    before = {part: _computed(processes) for part, processes in side.processes.items()}
    url = f"http://127.0.0.1:{side.port}{side.path}"
    out = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    after = {part: _computed(processes) for part, processes in side.processes.items()}
    if ("Non-2xx" in out) != refused or "Socket errors" in out:
        raise RuntimeError(f"wrk at {url}:\n{out}")
    words = [line.split() for line in out.splitlines() if len(line.split()) > 1]
    fields = {line[0]: line[1] for line in words}
    requests = next(int(line[0]) for line in words if line[1] == "requests")
    latencies = {f"p{part}": _ms(fields[f"{part}%"]) for part in (50, 75, 90, 99)}
    cost = {part: (after[part] - before[part]) / requests * 1e6 for part in before}
    return {"rps": float(fields["Requests/sec:"]), "requests": requests, **latencies, "cpu_us": cost}


def in_turns(sides: Mapping[str, Side], rounds: int, *, connections: int, seconds: float) -> dict[str, list[Sample]]:
    """The samples of each side: A B C, B C A, …; so that nobody always comes first.

    A first second of each does not count, unless there is only one round, of a quick run.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    order = list(sides)
    for side in sides.values() if rounds > 1 else ():
        wrk(side, connections=connections, seconds=1)
    for _ in range(rounds):
        for name in order:
            samples[name].append(wrk(sides[name], connections=connections, seconds=seconds))
        order.append(order.pop(0))
    return samples


def shown(samples: Sequence[Sample]) -> dict[str, Any]:
    """Medians of all rounds, and the spread of the rate."""
    row: dict[str, Any] = {"rps": summary([sample["rps"] for sample in samples], 0)}
    for key in ("p50", "p75", "p90", "p99"):
        row[key] = round(statistics.median(sample[key] for sample in samples), 3)
    parts = samples[0]["cpu_us"]
    row["cpu_us"] = {part: round(cpu(samples, part), 1) for part in parts}
    return row


def ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> float:
    """The median of the rounds' ratios of rates: what disturbs a round disturbs both."""
    return statistics.median(a["rps"] / b["rps"] for a, b in zip(ours, theirs, strict=True))


def rate(samples: Sequence[Sample]) -> str:
    """The median rate, for people."""
    return f"{statistics.median(sample['rps'] for sample in samples):,.0f}/s"


def cpu(samples: Sequence[Sample], part: str) -> float:
    """The median of µs per request."""
    return statistics.median(sample["cpu_us"][part] for sample in samples)


def _computed(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += seconds_of(process)
    return total


def _ms(text: str) -> float:
    for unit, factor in (("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)
