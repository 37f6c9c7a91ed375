"""Homes, stub servers and the real command in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portico.client.control import ControlClient
from portico.client.settings import load_settings
from portico.model.settings import Settings

STUB = (sys.executable, str(Path(__file__).with_name("stub_server.py")), "up")

SEED = """
import modal

app = modal.App("seed")


@app.function()
@modal.fastapi_endpoint()
def square(x: int):
    return {"square": x**2}
"""


@pytest.fixture
def settings(monkeypatch) -> Iterator[Settings]:
    """Settings of a home of this test's own, in the environment, too. Short, since it holds sockets."""
    home = Path(tempfile.mkdtemp(prefix="pc-"))
    for name, value in {
        "PORTICO_HOME": str(home / "h"),
        "PORTICO_WORKSPACE": "acme",
        "PORTICO_LISTEN": "127.0.0.1:0",
        "PORTICO_CONFIG_PATH": str(home / "portico.toml"),
    }.items():
        monkeypatch.setenv(name, value)
    yield load_settings()
    shutil.rmtree(home)


@pytest.fixture
def stub(settings: Settings) -> Iterator[ControlClient]:
    """A stub server that runs in the home; the client for it."""
    ready, far = os.pipe()
    process = subprocess.Popen([*STUB, "--ready-fd", str(far)], pass_fds=[far])
    os.close(far)
    assert os.read(ready, 10) == b"ready\n"
    os.close(ready)
    yield ControlClient(settings.control_socket)
    process.terminate()
    process.wait()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the seed app in `seed.py`."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "seed.py").write_text(SEED)
    return folder


class Running:
    """A `portico` command that runs; its stdout and stderr, a line at a time."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "portico", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out: list[str] = []
        self.err: list[str] = []
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._collect, args=(self.process.stdout, self.out)),
            threading.Thread(target=self._collect, args=(self.process.stderr, self.err)),
        ]
        for thread in self._threads:
            thread.start()

    def _collect(self, stream, lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        stream.close()

    def wait_for(self, text: str) -> str:
        """The first line, on stdout or stderr, that holds `text`; waits for it."""

        def found() -> str | None:
            return next((line for line in [*self.out, *self.err] if text in line), None)

        with self._changed:
            assert self._changed.wait_for(found, 30), f"{text!r} did not come: {self.out} {self.err}"
            line = found()
            assert line is not None
            return line

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """The exit code, when it has ended and all its output is here."""
        code = self.process.wait(30)
        for thread in self._threads:
            thread.join(30)
        return code


@pytest.fixture
def portico(project: Path) -> Iterator[Callable[..., Running]]:
    """Start the command in the project's folder: `portico("serve", "seed.py")`."""
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(list(arguments), project))
        return started[-1]

    yield start
    for command in started:
        command.process.kill()
        command.end()
