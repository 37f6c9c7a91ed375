"""What turns a fork into a process of its own: session, descriptors, environment, limits, signals."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import time

_PR_SET_CHILD_SUBREAPER = 36
_LARGEST_FREED = 4 * 1024 * 1024


def become_reaper() -> None:
    """Processes that a descendant leaves behind become this process's children, to be reaped here."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def give_way() -> None:
    """Let a wake-up of this process not interrupt another one; its forks do not inherit that.

    Without it each fork request takes milliseconds from the server, which has requests to answer.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH | os.SCHED_RESET_ON_FORK, os.sched_param(0))


def keep_freed_memory() -> None:
    """Let the C library keep some MiB of freed memory, for itself and its forks, instead of giving all of it back.

    glibc keeps twice the size of the largest mapped block that was ever freed. Where that is less than what an app
    takes and frees for each chunk of a long body, the kernel makes the same pages anew for each chunk.
    """
    block = bytes(_LARGEST_FREED)
    del block


def tether(descriptor: int) -> None:
    """Let the kernel kill this process group as soon as the pipe's other end closes.

    `descriptor` is the read end of a pipe whose only writer is the server. This works whatever the process does: with
    a blocked loop, or in C code that holds the interpreter's lock. Call it as leader of the process group.
    """
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    try:
        os.read(descriptor, 1)  # nobody writes: this is the end, which may have come before the line above
        os.kill(0, signal.SIGKILL)
    except BlockingIOError:
        pass


def redirect(stdout: int, stderr: int) -> None:
    """Make these the standard output and error; they themselves are closed."""
    for descriptor, standard in ((stdout, 1), (stderr, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)


def write_line_by_line() -> None:
    """Have each line that is printed leave at once."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # the interpreter made it a TextIOWrapper


def default_signals() -> None:
    """Undo the template's signal handling. SIGTERM ends the process until a server handles it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def replace_environment(variables: dict[str, str]) -> None:
    """Make these the whole environment."""
    os.environ.clear()
    os.environ.update(variables)
    if "TZ" in variables:
        time.tzset()


def copy_files(source: str, target: str) -> None:
    """Copy what is in one folder into another one, as far as it can be copied: sockets cannot."""
    if not os.listdir(source):
        return
    with contextlib.suppress(shutil.Error):  # it goes on after each
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def make_folders(folder: str) -> str:
    """A container's own folder; returns its folder for temporary files, which all of the container's users may use."""
    temporary = os.path.join(folder, "tmp")
    os.makedirs(temporary, mode=0o700)
    os.chmod(temporary, 0o1777)  # noqa: S103  (nobody else gets into `folder`)
    return temporary
