"""The client against sockets that answer wrongly, late, or not at all."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portico.client.control import ControlClient
from portico.model import errors
from portico.wire.control import Ended

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@contextlib.contextmanager
def answering(path: Path, talk: Callable[[socket.socket], None]) -> Iterator[ControlClient]:
    """A server whose every connection is handled by `talk`, after the request's head has come."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    talk(connection)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ControlClient(path, timeout=0.3)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def sends(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


def test_no_socket(tmp_path):
    """Without a server there is an error that says how to start one."""
    with pytest.raises(errors.ConnectionError) as caught:
        ControlClient(tmp_path / "none.sock").server()
    assert caught.value.hint == "Start one with `portico up`."


def test_socket_that_nobody_listens_on(tmp_path):
    """A stale socket file is no server either."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "stale.sock"))
    left.close()
    with pytest.raises(errors.ConnectionError, match="No Portico server is running"):
        ControlClient(tmp_path / "stale.sock").server()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        OK + b"content-length: 5\r\n\r\nhello",
        OK + b"content-length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 Oops\r\ncontent-length: 6\r\n\r\n<html>",
        OK + b"content-length: 50\r\n\r\n{}",
    ],
)
def test_garbage_is_an_error_of_the_connection(tmp_path, answer):
    """What is not the control API is said to be so."""
    with (
        answering(tmp_path / "s", sends(answer)) as client,
        pytest.raises(errors.ConnectionError, match="does not speak"),
    ):
        client.server()


def test_connection_closed_before_the_answer(tmp_path):
    """A server that hangs up at once is not waited for."""
    with (
        answering(tmp_path / "s", lambda connection: None) as client,
        pytest.raises(errors.ConnectionError, match="closed the connection"),
    ):
        client.server()


def test_silence_times_out(tmp_path):
    """A plain call ends after its timeout."""
    done = threading.Event()
    with answering(tmp_path / "s", lambda connection: done.wait(10)) as client:
        with pytest.raises(errors.TimeoutError, match="did not answer within"):
            client.server()
        done.set()


def test_problem_becomes_its_error(tmp_path):
    """A Problem is raised as the error that its code names, whole."""
    body = b'{"type":"problem","code":"conflict","message":"m","hint":"h","detail":"d"}'
    answer = b"HTTP/1.1 409 Conflict\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with answering(tmp_path / "s", sends(answer)) as client, pytest.raises(errors.ConflictError) as caught:
        client.server()
    assert (caught.value.message, caught.value.hint, caught.value.detail) == ("m", "h", "d")


def test_stream_cut_in_the_middle(tmp_path):
    """Events that came are given out; then the loss is an error, not a quiet end."""
    answer = CHUNKED + chunk(b'{"type":"ended","reason":"stopped"}\n') + b"ff\r\n{"
    with answering(tmp_path / "s", sends(answer)) as client, client.logs("x", follow=True) as events:
        assert next(events) == Ended("stopped")
        with pytest.raises(errors.ConnectionError, match="gone away"):
            next(events)


def test_stream_lines_split_over_chunks(tmp_path):
    """A line may come in pieces, and a piece may hold several lines."""
    line = b'{"type":"ended","reason":"stopped"}\n'
    pieces = [line[:7], line[7:] + line, line]
    answer = CHUNKED + b"".join(map(chunk, pieces)) + b"0\r\n\r\n"
    with answering(tmp_path / "s", sends(answer)) as client, client.logs("x") as events:
        assert len(list(events)) == 3


def test_stream_of_garbage(tmp_path):
    """A line that is no event ends the stream with an error."""
    with (
        answering(tmp_path / "s", sends(CHUNKED + chunk(b"hello\n"))) as client,
        client.logs("x") as events,
        pytest.raises(errors.ConnectionError, match="does not speak"),
    ):
        next(events)


def test_close_hangs_up(tmp_path):
    """The server sees at once that a stream was closed."""
    hung_up = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(CHUNKED + chunk(b'{"type":"ended","reason":"stopped"}\n'))
        assert connection.recv(1) == b""
        hung_up.set()

    with answering(tmp_path / "s", talk) as client:
        with client.logs("x", follow=True) as events:
            next(events)
        assert hung_up.wait(10)
