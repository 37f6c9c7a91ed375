"""The control API on a real Unix socket, with service doubles behind it, and the real client in front."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from portico.api.app import make_app, make_public_app
from portico.api.fake import FakeServices
from portico.client.control import ControlClient
from portico.wire.control import ServerInfo

INFO = ServerInfo(
    version="0.1.0",
    pid=1,
    workspace="acme",
    domain="localhost",
    listen="127.0.0.1:7777",
    url="http://{label}.localhost:7777",
    home="/home/acme",
    deployed_apps=0,
)


@contextlib.contextmanager
def serving(app, path: Path) -> Iterator[None]:
    """Serve `app` at this Unix socket, in a thread with a loop of its own."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    server = uvicorn.Server(
        uvicorn.Config(app, loop="asyncio", log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def services() -> FakeServices:
    return FakeServices(INFO)


@pytest.fixture
def control_socket(services: FakeServices, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "control.sock"
    with serving(make_app(*[services] * 9), path):
        yield path


@pytest.fixture
def client(control_socket: Path) -> ControlClient:
    return ControlClient(control_socket, timeout=10)


@pytest.fixture
def public_socket(services: FakeServices, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "public.sock"
    app = make_app(*[services] * 9)
    with serving(make_public_app(app, services, tmp_path / "calls.sock", services), path):
        yield path
