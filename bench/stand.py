"""What the measurements share: a server with a home of its own, raw requests, bare uvicorn, medians and a table."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

APPS = Path(__file__).parent / "apps"
PORTICO = [sys.executable, "-m", "portico"]
# the web app on bare uvicorn, with the protocols that a container has
WEB = ("web:application", "--factory", "--ws", "websockets-sansio", "--ws-max-size", str(2 * 1024 * 1024))


_SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"


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

    def containers(self, app: str) -> int:
        """How many containers the app has."""
        info = json.loads(self.portico("app", "info", app, "--json"))
        return sum(function["containers"] for function in info["functions"])


_running: list[Stand] = []


@contextlib.contextmanager
def stand() -> Iterator[Stand]:
    """A server, until the end of the block; inside of such a block, the same one."""
    if _running:
        yield _running[0]
        return
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder:
        ready, tell = os.pipe()
        here = Stand(Path(folder), free_port())
        here.process = subprocess.Popen([*PORTICO, "up", "--ready-fd", str(tell)], env=here.env, pass_fds=[tell])
        os.close(tell)
        if os.read(ready, 1000) != b"ready\n":
            raise SystemExit("the server did not start")
        _running.append(here)
        try:
            yield here
        finally:
            _running.remove(here)
            os.close(ready)
            here.process.terminate()
            here.process.wait()


@contextlib.contextmanager
def uvicorn(module: str, *options: str, folder: Path = APPS) -> Iterator[int]:
    """Bare uvicorn with this application, from its start; its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", module, "--port", str(port), "--log-level", "error", "--no-access-log"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    process = subprocess.Popen([*command, *options], cwd=folder, env=env)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def nginx(upstream: Path) -> Iterator[int]:
    """nginx as the proxy of what listens on this Unix socket, passing bodies on as they come; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder:
        process = subprocess.Popen(nginx_command(Path(folder), upstream, port))
        try:
            yield port
        finally:
            process.terminate()
            process.wait()


def nginx_command(folder: Path, upstream: Path, port: int) -> list[str]:
    """How to start it. folder: where it writes."""
    if shutil.which("nginx", path=_SBIN) is None:
        raise SystemExit("nginx is what this is measured against, and is not installed: apt install nginx-light")
    config = folder / "nginx.conf"
    config.write_text((APPS.parent / "nginx.conf").read_text().format(port=port, upstream=upstream, folder=folder))
    return [str(shutil.which("nginx", path=_SBIN)), "-p", str(folder), "-e", "stderr", "-c", str(config)]


def get(port: int, host: str = "localhost", path: str = "/") -> bytes:
    """One request on a connection of its own, to the last byte; ConnectionError while nobody listens."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    answer = b"".join(parts)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise NotAnsweredError(answer[:300])
    return answer.partition(b"\r\n\r\n")[2]


def get_when_up(port: int) -> bytes:
    """The same, from the first moment at which somebody listens."""
    while True:
        try:
            return get(port)
        except (ConnectionError, NotAnsweredError):
            time.sleep(0.0005)


def wrk(port: int, host: str, *, connections: int, seconds: int) -> dict[str, float]:
    """Requests per second, and the latency's median and 99th percentile in ms."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk makes the load of this measurement, and is not installed: apt install wrk")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-H", f"Host: {host}"]
    out = subprocess.run([*command, f"http://127.0.0.1:{port}/"], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(out)
    fields = {line.split()[0]: line.split()[1] for line in out.splitlines() if len(line.split()) > 1}
    return {"rps": float(fields["Requests/sec:"]), "p50": _ms(fields["50%"]), "p99": _ms(fields["99%"])}


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


def command(main: Callable[[bool], None]) -> None:
    """Run a measurement as a program: `--quick` shows in a moment that it works, with figures that mean nothing."""
    main("--quick" in sys.argv[1:])


def report(name: str, result: dict[str, Any]) -> None:
    """The table for people, the JSON for programs."""
    print(f"\n{name}", file=sys.stderr)
    for key, value in result.items():
        shown = "  ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"  {key:<28} {shown}", file=sys.stderr)
    print(json.dumps({name: result}), flush=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def host_of(url: str) -> str:
    """The host in a URL, without its port."""
    return url.partition("//")[2].partition("/")[0].partition(":")[0]


def _ms(text: str) -> float:
    for unit, factor in (("us", 0.001), ("ms", 1.0), ("s", 1000.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)
