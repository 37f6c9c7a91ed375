"""The server's end of a SOCK_SEQPACKET pair, on the running loop: uvloop's transports do not know such sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from portico.wire.container import MAX_PACKET

_AT_ONCE = 64  # packets that are read before other work gets its turn


class PacketChannel:
    """Owns the socket. `on_packet` is called for each packet; the end of the stream is silent: processes tell it."""

    def __init__(self, sock: socket.socket, on_packet: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._on_packet = on_packet
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()
        self._open = True
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._read, _AT_ONCE)

    def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send it now, or when there is room. The descriptors belong to the channel, which closes them."""
        if not self._open:
            _close(descriptors)
            return
        self._unsent.append((packet, descriptors))
        if len(self._unsent) == 1:
            self._write()

    def drain(self) -> None:
        """Hand over every packet that has arrived, now."""
        self._read(None)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        while self._unsent:
            _close(self._unsent.popleft()[1])

    def _read(self, limit: int | None) -> None:
        while self._open and limit != 0:
            try:
                packet = self._socket.recv(MAX_PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._loop.remove_reader(self._socket.fileno())
                return
            self._on_packet(packet)
            limit = None if limit is None else limit - 1

    def _write(self) -> None:
        while self._open and self._unsent:
            packet, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._socket, [packet], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._write)
                return
            except OSError:
                pass  # the other side is gone, which its process's end will tell
            _close(descriptors)
            self._unsent.popleft()
        if self._open:
            self._loop.remove_writer(self._socket.fileno())


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
