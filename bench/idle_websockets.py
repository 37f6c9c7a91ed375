"""The server's memory for each idle WebSocket; beside it, what the process of the app itself holds for each."""

from __future__ import annotations

import resource
import socket
from typing import TYPE_CHECKING

from bench.stand import APPS, Stand, command, get, memory, report, stand
from bench.websocket import handshake

if TYPE_CHECKING:
    from collections.abc import Iterable


def main(quick: bool = False) -> None:
    """Opened one by one; a first few warm up what is there once for all."""
    number, warm = (20, 5) if quick else (2000, 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with stand() as here:
        host = here.deploy(APPS / "web_app.py")["web"]
        get(here.port, host)
        processes = {"server": here.server.pid, "container": here.container_pids()[0]}
        _close(_open(here, host) for _ in range(warm))
        before = {name: memory(pid) for name, pid in processes.items()}
        connections = [_open(here, host) for _ in range(number)]
        after = {name: memory(pid) for name, pid in processes.items()}
        _close(connections)
    report(
        f"memory for each of {number} idle WebSockets, KB",
        {
            name: {kind: round((after[name][kind] - before[name][kind]) * 1024 / number, 1) for kind in ("uss", "pss")}
            for name in processes
        },
    )


def _open(here: Stand, host: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", here.port))
    connection.sendall(handshake(host))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return connection


def _close(connections: Iterable[socket.socket]) -> None:
    for connection in connections:
        connection.close()


if __name__ == "__main__":
    command(main)
