"""What is streamed is closed when its response has ended; Starlette alone leaves that to the garbage collector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.responses import StreamingResponse

from portico.runtime.asgi import Message, Scope
from portico.runtime.closing import close_streams

SCOPE: Scope = {"type": "http", "method": "GET", "asgi": {"spec_version": "2.3"}}


class Source:
    """Endless pieces of three kinds, that say when they are closed."""

    def __init__(self) -> None:
        self.closed = False

    def sync(self) -> Iterator[bytes]:
        try:
            while True:
                yield b"piece"
        finally:
            self.closed = True

    async def generator(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"piece"
        finally:
            await asyncio.sleep(0)
            self.closed = True

    def iterable(self) -> Any:
        class Iterable:
            def __aiter__(_) -> AsyncIterator[bytes]:
                return self.generator()

        return Iterable()


@pytest.mark.parametrize("kind", ["sync", "generator", "iterable"])
@pytest.mark.parametrize("by", ["leaving", "cancelling", "failing"])
async def test_a_stream_is_closed_with_its_response(kind: str, by: str) -> None:
    """However it ends: its client has left, or does not read; it is cancelled; sending fails."""
    close_streams()
    close_streams()  # a second time changes nothing
    source, sending, left = Source(), asyncio.Event(), asyncio.Event()
    parts: list[Message] = []

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        parts.append(message)
        if len(parts) == 3:
            sending.set()
            if by == "failing":
                raise OSError("gone")
            await asyncio.Event().wait()

    response = StreamingResponse(getattr(source, kind)())
    running = asyncio.create_task(response(SCOPE, receive, send))
    await sending.wait()
    if by == "leaving":
        left.set()
    elif by == "cancelling":
        running.cancel()
    await asyncio.wait([running])
    assert source.closed
    assert [part["type"] for part in parts] == ["http.response.start", *["http.response.body"] * 2]
    if by == "failing":
        assert isinstance(running.exception(), OSError)


async def test_a_whole_stream_passes_as_it_is() -> None:
    """Nothing is lost, added or reordered."""
    close_streams()
    parts: list[bytes] = []

    async def send(message: Message) -> None:
        parts.append(message.get("body", b""))

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    for pieces in (iter(["a", "b"]), ["a", "b"]):
        parts.clear()
        await StreamingResponse(pieces)(SCOPE, receive, send)
        assert parts == [b"", b"a", b"b", b""]
