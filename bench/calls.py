"""Calls between warm containers: the round trip of `.remote()`, the rate of `.map()` over two, one large argument.

Beside them Ray: the same between two warm actors, and as tasks on two workers; it runs in an environment of its own,
which `make bench-peers` makes. And the pools of the standard library's multiprocessing, which have no network, no
limits and no queue between them.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any, cast

import psutil

from bench.results import Goal, Run, Table
from bench.sides import PEERS, installed, ray_env
from bench.stand import APPS, Stand, get, seconds_of, spread, stand, summary

MB = 1_000_000


def main(run: Run) -> Iterator[Table]:
    """In turns: ours, Ray's, ours, …"""
    rounds, calls, inputs, size = (1, 10, 100, MB) if run.quick else (7, 300, 5000, 100 * MB)
    with stand() as here, contextlib.ExitStack() as peers:
        ours = Containers(here)
        sides: dict[str, Any] = {"portico": ours}
        if run.peers:
            sides["ray"] = peers.enter_context(asked([str(installed("python")), str(PEERS / "ray_calls.py")]))
        sides["multiprocessing"] = peers.enter_context(asked([sys.executable, str(PEERS / "process_calls.py")]))
        trips: dict[str, list[float]] = {name: [] for name in sides}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        copied: dict[str, list[float]] = {name: [] for name in sides}
        computed: list[float] = []
        for side in sides.values():
            side.ask("round_trips", calls)
            side.ask("mapping", inputs)
            side.ask("argument", size)
        for _ in range(rounds):
            for name, side in sides.items():
                trips[name] += side.ask("round_trips", calls)
            for name, side in sides.items():
                before = ours.computed
                rates[name].append(side.ask("mapping", inputs))
                if side is ours:
                    computed.append((ours.computed - before) / inputs * 1e6)
            for name, side in sides.items():
                copied[name].append(size / 1e9 / side.ask("argument", size))
    yield _table(
        "a call and its result, between two warm containers",
        _compare(trips, spread, 3, lower=True),
        "`.remote()`, p50",
        {name: statistics.median(values) * 1000 for name, values in trips.items()},
        "ms",
        at_most=0.5,
    )
    mapped = _compare(rates, summary, 0, lower=False)
    mapped["portico's CPU for each, µs"] = summary(computed, 0)
    title = f"map of {inputs} over two containers, per second"
    yield _table(title, mapped, "`.map()`, calls/s", _medians(rates), "/s", at_least=4000)
    title = f"an argument of {size // MB} MB, GB/s"
    yield _table(
        title, _compare(copied, summary, 2, lower=False), "100 MB argument", _medians(copied), "GB/s", at_least=0.5
    )


def _medians(sides: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in sides.items()}


def _table(title: str, figures: dict[str, Any], name: str, medians: dict[str, float], unit: str, **goal: Any) -> Table:
    shown = {side: f"{value:,.0f}{unit}" if unit == "/s" else f"{value:.2f} {unit}" for side, value in medians.items()}
    ours = shown.pop("portico")
    beside = ", ".join(f"{value} {side}" for side, value in shown.items())
    return Table(title, figures, (Goal(name, medians["portico"], unit, ours=ours, beside=beside, **goal),))


def _compare(sides: dict[str, list[float]], describe: Any, digits: int, *, lower: bool) -> dict[str, Any]:
    result = {name: describe(values, digits) for name, values in sides.items()}
    if "ray" in sides:
        ours, theirs = statistics.median(sides["portico"]), statistics.median(sides["ray"])
        result["times faster"] = round(theirs / ours if lower else ours / theirs, 2)
    return result


class Containers:
    """Functions of ours, asked through an endpoint: what is measured happens between containers."""

    def __init__(self, here: Stand) -> None:
        self._here = here
        self._port = here.port
        self._hosts = here.deploy(APPS / "calls_app.py")

    def ask(self, verb: str, number: int) -> Any:
        """What the endpoint of this name measures."""
        return json.loads(get(self._port, self._hosts[verb], f"/?number={number}"))

    @property
    def computed(self) -> float:
        """Seconds that the server and the containers have computed."""
        return sum(map(seconds_of, [self._here.server, *map(psutil.Process, self._here.container_pids())]))


class Peer:
    """A program that measures the same, asked through a pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, verb: str, number: int) -> Any:
        """What the method of this name measures."""
        questions, answers = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        print(json.dumps([verb, number]), file=questions, flush=True)
        return json.loads(answers.readline())


@contextlib.contextmanager
def asked(program: list[str]) -> Iterator[Peer]:
    """Such a program, until the end of the block."""
    with (
        ray_env() as env,
        subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process,
    ):
        yield Peer(process)
