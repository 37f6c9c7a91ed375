"""Lets one process answer some system calls of others: those that give sockets their addresses.

The kernel's seccomp user notification (Linux 5.6). A filter makes `bind`, `listen` and `connect` wait until whoever has
its descriptor answers; all other calls, and connections to what is not an internet address, run as ever. It works
for any program, also for one without a C library, and cannot be taken off; children have it, too.
The only file that knows the kernel's structures for it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import socket
import struct
from typing import Final, NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)


class _Machine(NamedTuple):
    audit: int  # what the kernel calls it
    seccomp: int  # numbers of system calls
    bind: int
    listen: int
    connect: int


_MACHINES: Final = {
    "x86_64": _Machine(0xC000003E, 317, 49, 50, 42),
    "aarch64": _Machine(0xC00000B7, 277, 200, 201, 203),
}
_PIDFD_GETFD: Final = 438  # on every machine
_PR_SET_NO_NEW_PRIVS: Final = 38
_SET_MODE_FILTER: Final = 1
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
_RECEIVE: Final = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV
_SEND: Final = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND
_GO_ON: Final = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARCHITECTURE, _THIRD = 0, 4, 32  # offsets in struct seccomp_data
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")
_RESPONSE: Final = struct.Struct("=QqiI")
_NETLINK_SIZE: Final = 12
_INET_SIZES: Final = (16, 28)


class Call(NamedTuple):
    """A call that waits for its answer. `thread` is the caller's; `arguments` are numbers: descriptors, addresses."""

    id: int
    name: str  # "bind", "listen", "connect"
    thread: int
    arguments: tuple[int, ...]


def install() -> int:
    """Put the filter on this thread and all that it starts from now on; the descriptor for `Calls`.

    OSError where the kernel has no such thing, or does not let us.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    code = b"".join(struct.pack("=HBBI", *line) for line in _filter(machine))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HL", len(code) // 8, ctypes.addressof(buffer)))
    flags = [_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER]  # the first needs Linux 5.19: signals do not interrupt
    for privileged in (True, False):
        if not privileged:  # who has not CAP_SYS_ADMIN must promise not to gain privileges any more
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        for flag in flags:
            descriptor: int = _libc.syscall(machine.seccomp, _SET_MODE_FILTER, flag, program)
            if descriptor >= 0:
                return descriptor
            if ctypes.get_errno() != errno.EINVAL:
                break
        if ctypes.get_errno() != errno.EACCES:
            break
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Calls:
    """The calls of everything below a filter. Owns the descriptor, which is readable when one waits."""

    def __init__(self, descriptor: int) -> None:
        machine = _MACHINES[platform.machine()]
        self._names = {machine.bind: "bind", machine.listen: "listen", machine.connect: "connect"}
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def next(self) -> Call | None:
        """One that waits; None when it was given up meanwhile. OSError when nobody has the filter any more."""
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self._descriptor, _RECEIVE, buffer, True)
        except (FileNotFoundError, InterruptedError):
            return None
        call_id, thread, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
        return Call(call_id, self._names[number], thread, tuple(arguments))

    def go_on(self, call: Call) -> None:
        """Let the kernel do what the caller asked for."""
        self._send(call, 0, _GO_ON)

    def answer(self, call: Call, error: int) -> None:
        """Tell the caller that it was done (0), or why not (an errno)."""
        self._send(call, -error, 0)

    def _send(self, call: Call, error: int, flags: int) -> None:
        try:
            fcntl.ioctl(self._descriptor, _SEND, _RESPONSE.pack(call.id, 0, error, flags))
        except FileNotFoundError:
            return  # the caller has gone


def borrow(call: Call) -> socket.socket:
    """A second handle on the socket that is the call's first argument. OSError when it is none, or not to be had."""
    with open(f"/proc/{call.thread}/status") as status:
        process = int(next(line for line in status if line.startswith("Tgid:")).split()[1])
    descriptor = _duplicate(process, call.arguments[0] & 0xFFFFFFFF)
    try:
        return socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise


def obstacle(process: int) -> int:
    """The errno with which the system keeps us from answering the calls of that child; 0: nothing does."""
    try:
        os.close(_duplicate(process, 0))
        with open(f"/proc/{process}/mem", "rb"):
            return 0
    except OSError as error:
        return error.errno or errno.EPERM


def try_out() -> int:
    """Whether all this works here: 0, or the errno that says why not. For a process of its own: the filter stays on."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        found = obstacle(child)
        if not found:
            os.close(install())
    except OSError as error:
        found = error.errno or errno.EPERM
    os.close(writing)
    os.waitpid(child, 0)
    return found


def address(call: Call) -> bytes:
    """The socket address that a `bind` or `connect` names, as it lies in the caller's memory."""
    with open(f"/proc/{call.thread}/mem", "rb", buffering=0) as memory:
        memory.seek(call.arguments[1])
        return memory.read(min(call.arguments[2] & 0xFFFFFFFF, 128))


def bind(sock: socket.socket, where: bytes) -> int:
    """bind(2) without anything around it; the errno, or 0."""
    return _errno(_libc.bind(sock.fileno(), where, len(where)))


def connect(sock: socket.socket, where: bytes) -> int:
    """connect(2) without anything around it; the errno, or 0."""
    return _errno(_libc.connect(sock.fileno(), where, len(where)))


def _duplicate(process: int, descriptor: int) -> int:
    """A descriptor of our own for what that process has under this one. Needs the right to trace it."""
    pidfd = os.pidfd_open(process)
    try:
        ours: int = _libc.syscall(_PIDFD_GETFD, pidfd, ctypes.c_int(descriptor), 0)
        if ours < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return ours
    finally:
        os.close(pidfd)


def _errno(result: int) -> int:
    return ctypes.get_errno() if result < 0 else 0


def _filter(machine: _Machine) -> list[tuple[int, int, int, int]]:
    """As BPF: (operation, lines to skip if true, if false, operand)."""
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, 9, machine.audit),
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 8, 0, machine.listen),
        (_EQUAL, 3, 0, machine.connect),
        (_EQUAL, 0, 5, machine.bind),
        (_LOAD, 0, 0, _THIRD),
        (_EQUAL, 3, 4, _NETLINK_SIZE),  # every look-up of a name binds one of these
        (_LOAD, 0, 0, _THIRD),
        (_EQUAL, 2, 0, _INET_SIZES[0]),
        (_EQUAL, 1, 0, _INET_SIZES[1]),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _NOTIFY),
    ]
