"""What people wait for at the terminal, against a Python that does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.reload import OURS
from bench.results import Goal, Run, Table
from bench.stand import free_port, spread, stand

PORTICO = str(Path(sys.executable).with_name("portico"))
NOTHING = "python -c pass"


def main(run: Run) -> Iterator[Table]:
    """In turns; `serve` starts a server each time, in a home where it has run before."""
    rounds, serves = (1, 1) if run.quick else (21, 9)
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder, stand() as here:
        commands = {
            NOTHING: [sys.executable, "-c", "pass"],
            "import portico": [sys.executable, "-c", "import portico"],
            "portico --help": [PORTICO, "--help"],
            "portico app list": [PORTICO, "app", "list"],
        }
        asks: dict[str, Callable[[], float]] = {
            name: lambda command=command: _seconds(command, here.env) for name, command in commands.items()
        }
        home = {"PORTICO_HOME": f"{folder}/home", "PORTICO_LISTEN": f"127.0.0.1:{free_port()}"}
        file = Path(folder) / "app.py"
        file.write_text(OURS.format(number=1))
        _serve(file, here.env | home)
        times: dict[str, list[float]] = {name: [] for name in asks}
        for _ in range(rounds):
            for name, ask in asks.items():
                times[name].append(ask())
        serve = [_serve(file, here.env | home) for _ in range(serves)]
    nothing = statistics.median(times[NOTHING]) * 1000
    goals = [
        _goal("`import portico`, more than `python -c pass`", times["import portico"], 80, nothing, minus=nothing),
        _goal("`portico --help`", times["portico --help"], 180, nothing),
        _goal("`portico app list`", times["portico app list"], 300, nothing),
        _goal("`portico serve` until the URL is printed", serve, 1000, nothing),
    ]
    rows = {name: spread(values) for name, values in times.items()}
    yield Table("commands", {**rows, "portico serve, to the URL": spread(serve)}, tuple(goals))


def _goal(figure: str, times: list[float], at_most: float, nothing: float, *, minus: float = 0) -> Goal:
    took = statistics.median(times) * 1000
    beside = f"{nothing:.0f} ms, `{NOTHING}`"
    return Goal(figure, took - minus, "ms", at_most=at_most, ours=f"{took:.0f} ms", beside=beside)


def _seconds(command: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _serve(file: Path, env: dict[str, str]) -> float:
    """From the start of the command to its first URL. It has ended, with its server, when this returns."""
    began = time.perf_counter()
    env = env | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([PORTICO, "serve", str(file)], env=env, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        try:
            next(line for line in command.stdout if "http://" in line)
            took = time.perf_counter() - began
        finally:
            command.terminate()
            command.communicate()
    return took
