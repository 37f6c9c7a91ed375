"""Whether the other side of a connection still reads."""

from __future__ import annotations

import asyncio
import socket
import sys

_ACKED = slice(120, 128)  # tcpi_bytes_acked in Linux's struct tcp_info


def reading_of(transport: asyncio.Transport) -> tuple[int, int]:
    """What changes while the other side reads: the bytes that wait here, and those that it has confirmed.

    The kernel may hold megabytes, so the former alone may stand still for minutes.
    """
    try:
        info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.stop)
    except OSError:  # a Unix socket
        info = bytes(_ACKED.stop)
    return transport.get_write_buffer_size(), int.from_bytes(info[_ACKED], sys.byteorder)
