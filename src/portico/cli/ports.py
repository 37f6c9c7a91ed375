"""TCP ports of this machine: free ones, and who has the others."""

from __future__ import annotations

import errno
import os
import socket

_TRIES = 100


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now. True for what only the server can judge (no such address, …)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a port in TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def next_free(host: str, port: int) -> int | None:
    """The first free port after this one."""
    return next((p for p in range(port + 1, min(port + 1 + _TRIES, 65536)) if is_free(host, p)), None)


def holder(port: int) -> str | None:
    """The process that listens on the port ("nginx (pid 17)"), as far as this user may see."""
    import psutil  # 20 ms that only an error's text needs

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                process = psutil.Process(connection.pid)
                return f"{_title(process.name(), process.cmdline())} (pid {connection.pid})"
    except psutil.Error:
        pass
    return None


def _title(name: str, command: list[str]) -> str:
    """What people call it: for an interpreter, the script or module that it runs."""
    words = [word for word in command[1:] if not word.startswith("-")]
    return os.path.basename(words[0]) if name.startswith("python") and words else name
