"""The measured parts of docs/performance.md and docs/reliability.md, from bench/results.json: `python -m bench.render`.

What stands between the marks is written anew; the prose around them stays. Plots need matplotlib, which is in
.venv-bench: `make bench-render`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.results import PROMISED, RESULTS, ROOT, Goal, read, under_load, with_unit

DOCS = ROOT / "docs"
PERFORMANCE, RELIABILITY = "performance.md", "reliability.md"
BEGIN = "<!-- measured: written by `make bench-render` from bench/results.json -->"
END = "<!-- end of what is measured -->"
PLOTS = {
    "throughput": "Requests per second of an async handler, for each peer",
    "latency": "Latency percentiles under load, for each peer",
    "growth": "Median latency by the number of functions and of containers",
}


def main() -> int:
    """0, or 1 where a page has no marks."""
    parser = argparse.ArgumentParser(prog="python -m bench.render", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder with the pages")
    asked = parser.parse_args()
    rows = read(asked.results)
    images = asked.docs / "img"
    try:
        from bench.plots import draw
    except ImportError:
        print("The plots stay as they are: there is no matplotlib here. With it: make bench-render", file=sys.stderr)
    else:
        draw(rows, images)
    drawn = [name for name in PLOTS if (images / f"{name}.svg").exists()]
    for name, measured in ((PERFORMANCE, rendered(rows, drawn)), (RELIABILITY, promised(rows))):
        page = asked.docs / name
        try:
            page.write_text(replaced(page.read_text(), measured))
        except ValueError as error:
            print(f"{page}: {error}", file=sys.stderr)
            return 1
    return 0


def replaced(page: str, measured: str) -> str:
    """The page with this between its marks. ValueError where they are not there, once each and in order."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"Where figures go is not marked: a line {BEGIN!r} and, below it, a line {END!r}.")
    return f"{before}{BEGIN}\n\n{measured}\n{END}{after}"


def promised(rows: dict[str, Any]) -> str:
    """Tables of what shows that promises are kept."""
    rows = {name: row for name, row in rows.items() if name in PROMISED}
    tables = [_plain(title, figures) for row in rows.values() for title, figures in row.get("tables", {}).items()]
    parts = [*tables, _goals(rows), _notes(rows)]
    return "\n".join(part + "\n" for part in parts if part) or (
        f"Nothing has been measured yet: `python -m bench {' '.join(PROMISED)}`, and `make bench-render`.\n"
    )


def rendered(rows: dict[str, Any], drawn: list[str]) -> str:
    """Tables of everything else that was measured, with these plots."""
    rows = {name: row for name, row in rows.items() if name not in PROMISED}
    parts = [_goals(rows), _under_load(rows), _grown(rows), *_pictures(drawn), _notes(rows)]
    return "\n".join(part + "\n" for part in parts if part) or "Nothing has been measured yet: `make bench`.\n"


def _goals(rows: dict[str, Any]) -> str:
    goals = [Goal(**goal) for row in rows.values() for goal in row.get("goals", ())]
    if not goals:
        return ""
    claimed = [goal for goal in goals if goal.limit]
    met = sum(goal.met for goal in claimed)
    return _table(
        f"{met} of {len(claimed)} goals are met.", ["", "Portico", "Beside it", "Figure", "Goal", ""], map(_line, goals)
    )


def _plain(title: str, figures: dict[str, Any]) -> str:
    lines = [f"| {key} | {_shown(value)} |" for key, value in figures.items()]
    return _table(f"{title.capitalize()}:", ["", ""], lines)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items())
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _table(says: str, columns: list[str], lines: Iterable[str]) -> str:
    return "\n".join([says, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *lines])


def _line(goal: Goal) -> str:
    says = ("met" if goal.met else "**not met**") if goal.limit else ""
    figure = with_unit(goal.value, goal.unit)
    return f"| {goal.figure} | {goal.ours} | {goal.beside} | {figure} | {goal.limit} | {says} |"


def _under_load(rows: dict[str, Any]) -> str:
    lines = []
    for connections in (32, 256):
        for name, figures in under_load(rows, connections).items():
            rps, costs = figures["rps"], figures["cpu_us"]
            cost = ", ".join(f"{part} {value:,.0f}" for part, value in costs.items())
            lines.append(
                f"| {connections} | {name} | {rps['median']:,.0f} ({rps['min']:,.0f} to {rps['max']:,.0f}) "
                f"| {figures['p50']:.2f} | {figures['p90']:.2f} | {figures['p99']:.2f} | {cost} |"
            )
    if not lines:
        return ""
    says = (
        "An async handler under load: median of the rounds, with the least and the most; times in ms; processor time "
        'of each part in µs per request. Where a part is "all", several processes of the peer share the work.'
    )
    return _table(says, ["Connections", "", "Requests/s", "p50", "p90", "p99", "CPU"], lines)


def _grown(rows: dict[str, Any]) -> str:
    lines = []
    for title, figures in rows.get("growth", {}).get("tables", {}).items():
        for size, values in figures.items():
            load = next((value for value in values.values() if isinstance(value, dict)), None)
            more = (
                f"{values['server_mb']} MB, deployed in {values['deploy_s']} s"
                if load is None
                else f"{load['rps']['median']:,.0f}/s, ingress {load['cpu_us']['ingress']:.0f} µs each"
            )
            lines.append(f"| {title}: {size} | {values['p50_ms']:.3f} ms | {values['p99_ms']:.3f} ms | {more} |")
    if not lines:
        return ""
    return _table("How cost grows:", ["", "p50", "p99", ""], lines)


def _pictures(drawn: list[str]) -> Iterator[str]:
    for name in drawn:
        yield f"![{PLOTS[name]}](img/{name}.svg)"


def _notes(rows: dict[str, Any]) -> str:
    """Where, when and of which commit; what failed."""
    where: dict[str, list[str]] = {}
    for name, row in rows.items():
        if "machine" in row:
            machine = row["machine"]
            place = (
                f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, Python {machine['python']}, "
                f"{row['at'][:10]}, commit {row['commit']}, load before {machine['load']}"
            )
            where.setdefault(place, []).append(name)
    lines = [f"- {place}: {', '.join(names)}." for place, names in where.items()]
    lines += [
        f"- The last run of {name} failed: {row['failed']}. Its figures are of the run before."
        for name, row in rows.items()
        if "failed" in row
    ]
    return "Measured on:\n\n" + "\n".join(lines) if lines else ""


if __name__ == "__main__":
    sys.exit(main())
