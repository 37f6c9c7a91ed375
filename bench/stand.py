"""What the measurements share: a server with a home of its own, raw requests, programs beside it, medians."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

APPS = Path(__file__).parent / "apps"
PORTICO = [sys.executable, "-m", "portico"]
# the web app on bare uvicorn, with the protocols that a container has
WEB = ("web:application", "--factory", "--ws", "websockets-sansio", "--ws-max-size", str(2 * 1024 * 1024))


class NotAnsweredError(Exception):
    """A connection was taken, and no good answer came."""


class Stand:
    """A running Portico server in a temporary home."""

    def __init__(self, home: Path, port: int) -> None:
        self.port = port
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PORTICO_", "PYTHON"))},
            "PORTICO_HOME": str(home),
            "PORTICO_LISTEN": f"127.0.0.1:{port}",
            "PORTICO_WORKSPACE": "bench",
            "PORTICO_RATE_LIMIT": "off",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def portico(self, *arguments: str) -> str:
        """Run one command to its end; what it printed on stdout."""
        done = subprocess.run([*PORTICO, *arguments], env=self.env, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout

    def deploy(self, file: Path) -> dict[str, str]:
        """Deploy an app; the host of each function."""
        result = json.loads(self.portico("deploy", str(file), "--json"))
        return {endpoint["function"]: host_of(endpoint["url"]) for endpoint in result["endpoints"]}

    @property
    def server(self) -> psutil.Process:
        """The server's process."""
        assert self.process is not None
        return psutil.Process(self.process.pid)

    def container_pids(self) -> list[int]:
        """The processes of the running containers: children of the image's template."""
        return [child.pid for template in self.server.children() for child in template.children()]

    def sockets(self) -> set[Path]:
        """Where the running containers listen."""
        return set(Path(self.env["PORTICO_HOME"]).glob("run/c/*/http"))

    def containers(self, app: str) -> int:
        """How many containers the app has."""
        info = json.loads(self.portico("app", "info", app, "--json"))
        return sum(function["containers"] for function in info["functions"])


_running: list[Stand] = []


@contextlib.contextmanager
def stand(*options: str, alone: bool = False) -> Iterator[Stand]:
    """A server, until the end of the block; inside of such a block, the same one. `alone`: one of its own.

    options: those of `portico up`, of one of its own.
    """
    if _running and not alone:
        yield _running[0]
        return
    with tempfile.TemporaryDirectory(prefix="portico-bench-", ignore_cleanup_errors=True) as folder:
        ready, tell = os.pipe()
        here = Stand(Path(folder), free_port())
        here.process = subprocess.Popen(
            [*PORTICO, "up", *options, "--ready-fd", str(tell)], env=here.env, pass_fds=[tell]
        )
        os.close(tell)
        try:
            if os.read(ready, 1000) != b"ready\n":
                raise SystemExit("the server did not start")
            _running.insert(0, here)
            try:
                yield here
            finally:
                _running.remove(here)
        finally:
            os.close(ready)
            here.process.terminate()
            here.process.wait()


@contextlib.contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[psutil.Process]:
    """A program and all that it starts, until the end of the block."""
    with subprocess.Popen(command, start_new_session=True, **{"stdout": sys.stderr} | options) as process:
        family = psutil.Process(process.pid)
        try:
            yield family
        finally:
            started = family.children(recursive=True) if process.poll() is None else []
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            for member in [family, *started]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()


def uvicorn_command(module: str, *options: str, python: str = sys.executable) -> list[str]:
    """The command line of bare uvicorn with this application, without its logs."""
    return [python, "-m", "uvicorn", module, "--log-level", "error", "--no-access-log", *options]


def plain_env(**more: str) -> dict[str, str]:
    """The environment of what runs outside of Portico."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | more


@contextlib.contextmanager
def uvicorn(module: str, *options: str, folder: Path = APPS, python: str = sys.executable) -> Iterator[int]:
    """Bare uvicorn with this application, from its start; its port."""
    port = free_port()
    command = uvicorn_command(module, "--port", str(port), *options, python=python)
    with running(command, cwd=folder, env=plain_env()):
        yield port


def connect(address: int | Path) -> socket.socket:
    """A connection to a port of this machine, or to a Unix socket."""
    if isinstance(address, int):
        return socket.create_connection(("127.0.0.1", address))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.fspath(address))
    return connection


def os_path() -> str:
    """Where programs are, also those that Debian has only for root."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"


def get(address: int | Path, host: str = "localhost", path: str = "/") -> bytes:
    """One request on a connection of its own, to the last byte; ConnectionError while nobody listens."""
    with connect(address) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    answer = b"".join(parts)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise NotAnsweredError(answer[:300])
    return answer.partition(b"\r\n\r\n")[2]


def get_when_up(address: int | Path, path: str = "/", *, limit: float = 60) -> bytes:
    """The same, from the first moment at which somebody listens; TimeoutError after `limit` seconds."""
    until = time.monotonic() + limit
    while True:
        try:
            return get(address, path=path)
        except (ConnectionError, FileNotFoundError, NotAnsweredError) as error:
            if time.monotonic() > until:
                raise TimeoutError(f"Nothing answers at {address} after {limit} seconds: {error}") from None
            time.sleep(0.0005)


def memory(pid: int) -> dict[str, float]:
    """What a process holds, in MB: all of it (rss), its fair share (pss), what nobody shares (uss)."""
    fields = dict.fromkeys(["Rss", "Pss", "Private_Clean", "Private_Dirty"], 0.0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        if name in fields:
            fields[name] = int(value.split()[0]) / 1024
    uss = fields["Private_Clean"] + fields["Private_Dirty"]
    return {"rss": round(fields["Rss"], 1), "pss": round(fields["Pss"], 1), "uss": round(uss, 1)}


def seconds_of(process: psutil.Process) -> float:
    """How long a process has computed."""
    times = process.cpu_times()
    return float(times.user + times.system)


def forget_peak(pid: int) -> None:
    """From here on, `peak` counts anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> float:
    """The most memory that a process has had (resident), in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def quantile(values: Sequence[float], part: float) -> float:
    """The value that this part of all values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def spread(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    """Median and spread of times in seconds, as ms."""
    return {
        "p50_ms": round(statistics.median(values) * 1000, digits),
        "p99_ms": round(quantile(values, 0.99) * 1000, digits),
        "min_ms": round(min(values) * 1000, digits),
        "max_ms": round(max(values) * 1000, digits),
        "samples": len(values),
    }


def summary(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Median and spread of anything."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "samples": len(values),
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def host_of(url: str) -> str:
    """The host in a URL, without its port."""
    return url.partition("//")[2].partition("/")[0].partition(":")[0]
