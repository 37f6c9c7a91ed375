"""`/v1/calls/…`: calls of functions from other machines, passed on to the socket where functions are called.

A request's target behind `/v1/calls`, and the host in its header `x-portico-call`, are what that socket hears.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Final

import httptools
from starlette.types import Message, Receive, Scope, Send

from portico.api.errors import respond
from portico.api.http import left
from portico.model.errors import ConnectionError, InvalidError
from portico.wire.calls import RELAYED_HOST, RELAYED_PATH

_HOST: Final = re.compile(rb"[0-9a-z-]{1,80}\.[a-z]{1,20}")
_PASSED: Final = frozenset([b"accept", b"content-type", b"content-length", b"prefer"])
_DROPPED: Final = frozenset([b"connection", b"keep-alive", b"transfer-encoding", b"trailer", b"date"])
_CHUNK: Final = 1 << 16


class CallRelay:
    """An ASGI application; `path` is the calls' socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            head = _head(scope)
            reader, writer = await asyncio.open_unix_connection(self._path)
        except InvalidError as error:
            await respond(error)(scope, receive, send)
            return
        except OSError:
            await respond(ConnectionError("The server is ending.", hint="Try again."))(scope, receive, send)
            return
        try:
            with contextlib.suppress(OSError):  # refused early; the answer is there to be read
                writer.write(head)
                await _pass_body(receive, writer)
            passing = asyncio.ensure_future(_pass_answer(reader, send))
            leaving = asyncio.ensure_future(left(receive))
            try:
                await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (passing, leaving):
                    task.cancel()
                await asyncio.gather(passing, leaving, return_exceptions=True)
        finally:
            writer.transport.abort()  # a call that nobody waits for ends


def _head(scope: Scope) -> bytes:
    headers = dict(scope["headers"])
    host = headers.get(RELAYED_HOST, b"")
    if not _HOST.fullmatch(host):
        raise InvalidError("It is not said which function is called.")
    target = scope["raw_path"].removeprefix(RELAYED_PATH) or b"/"
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    lines = b"".join(b"%b: %b\r\n" % (name, value) for name, value in headers.items() if name in _PASSED)
    method = scope["method"].encode()
    return b"%b %b HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n%b\r\n" % (method, target, host, lines)


async def _pass_body(receive: Receive, writer: asyncio.StreamWriter) -> None:
    more = True
    while more:
        message = await receive()
        writer.write(message.get("body", b""))
        await writer.drain()
        more = message.get("more_body", False)


async def _pass_answer(reader: asyncio.StreamReader, send: Send) -> None:
    """To its end. An answer that stops before it stays incomplete here, too."""
    answer = _Answer()
    while not answer.complete and (data := await reader.read(_CHUNK)):
        answer.feed(data)
        for message in answer.take():
            await send(message)


class _Answer:
    """The socket's answer, as messages of ASGI."""

    def __init__(self) -> None:
        self.complete = False
        self._messages: list[Message] = []
        self._headers: list[tuple[bytes, bytes]] = []
        self._begun = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """More bytes."""
        self._parser.feed_data(data)

    def take(self) -> list[Message]:
        """What has come since this was asked last."""
        messages, self._messages = self._messages, []
        return messages

    # -- the parser's callbacks -----------------------------------------------------------------------------------
    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun and name.lower() not in _DROPPED:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._begun = True
        status = self._parser.get_status_code()
        self._messages.append({"type": "http.response.start", "status": status, "headers": self._headers})

    def on_body(self, data: bytes) -> None:
        self._messages.append({"type": "http.response.body", "body": data, "more_body": True})

    def on_message_complete(self) -> None:
        self.complete = True
        self._messages.append({"type": "http.response.body", "body": b"", "more_body": False})
