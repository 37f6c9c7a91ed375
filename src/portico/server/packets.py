"""Packets between the processes of one server, with descriptors: on the running loop, over SOCK_SEQPACKET pairs.

Several processes may write to the same end: each packet arrives whole. What is longer than a packet may be travels as a
file in memory.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

from portico.engines.channel import AT_ONCE, Channel, close_all

log = logging.getLogger("portico.packets")

_MOST: Final = 64 * 1024  # bytes of a packet, less than any socket's buffer
_PLAIN, _FILED = b"\0", b"\1"  # what a packet begins with: it is all there is, or a file comes with it

OnPacket = Callable[[bytes, list[int]], None]  # the descriptors are the receiver's


class Packets(Channel):
    """One end; it owns the socket. on_packet: takes what comes. on_end: there is nobody left who could write."""

    def __init__(
        self, sock: socket.socket, on_packet: OnPacket | None = None, on_end: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(sock)
        self._on_packet = on_packet
        self._on_end = on_end
        self._all_sent = asyncio.Event()
        self._all_sent.set()
        self.read_on()

    async def flushed(self) -> None:
        """Return when the kernel has all that was sent."""
        await self._all_sent.wait()

    def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send it now, or when there is room, however long it is. The descriptors are closed here."""
        if not self._open:
            close_all(descriptors)
            return
        self._all_sent.clear()
        if len(packet) > _MOST:
            super().send(_FILED, (*descriptors, _filed(packet)))
        else:
            super().send(_PLAIN + packet, descriptors)

    def rest(self) -> None:
        """Take no more for now: it waits in the socket."""
        self._loop.remove_reader(self._socket.fileno())

    def read_on(self) -> None:
        """The opposite of `rest`."""
        if self._open and self._on_packet is not None:
            self._loop.add_reader(self._socket.fileno(), self._read, AT_ONCE)

    def close(self) -> None:
        super().close()
        self._all_sent.set()

    # -- inside ---------------------------------------------------------------------------------------------------
    def _read(self, limit: int | None) -> None:
        assert self._on_packet is not None
        while self._open and limit != 0:
            try:
                packet, descriptors, flags, _ = socket.recv_fds(self._socket, _MOST + 1, 2, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                packet, descriptors, flags = b"", [], 0
            if not packet:
                self._loop.remove_reader(self._socket.fileno())
                self._on_end()
                return
            if flags & socket.MSG_CTRUNC:
                log.error("there is no descriptor left for what another process has sent")
                close_all(descriptors)
                continue
            data = _read_file(descriptors.pop()) if packet == _FILED else packet[1:]
            self._on_packet(data, descriptors)
            limit = None if limit is None else limit - 1

    def _write(self) -> None:
        super()._write()
        if not self._unsent:
            self._all_sent.set()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _filed(data: bytes) -> int:
    descriptor = os.memfd_create("packet")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    return descriptor


def _read_file(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read()
