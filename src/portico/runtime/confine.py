"""What a container sees of the machine: namespaces of its own, in which what is not its own is covered.

A user namespace keeps it from looking into processes outside: the kernel refuses it their environment, memory, open
files and root folder, although they may be the same user's. A mount namespace in that covers folders with empty
ones, and lays a folder of the container's own over the bundle: what it writes there is its own, the bundle stays as it
is. Then the container gives up the rights that could undo it. The user's identity, and what it may do with files that
are not covered, stay as they are.

The fork server answers for the part that a process cannot do for itself: `Gate`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NoReturn

from portico.wire.container import OVER, View

_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _REMOUNT, _BIND, _RECURSIVE = 1, 2, 4, 32, 4096, 16384
_RELATIVE_TIMES: Final = 1 << 21
_LOCKED: Final = 2 | 4 | 8 | 1024 | 2048  # what a mount says of set-user-id, devices, programs and times
_DROP_BOUND: Final = 24  # PR_CAPBSET_DROP
_CAPABILITIES_3: Final = 0x20080522
# What root keeps of its rights, in its own namespace: over files, identities and processes below it; none over mounts.
_KEPT: Final = frozenset([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 18, 19, 23, 24, 27, 29, 31])
_PATIENCE: Final = 10.0  # seconds that a fork server waits for a fork, whatever holds that up
_MOST: Final = 64  # capabilities that there may ever be

_libc = ctypes.CDLL(None, use_errno=True)


class Gate:
    """Where a fork waits for its fork server to say who is who in the fork's new user namespace."""

    def __init__(self) -> None:
        self._server, self._fork = socket.socketpair()
        self._server.settimeout(_PATIENCE)

    def open(self, pid: int) -> None:
        """In the fork server: let this fork pass, when it has come to it. One that has ended is of no concern here."""
        self._fork.close()
        with self._server, contextlib.suppress(OSError):
            if self._server.recv(1):
                _map_identities(pid)
                self._server.send(b"!")

    def enter(self) -> None:
        """In the fork: let go of the fork server's descriptor, so that its end is noticed."""
        self._server.close()

    def fileno(self) -> int:
        """The fork's descriptor."""
        return self._fork.fileno()

    def pass_through(self) -> None:
        """In the fork: wait. OSError when it is not let through."""
        with self._fork:
            self._fork.send(b"?")
            if not self._fork.recv(1):
                raise OSError(errno.EPERM, "the container's user namespace could not be set up")


def confine(view: View, gate: Gate, bundle: str) -> None:
    """See only this and the bundle from now on. For a process of one thread. OSError when that cannot be."""
    _check(_libc.unshare(_NEW_USERS | _NEW_MOUNTS))
    gate.pass_through()
    os.chdir("/")  # a folder that is covered could still be used by who stands in it
    with _handles(bundle, view.folder) as (below, own):
        _cover(view)
        _shield(bundle, below, own)
    _give_up_rights()


def obstacle() -> int:
    """0, or the errno that says why `confine` cannot work here. Tries it, in a fork. For a process of one thread."""
    gate = Gate()
    pid = os.fork()
    if pid == 0:
        _try_out(gate)
    gate.open(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) % 256


def programs() -> list[str]:
    """The folders that this interpreter and its modules are in, also those of modules that are links."""
    folders = {sys.prefix, sys.base_prefix, *filter(os.path.isabs, sys.path)}
    for folder in sys.path:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            folders |= {os.path.dirname(os.path.realpath(entry.path)) for entry in entries if entry.is_symlink()}
    return sorted({os.path.realpath(folder) for folder in folders if os.path.exists(folder)})


def _try_out(gate: Gate) -> NoReturn:
    status = errno.EPERM
    try:
        gate.enter()
        _check(_libc.unshare(_NEW_USERS | _NEW_MOUNTS))
        gate.pass_through()
        _mount("tmpfs", "/proc", "tmpfs", 0)  # any folder that is certain to be there
        status = 0
    except OSError as error:
        status = error.errno or errno.EPERM
    finally:
        os._exit(status)


# -- mounts -----------------------------------------------------------------------------------------------------------
def plan(hidden: Iterable[str], shown: Iterable[str]) -> list[tuple[str, bool]]:
    """What to do, from the outside in: (path, whether it is shown). What is inside something shown is so already."""
    steps: list[tuple[str, bool]] = []
    covered = set(hidden)
    for path in sorted(covered.union(shown), key=lambda path: f"{path}/"):
        around = next((is_shown for outer, is_shown in reversed(steps) if path.startswith(f"{outer}/")), True)
        if path in covered or not around:
            steps.append((path, path not in covered))
    return steps


def _cover(view: View) -> None:
    """Cover what is hidden; put what is shown back on top of that, from where it still is below it."""
    hidden = [os.path.realpath(folder) for folder in view.hidden if os.path.isdir(folder)]
    steps = plan(hidden, [os.path.realpath(path) for path in (view.folder, *view.shown) if os.path.exists(path)])
    with contextlib.ExitStack() as undo:
        again = [path for path, is_shown in steps if is_shown]
        below = dict(zip(again, undo.enter_context(_handles(*again)), strict=True))
        for path, is_shown in steps:
            if is_shown:
                _put_back(path, below[path])
            else:
                os.makedirs(path, exist_ok=True)  # it is gone when it was in another one
                _mount("tmpfs", path, "tmpfs", _NO_SUID | _NO_DEVICES, "size=1m,mode=700")
    if view.temporary:
        _put_back(os.path.realpath(view.temporary), os.path.join(view.folder, "tmp"))
    for path in filter(os.path.exists, view.blank):
        _mount("/dev/null", os.path.realpath(path), None, _BIND)


def _shield(bundle: str, below: str, own: str) -> None:
    """Let writes to the bundle go to the container's own folder. Where the kernel cannot do that, they fail."""
    layers = []
    for name in ("upper", "work"):
        os.mkdir(f"{own}/{OVER}{name}", mode=0o700)
        layers.append(f"{name}dir={own}/{OVER}{name}")
    try:
        _mount("none", bundle, "overlay", _NO_SUID | _NO_DEVICES, f"userxattr,lowerdir={below},{','.join(layers)}")
    except OSError:
        _mount(below, bundle, None, _BIND)
        _mount("none", bundle, None, _REMOUNT | _BIND | _READ_ONLY | _flags(bundle))


def _flags(path: str) -> int:
    """What a mount of the machine says, and a remount of it in a namespace below has to say again."""
    flags = os.statvfs(path).f_flag
    return flags & _LOCKED | (_RELATIVE_TIMES if flags & 4096 else 0)


@contextlib.contextmanager
def _handles(*paths: str) -> Iterator[tuple[str, ...]]:
    """Names by which these are reached also when they are covered."""
    with contextlib.ExitStack() as undo:
        descriptors = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths]
        for descriptor in descriptors:
            undo.callback(os.close, descriptor)
        yield tuple(f"/proc/self/fd/{descriptor}" for descriptor in descriptors)


def _put_back(path: str, source: str) -> None:
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).touch()
    _mount(source, path, None, _BIND | _RECURSIVE)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), options and options.encode()))


# -- identities and rights --------------------------------------------------------------------------------------------
def _map_identities(pid: int) -> None:
    """Everybody stays who they are; who is not root can only say so of themselves."""
    if os.geteuid() == 0:
        for kind in ("uid", "gid"):
            _write(f"/proc/{pid}/{kind}_map", "".join(map(_same, _ranges(kind))))
        return
    _write(f"/proc/{pid}/setgroups", "deny")
    _write(f"/proc/{pid}/uid_map", f"{os.geteuid()} {os.geteuid()} 1")
    _write(f"/proc/{pid}/gid_map", f"{os.getegid()} {os.getegid()} 1")


def _ranges(kind: str) -> list[list[str]]:
    with open(f"/proc/self/{kind}_map") as file:
        return [line.split() for line in file]


def _same(line: list[str]) -> str:
    return f"{line[0]} {line[0]} {line[2]}\n"


def _write(path: str, text: str) -> None:
    """In one piece, as the kernel wants it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _give_up_rights() -> None:
    """For good, also for programs that are started. Who is not root keeps none, as outside."""
    kept = _KEPT if os.geteuid() == 0 else frozenset()
    for capability in set(range(_MOST)) - kept:
        _libc.prctl(_DROP_BOUND, capability, 0, 0, 0)  # EINVAL for those that this kernel does not know
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    low = sum(1 << capability for capability in kept)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)(low, low, 0, 0, 0, 0)))  # effective, permitted, inheritable


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
