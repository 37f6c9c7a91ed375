"""Ports of a container's own, in the network that it shares with everything else on the machine.

Laws:
1. A TCP port on which a process below the filter wants to listen, on all addresses or on the loopback, becomes a free
   port of the loopback; which one is kept for as long as the container lives. So two containers may have the same port.
   The port that is served becomes one on any address.
2. A connection from below the filter to a port of the loopback that was so replaced goes to the replacement.
3. Everything else is left to the kernel: connections to other machines, to other ports of this one, UDP, Unix sockets.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from portico.runtime import seccomp
from portico.runtime.seccomp import Call, Calls

_BACKLOG: Final = 1024  # at least: what does not fit is tried again a second later
_ANY_PORT: Final = 0
_LOOPBACK_4, _LOOPBACK_6 = IPv4Address("127.0.0.1"), IPv6Address("::1")
_LOOPBACK_MAPPED: Final = IPv6Address("::ffff:127.0.0.1")


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens. `port` is what the program asked for; `inode` names the socket in /proc.

    address: where it listens in truth, as "host:port". is_public: whether it wanted more than the loopback.
    """

    port: int
    inode: int
    address: str
    is_public: bool


class Ports:
    """Answers the calls that come over this descriptor, on the running loop.

    served: the port that the program is there for. listens: hears of each listener, on whatever port.
    """

    def __init__(self, descriptor: int, served: int, listens: Callable[[Listener], None]) -> None:
        self._calls = Calls(descriptor)
        self._served = served
        self._listens = listens
        self._bound: dict[int, tuple[int, bool]] = {}  # inode -> the port that was asked for, whether it is public
        self._replaced: dict[tuple[int, int], int] = {}  # (IP version, port asked for) -> port
        self._connecting: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._serve)

    def __repr__(self) -> str:
        return f"<Ports {self._replaced}>"

    def _serve(self) -> None:
        try:
            call = self._calls.next()
        except OSError:  # nobody is left below the filter
            self._loop.remove_reader(self._calls.fileno())
            return
        if call is None:
            return
        try:
            answered = {"bind": self._bind, "listen": self._listen, "connect": self._connect}[call.name](call)
        except OSError:  # the caller has gone, or its call is nonsense: the kernel has the right error for it
            answered = False
        if not answered:
            self._calls.go_on(call)

    # Each of these says whether it has answered, or will; else the kernel does what was asked for.
    def _bind(self, call: Call) -> bool:
        wanted = _parse(seccomp.address(call))
        if wanted is None or wanted.port == _ANY_PORT or not (wanted.is_local or wanted.port == self._served):
            return False
        with seccomp.borrow(call) as sock:
            if not _is_tcp(sock):
                return False
            inode = os.fstat(sock.fileno()).st_ino
            if inode in self._bound:  # a signal has interrupted the call, and it was made again
                self._calls.answer(call, 0)
                return True
            version, target = wanted.replacement(sock)
            port = self._replaced.get((version, wanted.port), _ANY_PORT)
            error = seccomp.bind(sock, target(port))
            if not error:
                self._bound[inode] = (wanted.port, not wanted.is_loopback)
                self._replaced[version, wanted.port] = sock.getsockname()[1]
        self._calls.answer(call, error)
        return True

    def _listen(self, call: Call) -> bool:
        with seccomp.borrow(call) as sock:
            inode = os.fstat(sock.fileno()).st_ino
            if inode not in self._bound:
                return False
            port, is_public = self._bound[inode]
            sock.listen(max(call.arguments[1] & 0xFFFF, _BACKLOG))
            host, actual = sock.getsockname()[:2]
        self._calls.answer(call, 0)
        host = "[::1]" if host == str(_LOOPBACK_6) else str(_LOOPBACK_4)
        self._listens(Listener(port, inode, f"{host}:{actual}", is_public))
        return True

    def _connect(self, call: Call) -> bool:
        wanted = _parse(seccomp.address(call))
        if wanted is None or not wanted.is_local:
            return False
        port_4, port_6 = self._replaced.get((4, wanted.port)), self._replaced.get((6, wanted.port))
        if port_4 is None and port_6 is None:
            return False
        sock = seccomp.borrow(call)
        if not _is_tcp(sock):
            sock.close()
            return False
        if port_6 is not None and sock.family == socket.AF_INET6 and (wanted.version == 6 or port_4 is None):
            target = _pack(_LOOPBACK_6, port_6)
        elif port_4 is not None:
            target = _pack(_LOOPBACK_4 if sock.family == socket.AF_INET else _LOOPBACK_MAPPED, port_4)
        else:
            sock.close()
            return False
        task = self._loop.create_task(self._redirect(call, sock, target))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return True

    async def _redirect(self, call: Call, sock: socket.socket, target: bytes) -> None:
        """In a thread: a socket that blocks may do so for as long as nobody accepts."""
        with sock:
            self._calls.answer(call, await asyncio.to_thread(seccomp.connect, sock, target))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An internet address in a call."""

    host: IPv4Address | IPv6Address
    port: int

    @property
    def version(self) -> int:
        return self._plain.version

    @property
    def is_loopback(self) -> bool:
        return self._plain.is_loopback

    @property
    def is_local(self) -> bool:
        return self._plain.is_loopback or self._plain.is_unspecified

    @property
    def _plain(self) -> IPv4Address | IPv6Address:
        mapped = self.host.ipv4_mapped if isinstance(self.host, IPv6Address) else None
        return mapped or self.host

    def replacement(self, sock: socket.socket) -> tuple[int, Callable[[int], bytes]]:
        """The IP version of the loopback address that stands for it, and the socket address for a port of that."""
        if sock.family == socket.AF_INET:
            return 4, lambda port: _pack(_LOOPBACK_4, port)
        only_6 = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        if only_6 or self._plain == _LOOPBACK_6:
            return 6, lambda port: _pack(_LOOPBACK_6, port)
        return 4, lambda port: _pack(_LOOPBACK_MAPPED, port)


def _is_tcp(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6)


def _parse(raw: bytes) -> _Wanted | None:
    """A socket address; None when it is none of the internet."""
    if len(raw) < 16:
        return None
    family, port = struct.unpack_from("=H", raw)[0], struct.unpack_from("!H", raw, 2)[0]
    if family == socket.AF_INET:
        return _Wanted(IPv4Address(raw[4:8]), port)
    if family == socket.AF_INET6 and len(raw) >= 24:
        return _Wanted(IPv6Address(raw[8:24]), port)
    return None


def _pack(host: IPv4Address | IPv6Address, port: int) -> bytes:
    if host.version == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + host.packed + bytes(8)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + host.packed + struct.pack("=I", 0)
