"""Calls between warm containers: the round trip of `.remote()`, and the rate of `.map()` over two containers.

Beside them Ray: the same between two warm actors, and as tasks on two workers. It runs in an environment of its own,
which `make bench-peers` makes.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import psutil

from bench.stand import APPS, Stand, command, get, report, seconds_of, spread, stand, summary

ROUNDS = 7
PEERS = Path(__file__).parent / "peers"
PYTHON = Path(__file__).parent.parent / ".venv-bench" / "bin" / "python"


def main(quick: bool = False) -> None:
    """In turns: ours, Ray's, ours, …; `quick` leaves Ray out."""
    rounds, calls, inputs = (1, 10, 100) if quick else (ROUNDS, 300, 5000)
    with stand() as here, contextlib.ExitStack() as peers:
        ours = Containers(here)
        sides = {"portico": ours} if quick else {"portico": ours, "ray": peers.enter_context(ray())}
        trips: dict[str, list[float]] = {name: [] for name in sides}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        computed: list[float] = []
        for side in sides.values():
            side.ask("round_trips", calls)
            side.ask("mapping", inputs)
        for _ in range(rounds):
            for name, side in sides.items():
                trips[name] += side.ask("round_trips", calls)
            for name, side in sides.items():
                before = ours.computed
                rates[name].append(side.ask("mapping", inputs))
                if side is ours:
                    computed.append((ours.computed - before) / inputs * 1e6)
    report("a call and its result, between two warm containers", _compare(trips, spread, 3, lower=True))
    mapped = _compare(rates, summary, 0, lower=False)
    mapped["portico's CPU for each, µs"] = summary(computed, 0)
    report(f"map of {inputs} over two containers, per second", mapped)


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


class Ray:
    """Ray's actors and tasks, asked through a pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, verb: str, number: int) -> Any:
        """What the actor's method of this name measures."""
        questions, answers = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        print(json.dumps([verb, number]), file=questions, flush=True)
        return json.loads(answers.readline())


@contextlib.contextmanager
def ray() -> Iterator[Ray]:
    """A Ray of its own, until the end of the block."""
    if not PYTHON.exists():
        raise SystemExit("Ray is what this is measured against, and is not installed: make bench-peers")
    program = [str(PYTHON), str(PEERS / "ray_calls.py")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Ray(process)


if __name__ == "__main__":
    command(main)
