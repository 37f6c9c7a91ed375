"""The server that this process's variables name."""

from __future__ import annotations

from portico.client.control import ControlClient
from portico.client.settings import environment_name, load_settings


def connect(environment: str | None = None, timeout: float = 30.0) -> ControlClient:
    """A client for it, about this environment or the one that the variables name. Connects to nothing yet."""
    return ControlClient(load_settings().control_socket, timeout, environment_name(environment))
