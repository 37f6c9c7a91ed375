"""What a request costs in figures that do not depend on what else the machine does: system calls and instructions.

System calls are counted by strace, instructions by valgrind's callgrind: of the ingress, of nginx in its place, of a
container, and of bare uvicorn. `apt install strace valgrind nginx-light`.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.alone import CONTAINER, KINDS
from bench.stand import APPS, connect, free_port, os_path, uvicorn_command

Parts = dict[str, subprocess.Popen[bytes]]
CONNECTIONS = (1, 32)
REQUESTS = 960


def main(quick: bool = False) -> None:
    """Each of them under each tool; the quick way only the ingress, and only its system calls."""
    if quick:
        _report("system calls per request", {"ingress": _calls("ingress", 64)})
        return
    _report("system calls per request", {name: _calls(name, REQUESTS) for name in _names()})
    _report("thousands of instructions per request", {name: _instructions(name, REQUESTS // 3) for name in _names()})


def _report(title: str, rows: dict[str, dict[str, float]]) -> None:
    """The table for people, the JSON for programs."""
    print(f"\n{title}", file=sys.stderr)
    for name, figures in rows.items():
        print(f"  {name:<24} {'  '.join(f'{key} {value}' for key, value in figures.items())}", file=sys.stderr)
    print(json.dumps({title: rows}), flush=True)


def _names() -> list[str]:
    return ["ingress", "nginx", *(f"container, {kind}" for kind in KINDS), *(f"uvicorn, {kind}" for kind in KINDS)]


def _needs(program: str) -> None:
    if shutil.which(program) is None:
        raise SystemExit(f"{program} does the counting, and is not installed: apt install {program}")


def _calls(name: str, requests: int) -> dict[str, float]:
    _needs("strace")
    counts: dict[str, float] = {}
    with _road(name, {}) as (process, target):
        _ask(target, 1, 64)
        for connections in CONNECTIONS:
            with tempfile.NamedTemporaryFile("r") as out:
                tracer = subprocess.Popen(
                    ["strace", "-c", "-f", "-U", "calls,name", "-o", out.name, "-p", str(process.pid)],
                    stderr=subprocess.PIPE,
                )
                assert tracer.stderr is not None
                tracer.stderr.readline()  # it has attached
                _ask(target, connections, requests)
                tracer.send_signal(signal.SIGINT)
                tracer.communicate()
                rows = [line.split() for line in out.read().splitlines()[2:]]
            calls = {row[1]: int(row[0]) / requests for row in rows if len(row) == 2 and row[0].isdigit()}
            total = calls.pop("total", 0.0)
            counts[f"{connections} conn."] = round(total, 2)
            if connections == 1:
                counts |= {call: round(number, 2) for call, number in calls.items() if number >= 0.1}
    return counts


def _instructions(name: str, requests: int) -> dict[str, float]:
    _needs("valgrind")
    counts: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder:
        out = Path(folder) / "out"
        tool = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        with _road(name, {name: tool}) as (process, target):
            _ask(target, 32, 64)
            for connections in CONNECTIONS:
                _control(process, "-i", "on")
                _control(process, "-z")
                _ask(target, connections, requests)
                _control(process, "-d")
                _control(process, "-i", "off")
                newest = max(Path(folder).glob("out*"), key=lambda path: path.stat().st_mtime_ns)
                total = re.search(r"^(?:totals|summary): (\d+)", newest.read_text(), re.MULTILINE)
                assert total is not None
                counts[f"{connections} conn."] = round(int(total[1]) / requests / 1000, 1)
    return counts


def _control(process: subprocess.Popen[bytes], *arguments: str) -> None:
    subprocess.run(["callgrind_control", *arguments, str(process.pid)], check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def _road(name: str, tools: dict[str, list[str]]) -> Iterator[tuple[subprocess.Popen[bytes], Path | int]]:
    """What is looked at, and where to send requests to. tools: what a part is to run under."""
    role, _, kind = name.partition(", ")
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder, contextlib.ExitStack() as stack:

        def start(part: str, arguments: list[str], cwd: Path | None = None) -> subprocess.Popen[bytes]:
            process = subprocess.Popen([*tools.get(part, []), *arguments], cwd=cwd)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        path, port = Path(folder) / f"{CONTAINER}.sock", free_port()
        alone = [sys.executable, "-m", "bench.alone"]
        if role == "uvicorn":
            process = start(name, uvicorn_command(f"three:{kind}", "--port", str(port)), APPS)
            _until_up(process, port)
            yield process, port
            return
        process = start(name, [*alone, "container", folder, kind or "asgi"])
        _until_up(process, path)
        if role == "container":
            yield process, path
            return
        if role == "ingress":
            process = start(name, [*alone, "door", folder, str(port)])
        else:
            process = start(name, _nginx(Path(folder), path, port))
        _until_up(process, port)
        yield process, port


def _until_up(process: subprocess.Popen[bytes], target: Path | int) -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError), connect(target):
            return
        time.sleep(0.01)
    raise SystemExit("what is to be looked at has ended")


def _nginx(folder: Path, upstream: Path, port: int) -> list[str]:
    nginx = shutil.which("nginx", path=os_path())
    if nginx is None:
        raise SystemExit("nginx is what the ingress is compared with, and is not installed: apt install nginx-light")
    config = folder / "nginx.conf"
    template = (APPS.parent / "peers" / "nginx.conf").read_text()
    config.write_text(template.format(port=port, upstream=upstream, folder=folder))
    return [nginx, "-p", str(folder), "-e", "stderr", "-c", str(config)]


def _ask(target: Path | int, connections: int, requests: int) -> None:
    """So many requests: one on each connection, then the answers, and again."""
    head = b"GET / HTTP/1.1\r\nhost: bench\r\nuser-agent: bench/1\r\naccept: */*\r\n\r\n"
    if not isinstance(target, int):  # as the ingress would ask
        head = head.replace(b"host:", b"x-portico-input: 00000000%08x 127.0.0.1 1 http\r\nhost:")
    sockets = [connect(target) for _ in range(connections)]
    number = 0
    for _ in range(requests // connections):
        for connection in sockets:
            number += 1
            connection.sendall(head % number if b"%" in head else head)
        for connection in sockets:
            answer = b""
            while not answer.endswith((b"!", b"}")):  # how both answers end
                answer += connection.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer)
    for connection in sockets:
        connection.close()


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
