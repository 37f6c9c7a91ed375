"""Calls that leave the event loop free: the asynchronous twin of `calls`, with connections kept for each loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any, Final, cast

from portico.client.answers import Answer, Route, Say, arguments, call_with, value_of
from portico.client.calls import IDLE_LIMIT, no_server
from portico.client.remote import CONNECT_TIMEOUT, Remote, keep_alive, through, unreachable
from portico.client.retrying import ASK_RETRIES, Outcome, delay_after, failed, outcome_of, policy_of, result_of
from portico.model import errors
from portico.model.spec import RetryPolicy
from portico.wire.calls import CONTROL_DOMAIN, Kind, Message

_AHEAD: Final = 16  # messages that wait for who reads them before the server is kept waiting

_kept: dict[asyncio.AbstractEventLoop, _Kept] = {}


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's loop or, where the image's Python has none, asyncio's."""
    try:
        import uvloop  # compiled for one Python version: an image with another may be without it
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def call(route: Route, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As `calls.call`."""
    return result_of(await send(route, arguments(route, args, kwargs)), route)


async def send(route: Route, payload: Sequence[bytes]) -> Outcome:
    """What a call with these arguments comes to, after all of its attempts."""
    say = call_with(Kind.CALL, payload, route.parameters)
    attempts = 0
    while True:
        attempts += 1
        outcome = await _attempt(route, say)
        delay = delay_after(attempts, await _policy(route)) if failed(outcome) else None
        if delay is None:
            return outcome
        await asyncio.sleep(delay)


async def ask(route: Route, say: Say) -> Any:
    """As `calls.ask`."""
    return value_of(await _answer(route, say), route)


async def _attempt(route: Route, say: Say) -> Outcome:
    try:
        return await _answer(route, say)
    except errors.Error as error:
        return outcome_of(error)


async def _answer(route: Route, say: Say) -> Message:
    connection = await _begin(route, say)
    try:
        while not connection.answer.complete:
            await connection.more(route)
        if not connection.answer.messages:
            raise connection.answer.stopped(route)
        return connection.answer.messages[0]
    finally:
        connection.rest()


async def _policy(route: Route) -> RetryPolicy | None:
    if route.retries == "ask":
        return policy_of(await ask(route.elsewhere(CONTROL_DOMAIN), ASK_RETRIES))
    return route.retries


async def iterate(route: Route, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
    """As `calls.iterate`."""
    connection = await _begin(route, call_with(Kind.ITERATE, arguments(route, args, kwargs), route.parameters))
    messages = connection.answer.messages
    try:
        while True:
            while messages:
                message = messages.popleft()
                if message.kind is Kind.END:
                    while not connection.answer.complete:
                        await connection.more(route)
                    return
                yield value_of(message, route)
            if connection.answer.complete:
                raise connection.answer.stopped(route)
            await connection.more(route)
    finally:
        connection.rest()


async def _begin(route: Route, say: Say) -> _Connection:
    """A connection on which the answer has begun."""
    for host in route.hosts:
        connection = await _connect(route.socket)
        try:
            await connection.say(through(route.socket, say(host)))
            while not connection.answer.decided:
                await connection.more(route)
            if host == route.hosts[-1] or not connection.answer.missing():
                connection.answer.check(route)
                return connection
        except BaseException:
            connection.rest()
            raise
        connection.rest()
    raise route.missing()


class _Kept:
    """The idle connections of one loop, by socket. They are closed when the loop shuts its generators down."""

    def __init__(self) -> None:
        self.idle: dict[str | Remote, list[_Connection]] = {}
        self._end = self._at_the_end(asyncio.get_running_loop())

    async def begin(self) -> None:
        """Have the loop know of it."""
        await anext(self._end)

    async def _at_the_end(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            del _kept[loop]
            for connections in self.idle.values():
                for connection in connections:
                    connection.close()
            await asyncio.sleep(0)  # transports close in the loop's next turn


async def _connect(address: str | Remote) -> _Connection:
    loop = asyncio.get_running_loop()
    kept = _kept.get(loop)
    if kept is None:
        for other in [other for other in _kept if other.is_closed()]:
            del _kept[other]  # whoever ran it did not shut its generators down
        kept = _kept[loop] = _Kept()
        await kept.begin()
    idle = kept.idle.setdefault(address, [])
    while idle:
        connection = idle.pop()
        if connection.usable:
            return connection
        connection.close()
    if isinstance(address, Remote):
        return await _connect_remote(address, lambda: _Connection(idle))
    try:
        _, connection = await loop.create_unix_connection(lambda: _Connection(idle), address)
    except OSError as error:
        raise no_server(address, error) from None
    return connection


async def _connect_remote(remote: Remote, make: Callable[[], _Connection]) -> _Connection:
    loop = asyncio.get_running_loop()
    secure = True if remote.parts.scheme == "https" else None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            transport, connection = await loop.create_connection(make, remote.host, remote.port, ssl=secure)
    except OSError as error:
        raise unreachable(remote, error) from None
    keep_alive(transport.get_extra_info("socket"))
    return connection


class _Connection(asyncio.Protocol):
    """One connection, with one call at a time."""

    def __init__(self, idle: list[_Connection]) -> None:
        self.answer = Answer()
        self._idle = idle
        self._transport = cast("asyncio.Transport", None)
        self._news: asyncio.Future[None] | None = None  # something has come
        self._room: asyncio.Future[None] | None = None  # what was written has gone
        self._failure: errors.Error | None = None
        self._lost = False
        self._paused = False
        self._since = 0.0

    @property
    def usable(self) -> bool:
        """Whether the next call may have it."""
        young = time.monotonic() - self._since < IDLE_LIMIT
        return young and not self._lost and not self._transport.is_closing()

    async def say(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Send a request. A server that refuses it early may not hear all of it."""
        self.answer = Answer()
        for piece in pieces:
            if self._room is not None:
                await self._room
            if self._lost or self.answer.begun:
                return
            self._transport.write(piece)

    async def more(self, route: Route) -> None:
        """Return when more has come; raises why nothing will."""
        if self._failure is not None:
            raise self._failure
        if self._lost:
            raise self.answer.cut(route)
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._news = asyncio.get_running_loop().create_future()
        await self._news

    def rest(self) -> None:
        """The call is over: keep the connection if it can be used again."""
        if self.answer.complete and self.answer.reusable and not self._lost:
            self._since = time.monotonic()
            self._idle.append(self)
        else:
            self.close()

    def close(self) -> None:
        """End it; the server ends the call."""
        self._transport.abort()

    # -- the transport's callbacks --------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.answer.feed(data)
        except errors.Error as error:
            self._failure = error
            self._transport.abort()
        if len(self.answer.messages) > _AHEAD and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.resume_writing()
        self._tell()
        with contextlib.suppress(ValueError):
            self._idle.remove(self)

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)
