"""What a measurement yields, and the file where the last figures of each measurement are kept."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
UNDER_LOAD = "requests per second, async handler, "  # how the titles of these tables begin
RESULTS = Path(__file__).with_name("results.json")
PROMISED = ("soak", "rollouts")  # what they look for is promised: a goal that is not met is a failure


@dataclass(frozen=True)
class Run:
    """quick: small sizes, that show that it works; the figures mean nothing. peers: with what .venv-bench has.

    minutes: how long a soak goes on, where that was said. requests: how many `rollouts` counts at least, likewise.
    """

    quick: bool = False
    peers: bool = True
    minutes: float | None = None
    requests: int | None = None


@dataclass(frozen=True)
class Goal:
    """A figure that is to reach a goal. `ours` and `beside`: what it was made of, for people."""

    figure: str
    value: float
    unit: str = "×"
    at_least: float | None = None
    at_most: float | None = None
    ours: str = ""
    beside: str = ""

    @property
    def met(self) -> bool:
        """As it was measured, without rounding in our favour."""
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    @property
    def limit(self) -> str:
        """The goal, for people; empty where the figure has none."""
        if self.at_least is not None:
            return f"≥ {with_unit(self.at_least, self.unit)}"
        return f"≤ {with_unit(self.at_most, self.unit)}" if self.at_most is not None else ""


@dataclass(frozen=True)
class Table:
    """Figures under a name, and which of them have goals."""

    name: str
    figures: dict[str, Any]
    goals: tuple[Goal, ...] = ()


def with_unit(value: float, unit: str) -> str:
    """A figure, with as many digits as say something."""
    digits = 0 if unit == "/s" or abs(value) >= 1000 else 3 if abs(value) < 1 else 2 if abs(value) < 100 else 1
    number = f"{value:,.{digits}f}"
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return {"×": number, "/s": f"{number}/s"}.get(unit, f"{number} {unit}")


def show(table: Table) -> None:
    """For people on stderr, for programs on stdout."""
    print(f"\n{table.name}", file=sys.stderr)
    for key, value in table.figures.items():
        shown = "  ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"  {key:<28} {shown}", file=sys.stderr)
    for goal in table.goals:
        says = ("met" if goal.met else "NOT MET") if goal.limit else ""
        print(f"  {says:<8}{goal.figure}: {with_unit(goal.value, goal.unit)}  {goal.limit}", file=sys.stderr)
    print(json.dumps({table.name: table.figures}), flush=True)


def keep(file: Path, name: str, tables: list[Table], seconds: float, where: dict[str, Any]) -> None:
    """These are from now on the figures of the measurement of this name; all others stay as they are."""
    row = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds),
        "commit": _commit(),
        "machine": where,
        "tables": {table.name: table.figures for table in tables},
        "goals": [dataclasses.asdict(goal) for table in tables for goal in table.goals],
    }
    _write(file, read(file) | {name: row})


def keep_failure(file: Path, name: str, message: str) -> None:
    """The measurement has failed; the figures that it had stay, with a mark that says so."""
    rows = read(file)
    _write(file, rows | {name: rows.get(name, {}) | {"failed": message}})


def read(file: Path) -> dict[str, Any]:
    """The rows of the file; none where there is no file."""
    try:
        rows: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise SystemExit(f"{file} is no JSON ({error}). Restore it, or delete it and measure again.") from None
    return rows


def under_load(rows: dict[str, Any], connections: int) -> dict[str, dict[str, Any]]:
    """The fastest first: each peer's figures with so many connections; Portico's beside the light peers."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows.values():
        for title, figures in row.get("tables", {}).items():
            if title.startswith(f"{UNDER_LOAD}{connections} connections"):
                found = figures | found
    return dict(sorted(found.items(), key=lambda item: -item[1]["rps"]["median"]))


def machine() -> dict[str, Any]:
    """What it measures on, and how much that does already."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "cpu": cpu.partition(":")[2].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def _write(file: Path, rows: dict[str, Any]) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    fresh.replace(file)


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
