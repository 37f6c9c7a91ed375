"""The container's end of its lifeline: what it says to the server, and what the server asks of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import msgspec

from portico.wire import container as wire

_MAX_CAUSE = 1_000  # characters; in JSON at most six bytes each, so that both fit a packet
_MAX_DETAIL = 8_000


class Lifeline:
    """Owns the socket."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def send(self, message: msgspec.Struct) -> None:
        """Say this. Waits while the server has very many packets unread, and says nothing to one that is gone."""
        try:
            self._socket.send(wire.encode(message))
        except OSError:
            return  # the tether is about to end this process

    def fail(self, cause: str, detail: str) -> None:
        """Say that the container cannot become ready."""
        self.send(wire.Failed(cause[:_MAX_CAUSE], shorten(detail)))

    def listen(self, on_message: Callable[[wire.Cancel | wire.Stop], None]) -> None:
        """Hand over what the server says, on the running loop."""

        def on_readable() -> None:
            while packet := self._receive():
                on_message(wire.to_container(packet))

        asyncio.get_running_loop().add_reader(self._socket.fileno(), on_readable)

    def _receive(self) -> bytes:
        try:
            packet = self._socket.recv(wire.MAX_PACKET, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except OSError:
            packet = b""
        if not packet:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        return packet


def shorten(text: str) -> str:
    """`text`, without its middle where it is too long for a packet; what an error says stands at its end."""
    if len(text) <= _MAX_DETAIL:
        return text
    return f"{text[: _MAX_DETAIL // 4]}\n[…]\n{text[-_MAX_DETAIL * 3 // 4 + 10 :]}"
