"""A stream of events, read line by line from an open response."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from types import TracebackType

import msgspec

from portico.model import errors
from portico.wire.control import Event, Problem, decode_event

_CHUNK = 1 << 16


class EventStream(Iterator[Event]):
    """Events as they come, until the server ends the stream. A Problem is raised, as the error that it names.

    ConnectionError when the server goes away in the middle.
    """

    def __init__(self, sock: socket.socket, response: http.client.HTTPResponse, address: object) -> None:
        self._socket = sock
        self._response = response
        self._address = address
        self._lines: Iterator[bytes] = self._read()

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> Event:
        line = next(self._lines)
        try:
            event = decode_event(line)
        except msgspec.DecodeError as error:
            self.close()
            raise not_understood(self._address, error) from None
        if isinstance(event, Problem):
            self.close()
            raise errors.by_code(event.code, event.message, hint=event.hint, detail=event.detail)
        return event

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the server notices. A second call does nothing."""
        self._response.close()
        self._socket.close()

    def _read(self) -> Iterator[bytes]:
        rest = b""
        while data := self._more():
            *lines, rest = (rest + data).split(b"\n")
            yield from (line for line in lines if line)
        if rest:
            yield rest

    def _more(self) -> bytes:
        try:
            return self._response.read1(_CHUNK)
        except (OSError, http.client.HTTPException):
            raise errors.ConnectionError("The server has gone away.", hint="See its log.") from None


def not_understood(address: object, reason: object) -> errors.Error:
    """What is raised when the answer is not one of the control API."""
    return errors.ConnectionError(
        f"What answers at {address} does not speak this version of Portico's control API ({reason}).",
        hint="Restart the server: `portico down`, then `portico up`.",
    )
