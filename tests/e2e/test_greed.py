"""Containers that want more processes, processor time or larger files than they may have."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.e2e.calls import Call
from tests.e2e.conftest import Machine, wait_until

APP = """
import os
import subprocess
import sys
import time

import modal

app = modal.App("greed")


@app.function(max_containers=1)
@modal.fastapi_endpoint()
def forks(bomb: str):
    return subprocess.run(["sh", bomb], capture_output=True).returncode


@app.function(max_containers=1)
@modal.fastapi_endpoint()
def good():
    return os.getpid()


@app.function(cpu=(0.5, 0.5))
@modal.fastapi_endpoint()
def computes():
    began, before = time.monotonic(), time.process_time()
    while time.monotonic() < began + 1:
        pass
    return time.process_time() - before


@app.function()
@modal.fastapi_endpoint()
def writes(at: int):
    code = f"import os; print(os.pwrite(os.open('large', os.O_CREAT | os.O_WRONLY), b'x', {at}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines()[-1]
"""
BOMBS = {
    "one group": "bomb() { bomb | bomb & }; bomb; wait",
    "a session for each": 'for _ in 1 2; do setsid sh "$0" & done 2>/dev/null; wait; setsid sh "$0"',
}
MOST = 40


@pytest.fixture(scope="module")
def urls(shared: Machine) -> dict[str, str]:
    """The app's URLs."""
    shared.write("greed.py", APP)
    return shared.deploy("greed.py")


@pytest.fixture
def group(shared: Machine, urls: dict[str, str]) -> Iterator[Path]:
    """The control group that bounds how many processes the containers have together: fewer, while the test runs."""
    assert shared.request(urls["good"]).status == 200
    mark = hashlib.sha256(os.fsencode(shared.home)).hexdigest()[:12]
    groups = [path.parent for path in Path("/sys/fs/cgroup").rglob(f"portico-{mark}-template-*/pids.max")]
    if not groups:
        pytest.skip("no control groups can be made here")
    (group,) = groups
    assert (group / "pids.max").read_text() == "4096\n"
    (group / "pids.max").write_text(str(MOST))
    yield group
    (group / "pids.max").write_text("4096")


@pytest.mark.parametrize("kind", BOMBS)
def test_a_fork_bomb_ends_with_its_container(shared: Machine, urls: dict[str, str], group: Path, kind: str) -> None:
    """It comes to the limit and no further; others are answered meanwhile, and new containers start when it is gone."""
    before = shared.request(urls["good"]).json
    assert isinstance(before, int)
    calm, refused = int((group / "pids.current").read_text()), (group / "pids.events").read_text()
    bomb = shared.write("bomb.txt", BOMBS[kind])
    call = Call(shared, f"{urls['forks']}/?bomb={bomb}")
    wait_until(lambda: (group / "pids.events").read_text() != refused, "the kernel has refused one")
    for _ in range(20):
        assert shared.request(urls["good"]).json == before
    assert int((group / "pids.current").read_text()) <= MOST
    call.leave()  # before the kill: a GET that somebody waits for would be asked again, elsewhere
    wait_until(lambda: kill_the_sick(shared), "its container was found")
    wait_until(lambda: int((group / "pids.current").read_text()) <= calm, "all of it is gone")
    psutil.Process(before).kill()
    wait_until(lambda: not psutil.pid_exists(before), "it is gone")
    after = shared.request(urls["good"])
    assert after.status == 200
    assert after.json != before


def kill_the_sick(machine: Machine) -> bool:
    """Kill the container with shells in it; whether there is one."""
    for container in machine.containers():
        with suppress(psutil.Error):
            if {"sh", "setsid"} & {child.name() for child in container.children()} and container.name() != "sh":
                container.kill()
                return True
    return False


def test_a_container_computes_no_more_than_its_limit(shared: Machine, urls: dict[str, str]) -> None:
    """Half of a processor is 0.5 s in each second, and a little more where a period begins."""
    checks = json.loads(shared.run("doctor", "--json", code=None).stdout)["checks"]
    if "cpu" not in next(check["text"] for check in checks if check["name"] == "limits").partition("for: ")[2]:
        pytest.skip("no control groups can be made here")
    computed = shared.request(urls["computes"]).json
    assert isinstance(computed, float)
    assert computed < 0.7, computed


def test_a_file_that_grows_too_large_is_a_clear_error(shared: Machine, urls: dict[str, str]) -> None:
    """64 GiB are too many by one byte, also for a program that a container starts."""
    largest = 64 << 30
    assert shared.request(f"{urls['writes']}/?at={largest - 1}").json == "1"
    assert shared.request(f"{urls['writes']}/?at={largest}").json == "OSError: [Errno 27] File too large"
