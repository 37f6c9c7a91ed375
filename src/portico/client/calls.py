"""Calls that block: one kept-alive connection at a time for each thread that calls. Safe in threads and after a fork.

A call is never sent twice: an idle connection is looked at before it is used, and is not used when it is old.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Generator
from typing import Any, Final

from portico.client.answers import Answer, Route, Say, arguments, call_with, value_of
from portico.client.remote import CONNECT_TIMEOUT, Remote, open_connection, through
from portico.client.retrying import ASK_RETRIES, Outcome, delay_after, failed, outcome_of, policy_of, result_of
from portico.model import errors
from portico.model.spec import RetryPolicy
from portico.wire.calls import CONTROL_DOMAIN, Kind, Message

IDLE_LIMIT: Final = 60.0  # seconds that a connection rests, less than the server's own limit
_CHUNK: Final = 1 << 18

_idle: dict[str | Remote, list[tuple[socket.socket, float]]] = {}
os.register_at_fork(after_in_child=_idle.clear)


def call(route: Route, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The function's result. Raises what it raised, or an error of ours that says why there is no result."""
    say = call_with(Kind.CALL, arguments(route, args, kwargs), route.parameters)
    attempts = 0
    while True:
        attempts += 1
        outcome = _attempt(route, say)
        delay = delay_after(attempts, _policy(route)) if failed(outcome) else None
        if delay is None:
            return result_of(outcome, route)
        time.sleep(delay)


def ask(route: Route, say: Say) -> Any:
    """The value in the answer to one request."""
    return value_of(_answer(route, say), route)


def _attempt(route: Route, say: Say) -> Outcome:
    try:
        return _answer(route, say)
    except errors.Error as error:
        return outcome_of(error)


def _answer(route: Route, say: Say) -> Message:
    with contextlib.closing(_exchange(route, say)) as exchange:
        for answer in exchange:
            if answer.messages and answer.complete:
                return answer.messages[0]
    raise answer.stopped(route)


def _policy(route: Route) -> RetryPolicy | None:
    if route.retries == "ask":
        return policy_of(ask(route.elsewhere(CONTROL_DOMAIN), ASK_RETRIES))
    return route.retries


def iterate(route: Route, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generator[Any, None, None]:
    """What the function yields, as it comes; closing this generator ends the function's."""
    with contextlib.closing(
        _exchange(route, call_with(Kind.ITERATE, arguments(route, args, kwargs), route.parameters))
    ) as exchange:
        ended = False
        for answer in exchange:
            while answer.messages:
                message = answer.messages.popleft()
                ended = ended or message.kind is Kind.END
                if not ended:
                    yield value_of(message, route)
    if not ended:
        raise answer.stopped(route)


def _exchange(route: Route, say: Say) -> Generator[Answer, None, None]:
    """The answer, each time that more of it has come, until it is complete."""
    for last, host in zip((*(False,) * (len(route.hosts) - 1), True), route.hosts, strict=True):
        connection = _connection(route.socket)
        answer = Answer()
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused early: the answer is there
                for piece in through(route.socket, say(host)):
                    connection.sendall(piece)
            while not answer.complete:
                _receive(connection, answer, route)
                if answer.missing() and not last:
                    break
                answer.check(route)
                if answer.messages and not answer.complete:
                    yield answer
        finally:
            if answer.complete and answer.reusable:
                _idle.setdefault(route.socket, []).append((connection, time.monotonic()))
            else:
                connection.close()
        if not answer.missing():
            yield answer
            return


def _receive(connection: socket.socket, answer: Answer, route: Route) -> None:
    try:
        data = connection.recv(_CHUNK)
    except ConnectionResetError:
        data = b""
    if not data:
        raise answer.cut(route)
    answer.feed(data)


def _connection(address: str | Remote) -> socket.socket:
    idle = _idle.get(address)
    while idle:
        try:
            connection, since = idle.pop()
        except IndexError:  # another thread was quicker
            break
        if time.monotonic() - since < IDLE_LIMIT and not _readable(connection):
            return connection
        connection.close()
    if isinstance(address, Remote):
        connection = open_connection(address, CONNECT_TIMEOUT).sock
        connection.settimeout(None)  # a function may take its time
        return connection
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address)
    except OSError as error:
        connection.close()
        raise no_server(address, error) from None
    return connection


def _readable(connection: socket.socket) -> bool:
    """Whether an idle connection has something to say: that it is closed."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def no_server(path: str, error: OSError) -> errors.ConnectionError:
    """Nobody takes calls there."""
    if isinstance(error, PermissionError):
        return errors.ConnectionError(f"No permission to call functions at {path}.", hint="It is another user's.")
    return errors.ConnectionError("No Portico server is running.", hint="Start one with `portico up`.")
