"""Packets between the processes of one server, with descriptors: on the running loop, over SOCK_SEQPACKET pairs.

Several processes may write to the same end: each packet arrives whole. What is longer than a packet may be travels as a
file in memory.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

log = logging.getLogger("portico.packets")

_MOST: Final = 64 * 1024  # bytes of a packet, less than any socket's buffer
_AT_ONCE: Final = 64  # packets that are read before other work gets its turn
_AGAIN: Final = 0.02  # seconds until a packet is sent again, when too many descriptors are under way
_PLAIN, _FILED = b"\0", b"\1"  # what a packet begins with: it is all there is, or a file comes with it

OnPacket = Callable[[bytes, list[int]], None]  # the descriptors are the receiver's


class Packets:
    """One end; it owns the socket. on_packet: takes what comes. on_end: there is nobody left who could write."""

    def __init__(
        self, sock: socket.socket, on_packet: OnPacket | None = None, on_end: Callable[[], None] = lambda: None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._on_packet = on_packet
        self._on_end = on_end
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()
        self._all_sent = asyncio.Event()
        self._all_sent.set()
        self._open = True
        sock.setblocking(False)
        self.read_on()

    async def flushed(self) -> None:
        """Return when the kernel has all that was sent."""
        await self._all_sent.wait()

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send it now, or when there is room. The descriptors are closed here."""
        if not self._open:
            _close(descriptors)
            return
        packet = _PLAIN + data
        if len(data) > _MOST:
            packet, descriptors = _FILED, (*descriptors, _filed(data))
        self._unsent.append((packet, descriptors))
        self._all_sent.clear()
        if len(self._unsent) == 1:
            self._write()

    def drain(self) -> None:
        """Hand over all that has arrived."""
        self._read(None)

    def rest(self) -> None:
        """Take no more for now: it waits in the socket."""
        self._loop.remove_reader(self._socket.fileno())

    def read_on(self) -> None:
        """The opposite of `rest`."""
        if self._open and self._on_packet is not None:
            self._loop.add_reader(self._socket.fileno(), self._read, _AT_ONCE)

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
                _close(descriptors)
                continue
            data = _read_file(descriptors.pop()) if packet == _FILED else packet[1:]
            self._on_packet(data, descriptors)
            limit = None if limit is None else limit - 1

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
                    self._loop.call_later(_AGAIN, self._write)
                    return
                # the other side is gone, which its process's end will tell
            self._unsent.popleft()
            _close(descriptors)
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


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
