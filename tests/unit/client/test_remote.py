"""Servers on other machines: what is said where something else answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from portico.client.control import ControlClient
from portico.client.remote import Remote
from portico.model.errors import ConnectionError
from portico.wire.control import NewToken


@contextmanager
def answering(answer: bytes, heard: list[bytes] | None = None) -> Iterator[str]:
    """A program that answers one request like this; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            connection, _ = door.accept()
            with connection:
                data = connection.recv(65536)
                if heard is not None:
                    heard.append(data)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello", "is not Portico's control API (status 404)"),
        (
            b"HTTP/1.1 308 X\r\nLocation: https://b.example/\r\nContent-Length: 0\r\n\r\n",
            "elsewhere: https://b.example/",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "does not speak"),
        (b"", "closed the connection"),
    ],
)
def test_what_is_not_a_server_is_named(answer: bytes, said: str) -> None:
    """With what it is instead, as far as one can see."""
    with answering(answer) as url, pytest.raises(ConnectionError) as caught:
        ControlClient(Remote(url, "ak-1.as-1")).server()
    assert said in str(caught.value)
    assert "as-1" not in f"{caught.value} {caught.value.hint}"


def test_each_request_carries_the_token() -> None:
    """Plain ones and streams."""
    heard: list[bytes] = []
    with answering(b"", heard) as url, pytest.raises(ConnectionError):
        ControlClient(Remote(url, "ak-1.as-1")).create_token(NewToken(name="jo"))
    with answering(b"", heard) as url, pytest.raises(ConnectionError):
        ControlClient(Remote(url, "ak-1.as-1"), environment="staging").logs("seed")
    assert all(b"Authorization: Bearer ak-1.as-1\r\n" in request for request in heard)
    assert heard[1].startswith(b"GET /v1/apps/seed/logs?environment=staging&")


def test_a_server_that_is_not_there_is_named() -> None:
    """With what to look at."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=url) as caught:
        ControlClient(Remote(url)).find_server()
    assert "--listen" in (caught.value.hint or "")
