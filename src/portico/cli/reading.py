"""The command line's side of the reader: a warm process that reads the user's file in a fork of itself."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType

import msgspec

from portico.cli.terminal import Terminal
from portico.model import errors
from portico.model.spec import AppSpec
from portico.wire.reading import ReadReply, ReadRequest, encode, reply

READER = (sys.executable, "-P", "-m", "portico.runtime.reader")
_CHUNK = 1 << 16


def clean_environment() -> dict[str, str]:
    """Ours, for a process of ours: it may keep compiled files, or each of its starts would take twice as long."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Reader:
    """One reader process; started on entry, gone with its forks on exit."""

    def __init__(self, command: Sequence[str] = READER) -> None:
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._unanswered = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Reader:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def ask(self, request: ReadRequest) -> None:
        """Send the request; `answer` has what comes of it."""
        for last in (False, True):
            process = self._process or self._start()
            assert process.stdin is not None
            try:
                self._count(1)
                process.stdin.write(encode(request))
                return
            except BrokenPipeError:
                self._end()  # it has died since the last request; a new one is as good
                if last:
                    raise _broken("it ends at once") from None

    def supersede(self, request: ReadRequest) -> None:
        """From another thread than the one that waits in `answer`: let it have the answer to this request instead."""
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it has just ended, and whoever waits learns it there
                self._count(1)
                process.stdin.write(encode(request))

    def answer(self, timeout: float | None = None) -> ReadReply:
        """The answer to the last request; errors.Error when there is none after `timeout` seconds, or ever."""
        try:
            while True:
                line = self._line(timeout)
                if self._count(-1) <= 0:  # older requests have answers of their own, which nobody wants
                    return reply(line)
        except msgspec.DecodeError as error:
            self._end()
            raise _broken(f"its answer makes no sense: {error}") from None

    def read(self, request: ReadRequest, timeout: float | None = None) -> ReadReply:
        """`ask`, then `answer`."""
        self.ask(request)
        return self.answer(timeout)

    def _count(self, change: int) -> int:
        with self._lock:
            self._unanswered += change
            return self._unanswered

    def _line(self, timeout: float | None) -> bytes:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._rest:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([process.stdout], [], [], left)[0]:
                self._end()
                raise errors.TimeoutError(
                    f"Reading the file has taken longer than {timeout:g} s.", hint="Is there an endless loop in it?"
                )
            data = os.read(process.stdout.fileno(), _CHUNK)
            if not data:
                self._end()
                raise _broken(f"it ended with code {process.returncode}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _start(self) -> subprocess.Popen[bytes]:
        self._rest, self._unanswered = b"", 0
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("PORTICO_TRACEBACK") else subprocess.DEVNULL,
            env=clean_environment(),
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us; we end it when we have cleaned up
        )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it keeps nothing; its fork may hang in the user's code
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def spec_of(answer: ReadReply, terminal: Terminal) -> AppSpec:
    """The specification, after what its file printed and warns of has been said; InvalidError if there is none."""
    if answer.output:
        terminal.note(answer.output.rstrip("\n"))
    if answer.spec is None:
        raise to_error(answer)
    for warning in answer.spec.warnings:
        terminal.warn(warning)
    return answer.spec


def to_error(answer: ReadReply) -> errors.InvalidError:
    """The error that a reply tells of: the user's traceback as its detail, and the file that is at fault named."""
    message = answer.error or "The file could not be read."
    file = answer.error_file
    if file and os.path.basename(file) not in message:
        message = f"{os.path.relpath(file)}: {message}"
    return errors.InvalidError(message, hint=answer.error_hint, detail=answer.traceback)


def _broken(why: str) -> errors.Error:
    return errors.InternalFailure(
        f"The process that reads your file has failed: {why}.", hint="PORTICO_TRACEBACK=1 shows what it says."
    )
