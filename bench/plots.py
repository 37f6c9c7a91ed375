"""The plots of docs/performance.md. The only file that knows matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from bench.results import under_load

OURS, THEIRS = "#d9480f", "#868e96"
matplotlib.use("svg")
# the same figures make the same file
plt.rcParams.update(
    {
        "svg.hashsalt": "portico",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def draw(rows: dict[str, Any], folder: Path) -> None:
    """Each plot whose figures are there, as an SVG file in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if under_load(rows, 32) and under_load(rows, 256):
        _throughput(rows, folder)
        _latency(rows, folder)
    if rows.get("growth", {}).get("tables"):
        _growth(rows["growth"]["tables"], folder)


def _throughput(rows: dict[str, Any], folder: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    for axis, connections in zip(axes, (32, 256), strict=True):
        found = dict(reversed(under_load(rows, connections).items()))
        rates = [row["rps"] for row in found.values()]
        medians = [rate["median"] for rate in rates]
        reach = [[rate["median"] - rate["min"] for rate in rates], [rate["max"] - rate["median"] for rate in rates]]
        colours = [_colour(name) for name in found]
        axis.barh(list(found), medians, xerr=reach, color=colours, error_kw={"lw": 0.8})
        axis.set_title(f"{connections} connections")
        axis.set_xlabel("requests per second: median, least and most")
    _save(figure, folder / "throughput.svg")


def _latency(rows: dict[str, Any], folder: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    colours = dict(
        zip(sorted(under_load(rows, 32) | under_load(rows, 256)), plt.colormaps["tab10"].colors, strict=False)
    )
    for axis, connections in zip(axes, (32, 256), strict=True):
        found = under_load(rows, connections)
        for name, row in found.items():
            percentiles = ("p50", "p75", "p90", "p99")
            style = (
                {"color": OURS, "lw": 2.5, "zorder": 3} if name == "portico" else {"color": colours[name], "lw": 1.2}
            )
            axis.plot(percentiles, [row[key] for key in percentiles], marker="o", ms=3, label=name, **style)
        axis.set_yscale("log")
        axis.set_title(f"{connections} connections")
        axis.set_ylabel("ms")
    axes[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, folder / "latency.svg")


def _growth(tables: dict[str, Any], folder: Path) -> None:
    figure, axes = plt.subplots(1, len(tables), figsize=(10, 3), squeeze=False)
    for axis, (title, figures) in zip(axes[0], tables.items(), strict=True):
        sizes = list(figures)
        for key, style in (("p50_ms", {"color": OURS, "lw": 2.5}), ("p99_ms", {"color": THEIRS})):
            axis.plot(sizes, [row[key] for row in figures.values()], marker="o", label=key.partition("_")[0], **style)
        axis.set_ylim(bottom=0)
        axis.set_title(title)
        axis.set_ylabel("ms")
    axes[0][0].legend()
    _save(figure, folder / "growth.svg")


def _colour(name: str) -> str:
    return OURS if name == "portico" else THEIRS


def _save(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
