"""The measurements of `bench/`, in a size that shows that they work and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TITLES = {
    "calls": ["a call and its result", "map of 100 over two containers", "an argument of 1 MB"],
    "websocket": ["WebSocket echo of 100 bytes"],
    "bodies": ["download of 16 MiB", "download", "upload of 16 MiB"],
    "streaming": ["streaming"],
    "idle_connections": ["memory for each of 20 idle connections", "memory for each of 20 idle WebSockets"],
    "limits": ["rate limit", "rate limit where it refuses nothing"],
    "throughput": ["requests per second"],
    "raw": ["requests per second"],
    "latency": ["latency at one connection"],
    "deploying": ["deploy of new code"],
    "commands": ["commands"],
    "rollouts": ["requests while versions change"],
    "soak": ["a soak of 0.2 minutes"],
    "growth": ["a request", "a request"],
    "ingress": ["requests per second of two functions", "requests per second of two functions"],
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m bench` to its end."""
    return subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "names",
    [
        ("calls", "websocket", "bodies", "streaming", "idle_connections", "limits"),
        ("throughput", "raw", "latency", "deploying", "commands", "rollouts", "growth", "ingress"),
    ],
    ids=lambda names: names[0],
)
def test_the_measurements_measure(names: tuple[str, ...], tmp_path: Path) -> None:
    """Each prints and keeps its results, with all of its figures. Ray and its like are not installed for tests."""
    results = tmp_path / "results.json"
    done = bench("--quick", "--no-peers", "--results", str(results), *names)
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    titles = [title for name in names for title in TITLES[name]]
    assert [next(iter(table)).split(",")[0] for table in printed] == titles
    assert all(figures for table in printed for figures in table.values())
    kept = json.loads(results.read_text())
    assert list(kept) == list(names)
    assert all(goal["ours"] and goal["figure"] for row in kept.values() for goal in row["goals"])


def test_a_measurement_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    """It is named at the end, with the command that repeats it, and in the results."""
    results = tmp_path / "results.json"
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path)}  # no nginx, no wrk
    command = [sys.executable, "-m", "bench", "--quick", "--no-peers", "--results", str(results), "raw", "streaming"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.endswith("\nFailed: raw. Again: python -m bench raw\n")
    kept = json.loads(results.read_text())
    assert "wrk makes the load of this measurement, and is not installed" in kept["raw"]["failed"]
    assert kept["streaming"]["tables"]


def test_a_measurement_that_is_not_there_is_a_usage_error() -> None:
    """The message names those that are."""
    done = bench("--quick", "warmth")
    assert done.returncode == 2
    assert "There is no measurement warmth; there are throughput, ray_serve," in done.stderr


def test_the_profile_counts() -> None:
    """System calls of the ingress: at least those that there must be."""
    command = [sys.executable, "-m", "bench.profile", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["system calls per request"]["ingress"]
    assert counts["1 conn."] >= 6
    assert counts["write"] >= 2
