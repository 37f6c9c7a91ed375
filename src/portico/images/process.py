"""Programs that a build runs: their lines as they come, and no process left when they end or are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from portico.model.ports import LineSink

_CHUNK = 64 * 1024
_LAST_OUTPUT = 2.0  # seconds in which what is left in the pipe is read after the program's end
_LONGEST_LINE = 64 * 1024  # longer ones are cut in pieces; a program without newlines must not fill the memory

# What would make uv or Python look at another environment than the one that is built.
_MISLEADING = frozenset(
    {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "UV_PYTHON"}
    | {"UV_SYSTEM_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_BREAK_SYSTEM_PACKAGES", "UV_TARGET", "UV_PREFIX"}
)


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The server's environment without what would mislead a build, with `extra` on top.

    uv trusts the certificates of the system, as pip does where a company has an authority of its own.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    return {"UV_SYSTEM_CERTS": "1"} | kept | dict(extra)


async def run(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, on_line: LineSink) -> int:
    """Run a program to its end; every line of its stdout and stderr goes to `on_line`. Returns its exit code.

    A negative code is the signal that ended it. Whatever it left in the background is killed, and so is all of it
    when the caller is cancelled. Raises OSError when it cannot be started.
    """
    near, far = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: ASYNC220 - starting takes a millisecond, and its end is awaited below
            argv, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=far, stderr=far, start_new_session=True
        )
    except BaseException:
        os.close(near)
        raise
    finally:
        os.close(far)
    output = asyncio.create_task(_read_lines(near, on_line))
    ended = asyncio.create_task(asyncio.to_thread(_wait_for_leader, process.pid))
    try:
        await asyncio.wait({output, ended}, return_when=asyncio.FIRST_COMPLETED)
        if output.done():
            output.result()  # a sink that fails ends the program, which would wait for its reader for ever
        await asyncio.shield(ended)
    finally:
        _kill_group(process.pid)
        await ended
        code = process.wait()  # it has ended: this only reaps
        with contextlib.suppress(asyncio.TimeoutError):  # a daemon in a session of its own may hold the pipe
            await asyncio.wait_for(output, _LAST_OUTPUT)
    return code


def _wait_for_leader(pid: int) -> None:
    # Not reaped here: while the leader is a zombie, its process group's number cannot be given to anybody else.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


async def _read_lines(descriptor: int, on_line: LineSink) -> None:
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    rest = b""
    try:
        while chunk := await reader.read(_CHUNK):
            *lines, rest = (rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                on_line(line.decode(errors="replace"))
        if rest:
            on_line(rest.decode(errors="replace"))
    finally:
        transport.close()
