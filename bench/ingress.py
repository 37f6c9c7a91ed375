"""One ingress process and two: requests per second of two functions together, each in a process of its own.

Two loads, in turns. `served`: the containers answer, as ever; where these and wrk need more of the cores than the
ingress does, a second ingress process has nothing to take. `turned away`: the ingress alone answers, 401 for want of a
key, so that what is measured is the ingress, and the wrk beside it.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil

from bench.load import Sample, Side, rate, ratio, shown, wrk
from bench.results import Goal, Run, Table
from bench.stand import Stand, get, seconds_of, stand
from portico.core.rendezvous import owner

CONNECTIONS = 32  # for each of the functions
APP = """import modal

app = modal.App("bench-{kind}")


def endpoint(name):
    async def hello():
        return {{"message": "Hello world!"}}

    hello.__name__ = hello.__qualname__ = name
    web = modal.fastapi_endpoint(requires_proxy_auth={protected})(hello)
    return app.function(name=name)(modal.concurrent(max_inputs=1000)(web))


for name in {names}:
    globals()[name] = endpoint(name)
"""


def main(run: Run) -> Iterator[Table]:
    """A table for each load, with the goal that two functions go beyond one process where the ingress is the limit."""
    rounds, seconds = (1, 1) if run.quick else (8, 2)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="portico-bench-")))
        servers = {number: stack.enter_context(stand("--ingress", str(number), alone=True)) for number in (1, 2)}
        for kind, protected in (("served", False), ("turned away", True)):
            pairs = {number: _deployed(here, folder, kind, protected=protected) for number, here in servers.items()}
            samples = _in_turns(pairs, rounds, seconds, refused=protected)
            yield _table(kind, samples, goal=protected)


def _deployed(here: Stand, folder: Path, kind: str, *, protected: bool) -> list[Side]:
    """Two functions of which, with two processes, each has one."""
    word = kind.replace(" ", "-")
    names = [
        next(name for name in (f"f{n}" for n in range(100)) if owner(f"main/bench-{word}/{name}", 2) == process)
        for process in (0, 1)
    ]
    file = folder / f"{word.replace('-', '_')}.py"
    file.write_text(APP.format(kind=word, names=names, protected=protected))
    hosts = here.deploy(file)
    if not protected:
        for host in hosts.values():
            get(here.port, host)
    containers = [psutil.Process(pid) for pid in here.container_pids()]
    ingress = [here.server, *(child for child in here.server.children() if "portico.server.shard" in child.cmdline())]
    return [Side(here.port, hosts[name], processes={"ingress": ingress, "app": containers}) for name in names]


def _in_turns(pairs: dict[int, list[Side]], rounds: int, seconds: float, *, refused: bool) -> dict[int, list[Sample]]:
    samples: dict[int, list[Sample]] = {number: [] for number in pairs}
    order = list(pairs)
    for number in order if rounds > 1 else ():
        _together(pairs[number], 1, refused=refused)
    for _ in range(rounds):
        for number in order:
            samples[number].append(_together(pairs[number], seconds, refused=refused))
        order.append(order.pop(0))
    return samples


def _together(sides: Sequence[Side], seconds: float, *, refused: bool) -> Sample:
    """Both functions at the same time, a wrk each: the rates together, the latencies' means, the cost of a request."""
    processes = sides[0].processes
    before = {part: sum(map(seconds_of, members)) for part, members in processes.items()}
    with ThreadPoolExecutor(len(sides)) as threads:
        running = [
            threads.submit(wrk, replace(side, processes={}), connections=CONNECTIONS, seconds=seconds, refused=refused)
            for side in sides
        ]
        found = [future.result() for future in running]
    after = {part: sum(map(seconds_of, members)) for part, members in processes.items()}
    requests = sum(sample["requests"] for sample in found)
    latencies = {key: statistics.mean(sample[key] for sample in found) for key in ("p50", "p75", "p90", "p99")}
    cost = {part: (after[part] - before[part]) / requests * 1e6 for part in before}
    return {"rps": sum(sample["rps"] for sample in found), **latencies, "cpu_us": cost}


def _table(kind: str, samples: dict[int, list[Sample]], *, goal: bool) -> Table:
    return Table(
        f"requests per second of two functions, {kind}, {CONNECTIONS} connections each",
        {f"--ingress {number}": shown(values) for number, values in samples.items()},
        (
            Goal(
                f"requests/s of two functions, {kind}, two ingress processes",
                ratio(samples[2], samples[1]),
                at_least=1.0 if goal else None,
                ours=rate(samples[2]),
                beside=f"{rate(samples[1])}, one ingress process",
            ),
        ),
    )
