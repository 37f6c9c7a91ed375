"""Calls that leave the event loop free: the asynchronous twin of `calls`, with connections kept for each loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from portico.client.answers import Answer, Route, arguments, request, value_of
from portico.client.calls import IDLE_LIMIT, no_server
from portico.model import errors
from portico.wire.calls import Kind

_AHEAD: Final = 16  # messages that wait for who reads them before the server is kept waiting

_idle: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, list[_Connection]]] = WeakKeyDictionary()


async def call(route: Route, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As `calls.call`."""
    return await send(route, arguments(route, args, kwargs))


async def send(route: Route, payload: bytes) -> Any:
    """As `call`, for arguments that are bytes already."""
    connection = await _ask(route, Kind.CALL, payload)
    try:
        while not connection.answer.complete:
            await connection.more(route)
        if not connection.answer.messages:
            raise connection.answer.stopped(route)
        return value_of(connection.answer.messages[0], route)
    finally:
        connection.rest()


async def iterate(route: Route, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
    """As `calls.iterate`."""
    connection = await _ask(route, Kind.ITERATE, arguments(route, args, kwargs))
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


async def _ask(route: Route, kind: Kind, payload: bytes) -> _Connection:
    """A connection on which the answer has begun."""
    for host in route.hosts:
        connection = await _connect(route.socket)
        try:
            await connection.say(route, host, kind, payload)
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


async def _connect(path: str) -> _Connection:
    loop = asyncio.get_running_loop()
    idle = _idle.setdefault(loop, {}).setdefault(path, [])
    while idle:
        connection = idle.pop()
        if connection.usable:
            return connection
        connection.close()
    try:
        _, connection = await loop.create_unix_connection(lambda: _Connection(idle), path)
    except OSError as error:
        raise no_server(path, error) from None
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

    async def say(self, route: Route, host: str, kind: Kind, payload: bytes) -> None:
        """Send a request. A server that refuses it early may not hear all of it."""
        self.answer = Answer()
        for piece in request(host, kind, payload, route.parameters):
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
