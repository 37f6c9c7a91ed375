"""Calls from other machines, on their way to the calls' socket."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from portico.api.fake import FakeServices
from portico.wire.control import TokenInfo
from tests.unit.api.test_token_door import connect

TOKEN = {"Authorization": "Bearer ak-1.as-ak-1"}
CALL = TOKEN | {"X-Portico-Call": "0123.calls"}


@pytest.fixture
def calls(tmp_path: Path, services: FakeServices) -> Iterator[socket.socket]:
    """The calls' socket; who calls has a token."""
    services.issued["ak-1"] = TokenInfo(id="ak-1", name="one", environment=None, created_at=0.0)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "calls.sock"))
        door.listen()
        door.settimeout(10)
        yield door


def hear(door: socket.socket, length: int) -> tuple[socket.socket, bytes]:
    """The next connection, and its request with a body of this length."""
    connection, _ = door.accept()
    connection.settimeout(10)
    data = b""
    while len(data.partition(b"\r\n\r\n")[2]) < length or b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    return connection, data


def test_a_call_arrives_as_it_was_meant(public_socket: Path, calls: socket.socket) -> None:
    """Its target, its host and its body; nothing of the token. The answer comes back as it is."""
    client = connect(public_socket)
    client.request("POST", "/v1/calls/x?wait=1", body=b"arguments", headers=CALL | {"Content-Type": "a/b"})
    connection, heard = hear(calls, 9)
    head, _, body = heard.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x?wait=1 HTTP/1.1\r\nhost: 0123.calls\r\n")
    assert b"content-type: a/b" in head
    assert b"as-ak-1" not in head
    assert body == b"arguments"
    connection.sendall(b"HTTP/1.1 202 Accepted\r\nx-mark: 7\r\ncontent-length: 5\r\n\r\nvalue")
    response = client.getresponse()
    assert (response.status, response.getheader("x-mark"), response.read()) == (202, "7", b"value")
    connection.close()


def test_an_answer_that_is_cut_does_not_look_whole(public_socket: Path, calls: socket.socket) -> None:
    """The caller sees that something is missing."""
    client = connect(public_socket)
    client.request("POST", "/v1/calls/", headers=CALL)
    connection, _ = hear(calls, 0)
    connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    response = client.getresponse()
    assert response.read(3) == b"abc"
    connection.close()
    with pytest.raises(http.client.IncompleteRead):
        response.read()


def test_a_call_ends_when_nobody_waits_for_it(public_socket: Path, calls: socket.socket) -> None:
    """The socket is closed, so the function is told."""
    client = connect(public_socket)
    client.request("POST", "/v1/calls/", headers=CALL)
    connection, _ = hear(calls, 0)
    client.close()
    with contextlib.suppress(ConnectionResetError):  # as good
        assert connection.recv(1) == b""
    connection.close()


@pytest.mark.parametrize("host", [None, "", "acme--seed.localhost:7777", "a b.calls", "x.calls\tx", "../calls"])
def test_a_call_of_nobody_is_refused(public_socket: Path, calls: socket.socket, host: str | None) -> None:
    """Nothing but hosts of that socket is passed on."""
    client = connect(public_socket)
    client.request("POST", "/v1/calls/", headers=TOKEN if host is None else TOKEN | {"X-Portico-Call": host})
    assert client.getresponse().status == 400


def test_a_call_of_two_functions_is_refused(public_socket: Path, calls: socket.socket) -> None:
    """Or the token might be for the one, and the call go to the other."""
    client = connect(public_socket)
    client.putrequest("POST", "/v1/calls/")
    for name, value in (*CALL.items(), ("X-Portico-Call", "4567.calls"), ("Content-Length", "0")):
        client.putheader(name, value)
    client.endheaders()
    assert client.getresponse().status == 400


def test_a_call_to_a_server_that_ends_is_refused(public_socket: Path, calls: socket.socket, tmp_path: Path) -> None:
    """Its socket is gone before its door is."""
    (tmp_path / "calls.sock").unlink()
    client = connect(public_socket)
    client.request("POST", "/v1/calls/", headers=CALL)
    assert client.getresponse().status == 503
