"""Requests that fail while versions change under load: none of at least 20,000."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from bench.load import Side, wrk
from bench.reload import OURS
from bench.results import Goal, Run, Table
from bench.stand import Stand, get, stand

ENOUGH = 20_000


def main(run: Run) -> Iterator[Table]:
    """Deploys and rollbacks, one after the other, while wrk asks; it fails where one answer is no good one."""
    enough, seconds = (500, 2) if run.quick else (ENOUGH, 20)
    answers = changes = 0
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder, stand() as here:
        host = here.deploy(_version(Path(folder), 0))["version"]
        get(here.port, host)
        while answers < enough:
            ending = threading.Event()
            changing = Changing(here, Path(folder), ending)
            changing.start()
            try:
                sample = wrk(Side(here.port, host), connections=32, seconds=seconds)
            finally:
                ending.set()
                changing.join()
            answers += round(sample["rps"] * seconds)
            changes += changing.changes
    if not changes:
        raise RuntimeError("no version changed meanwhile")
    yield Table(
        "requests while versions change",
        {"answers": answers, "failed": 0, "deploys and rollbacks": changes, "p99, ms": sample["p99"]},
        (Goal("requests that fail while versions change", 0, "", at_most=0, ours=f"of {answers:,}"),),
    )


class Changing(threading.Thread):
    """Deploys a new version, and then the one before again, until it is to end."""

    changes = 0

    def __init__(self, here: Stand, folder: Path, ending: threading.Event) -> None:
        super().__init__()
        self._here, self._folder, self._ending = here, folder, ending

    def run(self) -> None:
        """See threading."""
        while not self._ending.is_set():
            self._here.deploy(_version(self._folder, self.changes + 1))
            self._here.portico("app", "rollback", "bench-rollouts", "--yes")
            self.changes += 2


def _version(folder: Path, number: int) -> Path:
    file = folder / "rollouts.py"
    file.write_text(OURS.format(number=number).replace('"reload"', '"bench-rollouts"'))
    return file
