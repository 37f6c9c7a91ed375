"""Reload: from the save of a file to the first answer by its new code, against `uvicorn --reload`."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.results import Goal, Run, Table
from bench.stand import PORTICO, get, get_when_up, host_of, spread, stand, uvicorn

EDITS = 20
OURS = """import modal

app = modal.App("reload")


@app.function()
@modal.fastapi_endpoint()
def version():
    return {number}
"""
THEIRS = """from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def version():
    return {number}
"""


def main(run: Run) -> Iterator[Table]:
    """The same edits to the same endpoint, in turns."""
    ours: list[float] = []
    theirs: list[float] = []
    with contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2))
        here = stack.enter_context(stand())
        our_file, their_file = Path(one) / "app.py", Path(two) / "app.py"
        our_file.write_text(OURS.format(number=0))
        their_file.write_text(THEIRS.format(number=0))
        serve = subprocess.Popen([*PORTICO, "serve", str(our_file)], env=here.env, stdout=subprocess.PIPE, text=True)
        stack.callback(serve.communicate)
        stack.callback(serve.terminate)
        assert serve.stdout is not None
        host = host_of(next(line for line in serve.stdout if "http://" in line).split("http:")[1])
        get(here.port, host)
        port = stack.enter_context(uvicorn("app:app", "--reload", folder=Path(two)))
        get_when_up(port)
        for number in range(1, 3 if run.quick else EDITS + 1):
            time.sleep(0.5)  # as a person would: nothing is still going on from the edit before
            ours.append(_edit(our_file, OURS, number, lambda: get(here.port, host)))
            theirs.append(_edit(their_file, THEIRS, number, lambda: get_when_up(port)))
    a, b = spread(ours), spread(theirs)
    yield Table(
        "reload",
        {"portico": a, "uvicorn --reload": b, "times faster": round(b["p50_ms"] / a["p50_ms"], 1)},
        (
            Goal(
                "reload, p50",
                a["p50_ms"],
                "ms",
                at_most=120,
                ours=f"{a['p50_ms']} ms",
                beside=f"{b['p50_ms']} ms, uvicorn --reload",
            ),
        ),
    )


def _edit(file: Path, text: str, number: int, ask: Callable[[], bytes]) -> float:
    file.write_text(text.format(number=number))
    began = time.perf_counter()
    while ask() != str(number).encode():
        pass
    return time.perf_counter() - began
