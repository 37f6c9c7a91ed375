"""Deploy of an image that is there already: from the start of the command to the first answer by the new code."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.reload import OURS
from bench.results import Goal, Run, Table
from bench.stand import PORTICO, Stand, get, spread, stand


def main(run: Run) -> Iterator[Table]:
    """One change after the other, each deployed when the one before is done."""
    answered, ended = [], []
    with tempfile.TemporaryDirectory() as folder, stand() as here:
        file = Path(folder) / "deploying.py"
        file.write_text(OURS.format(number=0).replace('"reload"', '"bench-deploying"'))
        host = here.deploy(file)["version"]
        for number in range(1, 3 if run.quick else 16):
            file.write_text(OURS.format(number=number).replace('"reload"', '"bench-deploying"'))
            first, last = _deploy(here, file, host, str(number).encode())
            answered.append(first)
            ended.append(last)
    row = spread(answered)
    yield Table(
        "deploy of new code, image unchanged",
        {"the new code answers": row, "the command has ended": spread(ended)},
        (
            Goal(
                "deploy of new code until it answers, p50",
                row["p50_ms"],
                "ms",
                at_most=400,
                ours=f"{row['p50_ms']} ms",
            ),
        ),
    )


def _deploy(here: Stand, file: Path, host: str, expected: bytes) -> tuple[float, float]:
    began = time.perf_counter()
    with subprocess.Popen([*PORTICO, "deploy", str(file)], env=here.env, stdout=subprocess.DEVNULL) as command:
        while get(here.port, host) != expected:
            assert command.poll() is None or get(here.port, host) == expected, "it has ended, and the old code answers"
            time.sleep(0.002)
        answered = time.perf_counter() - began
        assert command.wait() == 0
    return answered, time.perf_counter() - began
