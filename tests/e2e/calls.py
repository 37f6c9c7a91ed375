"""Requests that are under way: to be looked at, waited for, or left."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
from websockets.sync.client import ClientConnection, connect

from tests.e2e.conftest import PATIENCE, Answer, Machine, parse


class Call:
    """One request on a connection of its own. `body` is sent as it is; `length` announces another length for it."""

    def __init__(
        self, machine: Machine, url: str, method: str = "GET", *, body: bytes = b"", length: int | None = None
    ) -> None:
        host, _, path = url.partition("//")[2].partition("/")
        lines = [f"{method} /{path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        if body or length is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body) if length is None else length}"]
        self.socket = socket.create_connection(("127.0.0.1", machine.port), timeout=PATIENCE)
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        self.received = b""

    def until(self, text: bytes) -> bytes:
        """All that has come, as soon as this is in it."""
        while text not in self.received:
            assert self._receive(), f"it ended without {text!r}: {self.received!r}"
        return self.received

    def rest(self) -> bytes:
        """All that comes, to the end of the connection, however that ends."""
        with self.socket:
            while self._receive():
                pass
        return self.received

    def answer(self) -> Answer:
        """The response, when it is complete."""
        return parse(self.rest())

    def leave(self) -> None:
        """Close the connection."""
        self.socket.close()

    def _receive(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self.received += data
        return bool(data)


def ask_at_once(machine: Machine, urls: Sequence[str]) -> list[Answer]:
    """The answers to requests that are sent side by side."""
    with ThreadPoolExecutor(len(urls)) as threads:
        return list(threads.map(machine.request, urls))


def chat(machine: Machine, url: str, **more: Any) -> AbstractContextManager[ClientConnection]:
    """A WebSocket."""
    connection = socket.create_connection(("127.0.0.1", machine.port), timeout=PATIENCE)
    return connect(url.replace("http", "ws", 1), sock=connection, max_size=None, **more)


def ask(ws: ClientConnection, message: Any) -> str | bytes:
    """What comes back for a message."""
    ws.send(message)
    return ws.recv(PATIENCE)


def peak(process: psutil.Process) -> int:
    """The most memory that a process has had so far, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def lines(journal: Path) -> list[str]:
    """What functions have written to a file, so far."""
    return journal.read_text().splitlines() if journal.exists() else []
