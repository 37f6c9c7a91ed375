"""The container's end of its lifeline: what it says to the server, and what the server asks of it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence

import msgspec

from portico.wire import container as wire

_MAX_CAUSE = 1_000  # characters; in JSON at most six bytes each, so that both fit a packet
_MAX_DETAIL = 8_000
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC


class Lifeline:
    """Owns the socket."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._packet = bytearray(wire.MAX_PACKET)  # made now: a container hears also when there is no memory left

    @property
    def channel(self) -> socket.socket:
        """Of a snapshot, which is asked for forks over it."""
        return self._socket

    def send(self, message: msgspec.Struct) -> None:
        """Say this. Waits while the server has very many packets unread, and says nothing to one that is gone."""
        try:
            self._socket.send(wire.encode(message))
        except OSError:
            return  # the tether is about to end this process

    def fail(self, cause: str, detail: str, *, killed: bool = False, taken: int = 0) -> None:
        """Say that the container cannot become ready; see `wire.Failed`."""
        self.send(wire.Failed(cause[:_MAX_CAUSE], shorten(detail), killed, taken))

    def listen(
        self,
        on_message: Callable[[wire.Cancel | wire.Stop], None],
        on_connection: Callable[[wire.HandOver, socket.socket], None] | None = None,
    ) -> None:
        """Pass on what the server says, on the running loop; and the connections that it hands over."""

        def on_readable() -> None:
            while True:
                packet, descriptors = self._receive()
                if not packet:
                    break
                message = wire.to_container(packet)
                if not isinstance(message, wire.HandOver):
                    on_message(message)
                elif on_connection is not None and descriptors:
                    on_connection(message, socket.socket(fileno=descriptors[0]))

        asyncio.get_running_loop().add_reader(self._socket.fileno(), on_readable)

    def _receive(self) -> tuple[bytes, Sequence[int]]:
        # `socket.recv_fds` does not pass flags on in Python 3.11, and would wait
        try:
            size, ancillary, _, _ = self._socket.recvmsg_into([self._packet], socket.CMSG_LEN(4), _FLAGS)
        except BlockingIOError:
            return b"", ()
        except OSError:
            size, ancillary = 0, []
        packet = bytes(memoryview(self._packet)[:size])
        if not packet:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        return packet, [struct.unpack("i", data)[0] for _, _, data in ancillary]


def shorten(text: str) -> str:
    """`text`, without its middle where it is too long for a packet; what an error says stands at its end."""
    if len(text) <= _MAX_DETAIL:
        return text
    return f"{text[: _MAX_DETAIL // 4]}\n[…]\n{text[-_MAX_DETAIL * 3 // 4 + 10 :]}"
