"""Carries a stored request to a container and brings its response back. On the control plane's loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import httptools

from portico.ingress.head import opening_lines
from portico.ingress.ports import Lease
from portico.model.calls import Body, CallRecord
from portico.model.ports import Bodies
from portico.wire.calls import FAILED_HEADER
from portico.wire.container import HELD_HEADER

INLINE: Final = 16 * 1024  # bytes of a body that stay with the record
_CHUNK: Final = 1 << 18
_DROPPED: Final = frozenset(
    (b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"x-request-id", HELD_HEADER, FAILED_HEADER)
)


class LostError(Exception):
    """The container ended, or did not speak HTTP. untouched: it has not seen the request."""

    def __init__(self, *, untouched: bool = False) -> None:
        super().__init__("the container ended before it answered")
        self.untouched = untouched


@dataclass(frozen=True, slots=True)
class Delivery:
    """A whole response. held: its input has not ended yet. failed: the function has raised."""

    status: int
    lines: bytes
    body: Body
    held: bool
    failed: bool


async def carry(call: CallRecord, input_id: str, lease: Lease, door: str, bodies: Bodies) -> Delivery:
    """Send it to the container of this lease, at its door; what it answers. LostError when there is no whole answer."""
    try:
        reader, writer = await _connect(lease.address + door)
    except OSError:
        raise LostError(untouched=True) from None
    try:
        answer = _Response()
        sending = asyncio.ensure_future(_send(writer, call, _opening(call, input_id, lease), bodies))
        try:
            await _head(reader, answer)
            answer.complete = answer.complete or call.head.startswith(b"HEAD ")
            body = await keep(f"{call.id}.response", _body(reader, answer), bodies)
        except (OSError, httptools.HttpParserError):
            raise LostError from None
        finally:
            sending.cancel()
            with suppress(OSError, asyncio.CancelledError):
                await sending
    finally:
        writer.close()
    held = answer.held and not lease.is_foreign
    return Delivery(answer.status, b"".join(answer.lines), body, held, answer.failed)


async def keep(name: str, chunks: AsyncIterator[bytes], bodies: Bodies) -> Body:
    """The bytes, with the record where they are few, otherwise in a file of this name."""
    first = bytearray()
    async for chunk in chunks:
        first += chunk
        if len(first) > INLINE:
            return Body(await bodies.write(name, _joined(bytes(first), chunks)), file=name)
    return Body(len(first), bytes(first))


async def contents(body: Body, bodies: Bodies) -> AsyncIterator[bytes]:
    """The bytes of a body, in pieces."""
    if body.file is None:
        yield body.inline
        return
    async for piece in bodies.read(body.file):
        yield piece


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("/"):
        return await asyncio.open_unix_connection(address)
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port))


def _opening(call: CallRecord, input_id: str, lease: Lease) -> bytes:
    lines = call.head.lower().split(b"\r\n")
    host = next((line.partition(b":")[2].strip() for line in lines if line.startswith(b"host:")), b"localhost")
    return opening_lines(input_id.encode(), call.client.encode(), host, foreign=lease.is_foreign)


async def _send(writer: asyncio.StreamWriter, call: CallRecord, opening: bytes, bodies: Bodies) -> None:
    line, _, lines = call.head.partition(b"\r\n")
    writer.write(b"%b\r\n%b%bconnection: close\r\ncontent-length: %d\r\n\r\n" % (line, opening, lines, call.body.size))
    async for piece in contents(call.body, bodies):
        writer.write(piece)
        await writer.drain()


async def _head(reader: asyncio.StreamReader, answer: _Response) -> None:
    while not answer.begun:
        data = await reader.read(_CHUNK)
        if not data:
            raise LostError
        answer.feed(data)


async def _body(reader: asyncio.StreamReader, answer: _Response) -> AsyncIterator[bytes]:
    while True:
        if answer.pieces:
            pieces, answer.pieces = answer.pieces, []
            yield b"".join(pieces)
        if answer.complete:
            return
        data = await reader.read(_CHUNK)
        if data:
            answer.feed(data)
        elif answer.until_close:
            return
        else:
            raise LostError


class _Response:
    """A response, as its bytes come in."""

    def __init__(self) -> None:
        self.status = 0
        self.lines: list[bytes] = []
        self.pieces: list[bytes] = []
        self.begun = False
        self.complete = False
        self.until_close = True
        self.held = False
        self.failed = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """More of it."""
        self._parser.feed_data(data)

    # -- the parser's callbacks -----------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        self.lines.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower in (b"content-length", b"transfer-encoding"):
            self.until_close = False
        self.held = self.held or lower == HELD_HEADER
        self.failed = self.failed or lower == FAILED_HEADER
        if lower not in _DROPPED:
            self.lines.append(b"%b: %b\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.begun = self.status >= 200

    def on_body(self, data: bytes) -> None:
        self.pieces.append(data)

    def on_message_complete(self) -> None:
        self.complete = self.begun
