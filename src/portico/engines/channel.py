"""SOCK_SEQPACKET pairs on the running loop: uvloop's transports do not know such sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from portico.wire.container import MAX_PACKET

AT_ONCE: Final = 64  # packets that are read before other work gets its turn
_AGAIN: Final = 0.02  # seconds until a packet is sent again, when too many descriptors are under way


class Channel(ABC):
    """One end of a pair; it owns the socket. How it is read is for a kind of them to say."""

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()
        self._open = True
        sock.setblocking(False)

    def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send it now, or when there is room. The descriptors belong to the channel, which closes them."""
        if not self._open:
            close_all(descriptors)
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
            close_all(self._unsent.popleft()[1])

    @abstractmethod
    def _read(self, limit: int | None) -> None:
        """Hand over so many packets, as far as there are any; None: all."""

    def _write(self) -> None:
        self._loop.remove_writer(self._socket.fileno())
        while self._open and self._unsent:
            packet, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._socket, [packet], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._write)
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    self._loop.call_later(_AGAIN, self._write_again)
                    return
                # else the other side is gone, which its process's end will tell
            close_all(descriptors)
            self._unsent.popleft()

    def _write_again(self) -> None:
        if self._open:
            self._write()


class PacketChannel(Channel):
    """`on_packet` is called for each packet; the end of the stream is silent: processes tell it."""

    def __init__(self, sock: socket.socket, on_packet: Callable[[bytes], None]) -> None:
        super().__init__(sock)
        self._on_packet = on_packet
        self._loop.add_reader(sock.fileno(), self._read, AT_ONCE)

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


def close_all(descriptors: Sequence[int]) -> None:
    """Close these."""
    for descriptor in descriptors:
        os.close(descriptor)
