"""The reader: a warm process that reads the user's file in a fork of itself, again and again.

    python -P -m portico.runtime.reader

One JSON document a line: a `ReadRequest` on stdin, a `ReadReply` for each on stdout, in order; it ends with its stdin.
A request that comes while another is read takes its place; the older one is answered with an error. Laws:
the process stays single-threaded, or a fork of it could hang; what it imports ahead is never the user's own, or an
edit could go unseen; and it imports ahead only while nobody waits.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from portico.runtime import reading
from portico.runtime.tracebacks import is_user_file
from portico.sdk import alias
from portico.wire.reading import ReadReply, ReadRequest, encode
from portico.wire.reading import request as decode_request

OUTPUT_LIMIT = 64 * 1024  # bytes of what the user's code printed that travel; the last ones
_CHUNK = 1 << 16
_SOON = ("pydantic", "starlette.applications", "fastapi")  # what most files import sooner or later
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


class Reader:
    """Answers requests from one descriptor on another. `without` are packages that must not be imported ahead."""

    def __init__(self, requests: int, replies: int, without: Iterable[str] = ()) -> None:
        self._requests = requests
        self._replies = replies
        self._without = set(without)
        self._buffer = b""
        self._ended = False
        self._ahead: list[str] = []  # module names to import while idle
        self._answered = False
        self._libc = ctypes.CDLL(None)
        self._threads = _threads()

    def run(self) -> None:
        """Until the requests end."""
        # What the user's code starts and leaves behind becomes our child, and ends when its read has ended.
        self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        while (line := self._next_line()) is not None:
            learnt, answer = self._answer(line)
            if self._ended:
                return
            _write(self._replies, answer)
            if not self._answered:
                learnt = [*learnt, *_SOON]
                self._answered = True
            known = {*sys.modules, *self._ahead}
            self._ahead += [name for name in learnt if name not in known and not self._is_left_out(name)]

    # -- requests ----------------------------------------------------------------------------------------------------
    def _next_line(self) -> bytes | None:
        while b"\n" not in self._buffer:
            if self._ahead and not self._buffer and not select.select([self._requests], [], [], 0)[0]:
                self._import_ahead()
            else:
                self._receive()
                if self._ended:
                    return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _receive(self) -> None:
        data = os.read(self._requests, _CHUNK)
        self._ended = not data
        self._buffer += data

    def _answer(self, line: bytes) -> tuple[list[str], bytes]:
        """The names that the read has taught us, and the reply as a line."""
        try:
            request = decode_request(line)
        except msgspec.DecodeError as error:
            return [], encode(ReadReply(error=f"Not a request: {error}", error_kind="usage"))
        output = os.memfd_create("output")
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            self._read(request, send, output)
        os.close(send)
        try:
            return self._wait(child, receive, output, request)
        finally:
            os.close(receive)
            os.close(output)

    def _wait(self, child: int, receive: int, output: int, request: ReadRequest) -> tuple[list[str], bytes]:
        """What the child says, or what is to be said of it; it is gone afterwards, with all that it has started."""
        gone = os.pidfd_open(child)
        said = b""
        status: int | None = None
        sources = [receive, gone, self._requests]
        try:
            while said.count(b"\n") < 2:
                ready, _, _ = select.select(sources, [], [])
                if receive in ready:
                    data = os.read(receive, _CHUNK)
                    said += data
                    if not data:
                        sources.remove(receive)  # it has died, or its code has closed what it does not know
                elif gone in ready:
                    status = os.waitpid(child, 0)[1]
                    break
                else:
                    self._receive()
                    if self._ended or b"\n" in self._buffer:
                        return [], encode(ReadReply(error="A newer request has come.", error_kind="superseded"))
        finally:
            os.close(gone)
            if status is None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            _end_children()
        if status is not None:
            return [], encode(_died(status, request, _tail(output)))
        names, _, answer = said.partition(b"\n")
        return json.loads(names), answer

    # -- in the child ----------------------------------------------------------------------------------------------
    def _read(self, request: ReadRequest, send: int, output: int) -> NoReturn:
        try:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            _isolate(request, output)
            before = set(sys.modules)
            answer = reading.read(request)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            _write(send, json.dumps(_imported(before)).encode() + b"\n")
            _write(send, encode(msgspec.structs.replace(answer, output=_tail(output))))
        except UnicodeEncodeError as error:
            _write(send, encode(ReadReply(error=f"Text that is not UTF-8: {error!r}", error_kind="user")))
        finally:
            os._exit(0)  # the user's exit handlers and threads are not for this process

    # -- while idle ------------------------------------------------------------------------------------------------
    def _import_ahead(self) -> None:
        """Import one module that a read has needed."""
        name = self._ahead.pop(0)
        if self._is_left_out(name):
            return
        given = {variable: os.environ.get(variable) for variable in _ONE_THREAD}
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))  # read once, when the libraries behind numpy load
        try:
            import_module(name)
        except Exception:
            self._without.add(name)
        finally:
            for variable, value in given.items():
                if value is None:
                    os.environ.pop(variable, None)
                else:
                    os.environ[variable] = value
        if _threads() > self._threads:
            self._start_anew(name.partition(".")[0])
        elif not self._ahead:
            gc.collect()
            gc.freeze()  # forks leave these pages shared

    def _is_left_out(self, name: str) -> bool:
        return name in self._without or name.partition(".")[0] in self._without

    def _start_anew(self, package: str) -> None:
        """A thread has been started: become a fresh process that leaves this package to the forks."""
        os.dup2(self._requests, 0)
        os.dup2(self._replies, 1)
        without = [argument for name in sorted({*self._without, package}) for argument in ("--without", name)]
        os.execv(sys.executable, [sys.executable, "-P", "-m", "portico.runtime.reader", *without])  # noqa: S606


def main(arguments: list[str]) -> None:
    """Serve stdin and stdout. Only we write to what was stdout; whatever else prints goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us, and who then closes our stdin
    signal.signal(signal.SIGTERM, _exit)
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    alias.install()
    without = [name for flag, name in zip(arguments[::2], arguments[1::2], strict=True) if flag == "--without"]
    Reader(requests, replies, without).run()


def _exit(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)


def _isolate(request: ReadRequest, output: int) -> None:
    """The child is as a Python that was started for the user's file, with its output in a memory file."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(request.cwd)
    sys.argv[:] = [request.ref.partition("::")[0]]


def _imported(before: set[str]) -> list[str]:
    """The installed modules that this process has imported since, what others need first; nothing of the user's."""
    names = [name for name in sys.modules if name not in before and _is_installed(name)]
    packages = list(dict.fromkeys(name.partition(".")[0] for name in names))
    order = {package: -place for place, package in enumerate(packages)}  # who is imported first imports the others
    return sorted(names, key=lambda name: order[name.partition(".")[0]])


def _is_installed(name: str) -> bool:
    spec = getattr(sys.modules[name], "__spec__", None)
    if name.partition(".")[0] in (alias.NAME, "portico") or spec is None or spec.name != name:
        return False
    return bool(spec.has_location and spec.origin and not is_user_file(spec.origin))


def _died(status: int, request: ReadRequest, output: str) -> ReadReply:
    """The reply for a child that has ended without one."""
    place = request.ref.partition("::")[0]
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        how = f"by signal {number} ({signal.Signals(number).name})"
    else:
        how = f"with exit code {os.waitstatus_to_exitcode(status)}"
    file = None if request.module else str(Path(request.cwd, place))
    return ReadReply(
        error=f"The process that read {place} was ended {how}.",
        error_kind="user",
        error_hint="Something that the file does while it is imported ends it: os._exit(), a crash in a library, or "
        "too little memory.",
        error_file=file,
        watch=[str(Path(file).parent)] if file else [request.cwd],
        output=output,
    )


def _end_children() -> None:
    """Kill what reads have left behind."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    try:
        while left := [int(pid) for pid in children.read_text().split()]:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    except (FileNotFoundError, ChildProcessError):
        return  # a kernel that does not list children


def _threads() -> int:
    """The threads of this process, those that only libraries know too."""
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return threading.active_count()


def _tail(output: int) -> str:
    size = os.fstat(output).st_size
    return os.pread(output, OUTPUT_LIMIT, max(0, size - OUTPUT_LIMIT)).decode(errors="replace")


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    main(sys.argv[1:])
