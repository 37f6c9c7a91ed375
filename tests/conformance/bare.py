"""Where containers themselves listen, without the ingress."""

from __future__ import annotations

import socket

import psutil

from portico.model.settings import Settings
from tests.e2e.conftest import PATIENCE, Machine


def address(machine: Machine, url: str) -> str | tuple[str, int]:
    """That of the container which answers `/name` there: a Unix socket, or the port of its program."""
    name = machine.request(f"{url}/name").text.strip('"')
    path = Settings(home=machine.home, workspace="acme").run_dir / "c" / name / "http"
    return str(path) if path.is_socket() else ("127.0.0.1", _port_of(name))


def connect(where: str | tuple[str, int]) -> socket.socket:
    """A connection to it."""
    connection = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
    connection.settimeout(PATIENCE)
    connection.connect(where)
    return connection


def _port_of(container: str) -> int:
    for process in psutil.process_iter():
        try:
            if process.environ().get("PORTICO_TASK_ID") == container:
                for each in process.net_connections("tcp"):
                    if each.status == psutil.CONN_LISTEN:
                        return int(each.laddr.port)
        except psutil.Error:
            continue
    raise AssertionError(f"nothing listens in {container}")
