"""Programs that a build runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from portico.images.process import clean_environment, run


async def shell(line: str, folder: Path, lines: list[str]) -> int:
    return await run(["sh", "-c", line], env=clean_environment({}), cwd=folder, on_line=lines.append)


async def test_lines_of_both_streams_come_and_the_exit_code(tmp_path: Path) -> None:
    """Whatever the program writes is a line, also the last one without a newline, and progress bars too."""
    lines: list[str] = []
    assert await shell("echo one; echo two >&2; printf 'a\\rb\\r\\nlast'; exit 3", tmp_path, lines) == 3
    assert lines == ["one", "two", "a", "b", "last"]


async def test_lines_come_while_the_program_runs(tmp_path: Path) -> None:
    """A program that waits for its reader's answer gets it, so nothing is held back."""
    os.mkfifo(tmp_path / "go")
    lines: list[str] = []

    def answer(line: str) -> None:
        lines.append(line)
        if line == "ready":
            with open(tmp_path / "go", "w") as go:
                go.write("went on\n")

    argv = ["sh", "-c", "echo ready; cat go"]
    assert await run(argv, env=clean_environment({}), cwd=tmp_path, on_line=answer) == 0
    assert lines == ["ready", "went on"]


async def test_a_signal_is_a_negative_code(tmp_path: Path) -> None:
    """As the standard library has it."""
    assert await shell("kill -9 $$", tmp_path, []) == -9


@pytest.fixture
def held(tmp_path: Path) -> Iterator[int]:
    """The read end of the fifo `held` in the programs' folder: it ends when nobody has that open for writing."""
    os.mkfifo(tmp_path / "held")
    descriptor = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    yield descriptor
    os.close(descriptor)


async def test_what_was_left_in_the_background_is_killed(tmp_path: Path, held: int) -> None:
    """A program's end is the end of all that it started, and of its output."""
    assert await shell("exec 3>held; sleep 1000 & echo started", tmp_path, []) == 0
    assert os.read(held, 1) == b""


async def test_a_cancelled_run_leaves_no_process(tmp_path: Path, held: int) -> None:
    """The whole group is told to go before the caller goes on."""
    started = asyncio.Event()
    argv = ["sh", "-c", "exec 3>held; sleep 1000 & echo started; wait"]
    task = asyncio.create_task(run(argv, env=clean_environment({}), cwd=tmp_path, on_line=lambda _line: started.set()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert os.read(held, 1) == b""


async def test_a_sink_that_fails_ends_the_program(tmp_path: Path) -> None:
    """A full disk under the log must not leave the program waiting for a reader."""

    def full(_line: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await run(["sh", "-c", "while :; do echo y; done"], env=clean_environment({}), cwd=tmp_path, on_line=full)


async def test_a_line_without_an_end_comes_in_pieces(tmp_path: Path) -> None:
    """Nothing grows without bounds, and nothing is lost."""
    lines: list[str] = []
    await shell("head -c 300000 /dev/zero | tr '\\0' x", tmp_path, lines)
    assert "".join(lines) == "x" * 300_000
    assert max(map(len, lines)) < 200_000


def test_the_environment_points_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own virtual environment and Python settings do not reach a build; index settings do."""
    monkeypatch.setenv("VIRTUAL_ENV", "/elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://packages.example.test/simple")
    env = clean_environment({"A": "1"})
    assert "VIRTUAL_ENV" not in env
    assert "PYTHONPATH" not in env
    assert (env["UV_DEFAULT_INDEX"], env["A"]) == ("https://packages.example.test/simple", "1")
