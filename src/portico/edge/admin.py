"""Caddy's admin socket."""

from __future__ import annotations

import asyncio
import http.client
import socket
from pathlib import Path
from typing import Final

import msgspec

from portico.edge.document import ADMIN_HOST, Document
from portico.model.errors import StateError

_TIMEOUT: Final = 30.0  # seconds


async def load(socket_path: Path, document: Document) -> None:
    """Have Caddy go by this from now on. StateError when it refuses, and then it goes on as before; OSError when it
    cannot be reached."""
    await asyncio.to_thread(_load, socket_path, msgspec.json.encode(document))


def _load(path: Path, body: bytes) -> None:
    connection = _Connection(ADMIN_HOST, timeout=_TIMEOUT)
    connection.path = path
    try:
        connection.request("POST", "/load", body, {"content-type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    except http.client.HTTPException as error:
        raise ConnectionResetError(f"{error!r}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise StateError(f"Caddy does not take its configuration: {_reason(answer)}.")


def _reason(answer: bytes) -> str:
    try:
        return str(msgspec.json.decode(answer)["error"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return answer.decode(errors="replace").strip()


class _Connection(http.client.HTTPConnection):
    path: Path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))
