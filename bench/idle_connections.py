"""The server's memory for each idle connection: HTTP that is kept alive, and WebSockets.

Beside it what the process of the app itself holds for each; it has none for idle HTTP.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterable, Iterator

from bench.results import Goal, Run, Table
from bench.stand import APPS, connect, get, memory, stand
from bench.websocket import handshake


def main(run: Run) -> Iterator[Table]:
    """Opened one by one; a first few warm up what is there once for all."""
    number, warm = (20, 5) if run.quick else (2000, 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with stand() as here:
        before = here.container_pids()
        host = here.deploy(APPS / "web_app.py")["web"]
        get(here.port, host)
        fresh = [pid for pid in here.container_pids() if pid not in before]
        container = (fresh or before)[0]  # on a shared server, another measurement may have started it
        processes = {"server": here.server.pid, "container": container}
        for kind, ask, at_most in (("connections", _keep, 12), ("WebSockets", _upgrade, None)):
            yield _measure(kind, lambda ask=ask: ask(connect(here.port), host), processes, number, warm, at_most)


def _measure(
    kind: str,
    open_one: Callable[[], socket.socket],
    processes: dict[str, int],
    number: int,
    warm: int,
    at_most: float | None,
) -> Table:
    _close([open_one() for _ in range(warm)])
    before = {name: memory(pid) for name, pid in processes.items()}
    connections = [open_one() for _ in range(number)]
    after = {name: memory(pid) for name, pid in processes.items()}
    _close(connections)
    each = {
        name: {key: round((after[name][key] - before[name][key]) * 1024 / number, 1) for key in ("uss", "pss")}
        for name in processes
    }
    ours, theirs = each["server"]["uss"], each["container"]["uss"]
    figure = f"server's memory for each of {number} idle {kind}"
    beside = f"{theirs} KB, the app's own process"
    return Table(
        f"memory for each of {number} idle {kind}, KB",
        each,
        (Goal(figure, ours, "KB", at_most=at_most, ours=f"{ours} KB", beside=beside),),
    )


def _keep(connection: socket.socket, host: str) -> socket.socket:
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b'"ready"'):
        answer += _more(connection, answer)
    return connection


def _upgrade(connection: socket.socket, host: str) -> socket.socket:
    connection.sendall(handshake(host))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += _more(connection, answer)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return connection


def _more(connection: socket.socket, answer: bytes) -> bytes:
    part = connection.recv(4096)
    assert part, f"the connection ended after {answer!r}"
    return part


def _close(connections: Iterable[socket.socket]) -> None:
    for connection in connections:
        connection.close()
