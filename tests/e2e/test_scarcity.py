"""What becomes of requests when the machine runs out of something, or its clock jumps."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.calls import Call
from tests.e2e.conftest import PATIENCE, Machine, parse, wait_until

APP = """
import os
import time

import modal

app = modal.App("scarce")


@app.function(max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.fastapi_endpoint()
def pid():
    return os.getpid()


@app.function()
@modal.fastapi_endpoint()
def waits(gate: str):
    while not os.path.exists(gate):
        time.sleep(0.005)
    return "over"


@app.function()
def double(x: int):
    return x * 2


@app.function(max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.fastapi_endpoint()
def floods(seconds: float):
    end = time.monotonic() + seconds
    block = (b"x" * 4095 + b"\\n") * 256
    size = 0
    while time.monotonic() < end:
        size += os.write(1, block)
    return size
"""


def deployed(machine: Machine) -> dict[str, str]:
    machine.write("scarce.py", APP)
    return machine.deploy("scarce.py")


# -- descriptors ------------------------------------------------------------------------------------------------------
def test_without_descriptors_new_connections_wait_and_nothing_breaks(machine: Machine) -> None:
    """Clients beyond what it can have wait, and none is closed; once others have gone, they are answered."""
    machine.prefix = ["prlimit", "--nofile=256:256"]
    server = machine.up()
    urls = deployed(machine)
    host = urls["pid"].partition("//")[2]
    before = machine.request(urls["pid"]).json
    clients = [socket.create_connection(("127.0.0.1", machine.port), timeout=PATIENCE) for _ in range(400)]
    server.until("new ones wait")
    asked = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    last = clients.pop()
    last.sendall(asked)
    last.setblocking(False)
    with pytest.raises(BlockingIOError):
        last.recv(1)
    last.settimeout(PATIENCE)
    assert psutil.Process(server.popen.pid).num_fds() < 256
    for client in clients[:300]:
        client.close()
    answer = b""
    while part := last.recv(65536):
        answer += part
    assert (parse(answer).status, parse(answer).json) == (200, before)
    for client in clients[300:]:  # those that were never served are, too
        client.sendall(asked)
        assert b" 200 OK" in client.recv(65536)
        client.close()
    assert machine.request(urls["pid"]).json == before


# -- disk -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def small_disk(machine: Machine) -> Iterator[Path]:
    """The home on a file system of its own, of 64 MiB; a file there that fills it."""
    machine.home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(machine.home)], check=True)
    try:
        yield machine.home / "ballast"
        machine.close()
    finally:
        subprocess.run(["umount", "--lazy", str(machine.home)], check=True)


def fill(path: Path) -> None:
    """Until there is no byte left."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_on_a_full_disk_deploys_fail_clearly_and_serving_goes_on(machine: Machine, small_disk: Path) -> None:
    """Nothing is lost: the old version serves, with its containers and with new ones, and the next deploy works."""
    server = machine.up()
    urls = deployed(machine)
    before = machine.request(urls["pid"]).json
    fill(small_disk)
    machine.write("scarce.py", APP.replace("return os.getpid()", "return 'new'"))
    for _ in range(2):
        failed = machine.run("deploy", "scarce.py", code=1)
        assert "No space left on device" in failed.stderr
        assert "Traceback" not in failed.stderr
        assert machine.request(urls["pid"]).json == before
    assert int(machine.request(f"{urls['floods']}/?seconds=0.2").text) > 0
    psutil.Process(before).kill()
    wait_until(lambda: not psutil.pid_exists(before), "it is gone")
    assert machine.request(urls["pid"]).status == 200
    assert server.popen.poll() is None
    small_disk.unlink()
    machine.deploy("scarce.py")
    assert machine.request(urls["pid"]).json == "new"


# -- clock ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def clock(machine: Machine, tmp_path: Path) -> Path:
    """A file that says by how much the wall clock of its server is wrong."""
    file = tmp_path / "clock"
    file.write_text("+0")
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    machine.env |= {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }
    return file


@pytest.mark.parametrize("jump", ["+400d", "-400d"])
def test_a_clock_that_jumps_changes_no_decision(machine: Machine, clock: Path, tmp_path: Path, jump: str) -> None:
    """A year forth or back: what runs and waits goes on, containers stay, calls are stored and answered."""
    server = machine.up()
    urls = deployed(machine)
    before = machine.request(urls["pid"]).json
    token = json.loads(machine.run("token", "new", "--expires-in", "1h", "--json").stdout)
    headers = {"Authorization": f"Bearer {token['id']}.{token['secret']}"}
    api = f"http://127.0.0.1:{machine.port}/v1/server"
    assert machine.request(api, headers=headers).status == 200
    gate = tmp_path / "gate"
    running = Call(machine, f"{urls['waits']}/?gate={gate}")
    wait_until(lambda: running_inputs(machine, "waits"), "it runs")
    clock.write_text(jump)
    assert machine.request(urls["pid"]).json == before
    assert running_inputs(machine, "waits") == 1
    gate.touch()
    assert running.answer().status == 200
    assert machine.request(api, headers=headers).status == (401 if jump[0] == "+" else 200)
    script = machine.write(
        "spawn.txt", "import modal; print(modal.Function.from_name('scarce', 'double').spawn(21).get())"
    )
    done = subprocess.run([sys.executable, str(script)], env=machine.env, capture_output=True, text=True, timeout=40)
    assert done.stdout == "42\n", done.stderr
    assert machine.request(urls["pid"]).json == before
    machine.write("scarce.py", APP.replace("return os.getpid()", "return 'new'"))
    machine.deploy("scarce.py")
    assert machine.request(urls["pid"]).json == "new"
    clock.write_text("+0")
    assert machine.request(urls["pid"]).json == "new"
    assert machine.request(api, headers=headers).status == 200
    assert json.loads(machine.run("app", "history", "scarce", "--json").stdout)
    assert server.interrupt() == 0


def running_inputs(machine: Machine, function: str) -> int:
    return next(f["running"] for f in machine.app("scarce")["functions"] if f["name"] == function)


# -- output -----------------------------------------------------------------------------------------------------------
def test_a_flood_of_output_is_bounded_and_slows_nobody(machine: Machine) -> None:
    """A function that prints as fast as it can is read in doses: others are answered meanwhile; its log stays small."""
    machine.up()
    urls = deployed(machine)
    assert machine.request(urls["pid"]).status == 200
    flood = Call(machine, f"{urls['floods']}/?seconds=3")
    wait_until(lambda: list((machine.home / "logs" / "apps").glob("*.1.jsonl")), "the log was turned over")
    for _ in range(100):
        assert machine.request(urls["pid"]).status == 200
    assert flood.answer().status == 200
    size = sum(path.stat().st_size for path in (machine.home / "logs" / "apps").iterdir())
    assert size < 25 * 1024 * 1024
    assert machine.run("app", "logs", "scarce", "--tail", "1").stdout
