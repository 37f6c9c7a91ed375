"""Download and upload of 1 GiB: through the ingress, and through nginx in the same place.

Both are proxies in front of the same app on a Unix socket, and pass bodies on as they come. The server's memory is its
peak during the transfers, against what it had before.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.results import Goal, Run, Table
from bench.sides import proxy
from bench.stand import APPS, WEB, Stand, forget_peak, get, get_when_up, peak, seconds_of, stand, summary, uvicorn

GIB = 1 << 30
MIB = 1 << 20


def main(run: Run) -> Iterator[Table]:
    """In turns: A B A B …; the ratio of each pair, and its median."""
    rounds, size = (1, 16 * MIB) if run.quick else (7, GIB)
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder:
        path = Path(folder) / "app.sock"
        with stand() as here, contextlib.ExitStack() as stack, uvicorn(*WEB, "--uds", str(path)):
            get_when_up(path)
            other = stack.enter_context(proxy("nginx", path)).port
            host = here.deploy(APPS / "web_app.py")["web"]
            get(here.port, host)
            for name, transfer in (
                ("download", lambda port, host: download(port, host, size)),
                ("download, of unknown length", lambda port, host: download(port, host, size, sized=False)),
                ("upload", lambda port, host: upload(port, host, size)),
            ):
                yield _measure(here, f"{name} of {size // MIB} MiB", transfer, host, other, rounds, size)


def _measure(
    here: Stand, name: str, transfer: Callable[[int, str], float], host: str, proxy: int, rounds: int, size: int
) -> Table:
    forget_peak(here.server.pid)
    at_rest = peak(here.server.pid)
    ours, theirs, costs = [], [], []
    for _ in range(rounds):
        theirs.append(size / MIB / transfer(proxy, "localhost"))
        began = seconds_of(here.server)
        ours.append(size / MIB / transfer(here.port, host))
        costs.append((seconds_of(here.server) - began) * 1000 * GIB / size)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Table(
        name,
        {
            "portico, MiB/s": summary(ours, 0),
            "nginx, MiB/s": summary(theirs, 0),
            "ratio": summary(ratios),
            "server, ms of CPU per GiB": summary(costs, 0),
            "server's memory grew by, MB": round(peak(here.server.pid) - at_rest, 1),
        },
        (
            Goal(
                name,
                statistics.median(ratios),
                at_least=0.8,
                ours=f"{statistics.median(ours):,.0f} MiB/s",
                beside=f"{statistics.median(theirs):,.0f} MiB/s, nginx",
            ),
        ),
    )


def download(port: int, host: str, size: int, *, sized: bool = True) -> float:
    """Seconds for a body of so many bytes, read and thrown away."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        began = time.perf_counter()
        path = f"/download?size={size}&sized={int(sized)}"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        buffer = bytearray(MIB)
        received = connection.recv_into(buffer)
        assert buffer.startswith(b"HTTP/1.1 200"), buffer[:received]
        while part := connection.recv_into(buffer):
            received += part
        assert received > size, f"{received} bytes of {size}"
        return time.perf_counter() - began


def upload(port: int, host: str, size: int) -> float:
    """Seconds for a body of so many bytes, until the app has said how many it was."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        began = time.perf_counter()
        head = f"POST /upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        part = b"x" * MIB
        for _ in range(size // MIB):
            connection.sendall(part)
        answer = b""
        while more := connection.recv(65536):
            answer += more
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert answer.endswith(str(size).encode()), answer
        return time.perf_counter() - began
