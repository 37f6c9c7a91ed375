"""The measurements of `bench/`, in a size that shows that they work and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = ("calls", "websocket", "bodies", "streaming", "idle_websockets", "profile")


def test_the_measurements_measure() -> None:
    """Each prints its results as JSON, with all of its figures. Ray is left out: it is not installed for tests."""
    command = [sys.executable, "-m", "bench", "--quick", *NAMES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [next(iter(result)).split(",")[0] for result in results] == [
        "a call and its result",
        "map of 100 over two containers",
        "WebSocket echo of 100 bytes",
        "download of 16 MiB",
        "download",
        "upload of 16 MiB",
        "streaming",
        "memory for each of 20 idle WebSockets",
        "system calls per request",
    ]
    assert all(figures for result in results for figures in result.values())
