"""Real servers in homes of their own on free ports, real containers, real sockets; nothing is left running."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
Found = TypeVar("Found")

PATIENCE = 40.0  # seconds after which a test stops waiting for something to happen


@dataclass(frozen=True)
class Answer:
    """One HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Process:
    """A running command; its lines can be waited for."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: Path) -> None:
        self.popen = subprocess.Popen(
            command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
        self.seen: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def until(self, pattern: str) -> re.Match[str]:
        """The next line in which the pattern is found."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {pattern!r} in: {self.seen}") from None
            if line is None:
                raise AssertionError(f"it ended without a line with {pattern!r}: {self.seen}")
            self.seen.append(line)
            if found := re.search(pattern, line):
                return found

    def rest(self) -> list[str]:
        """All further lines, to the end of the command."""
        lines = []
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            lines.append(line)
        return lines

    def interrupt(self) -> int:
        """Ctrl-C; its exit code."""
        self.popen.send_signal(signal.SIGINT)
        return self.popen.wait(PATIENCE)

    def end(self) -> None:
        """Make sure that it is gone."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


class Machine:
    """A laptop: a folder with the user's files, a home for Portico, a port; and what one does with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        self.home = folder / "home"
        self.port = free_port()
        self.prefix: list[str] = []  # what its commands are run with: for a network of its own
        told = {k: v for k, v in os.environ.items() if not k.startswith(("PORTICO_", "MODAL_"))}
        told.pop("PYTHONDONTWRITEBYTECODE", None)  # each of many processes would compile the same again
        self.env = told | {
            "PORTICO_HOME": str(self.home),
            "PORTICO_CONFIG_PATH": str(folder / "portico.toml"),
            "PORTICO_LISTEN": f"127.0.0.1:{self.port}",
            "PORTICO_WORKSPACE": "acme",
            "PORTICO_RATE_LIMIT": "off",  # tests are not what it is there for, except those that set it
            "NO_COLOR": "1",
            "PORTICO_INGRESS": os.environ.get("TEST_INGRESS", "1"),  # all tests hold with any number
        }
        self._processes: list[Process] = []

    def write(self, name: str, text: str) -> Path:
        """A file of the user's; `import modal` stands on top of each .py file that has no import of its own."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, *arguments: str, code: int | None = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """One `portico` command to its end; its exit code must be `code` (None: any)."""
        done = subprocess.run(
            [*self.prefix, sys.executable, "-m", "portico", *arguments],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
        )
        assert code is None or done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str) -> Process:
        """A `portico` command that goes on."""
        process = Process([*self.prefix, sys.executable, "-m", "portico", *arguments], self.env, self.folder)
        self._processes.append(process)
        return process

    def up(self) -> Process:
        """A server in the foreground, ready."""
        server = self.start("up")
        server.until("listens on")
        return server

    def deploy(self, file: str, *options: str) -> dict[str, str]:
        """Deploy a file; the URL of each function."""
        result = json.loads(self.run("deploy", file, "--json", *options).stdout)
        return {endpoint["function"]: endpoint["url"] for endpoint in result["endpoints"]}

    def request(
        self,
        url: str,
        method: str = "GET",
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request, over a socket, without asking anybody what the host's name means."""
        host, _, path = url.partition("//")[2].partition("/")
        lines = [f"{method} /{path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body is not None:
            lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
        raw = self.raw("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        return parse(raw)

    def raw(self, data: bytes) -> bytes:
        """Send these bytes; all that comes back until the connection ends."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            connection.sendall(data)
            parts = []
            try:
                while part := connection.recv(65536):
                    parts.append(part)
            except ConnectionResetError:
                pass
        return b"".join(parts)

    def app(self, ref: str) -> dict:
        """What `app info --json` says."""
        return json.loads(self.run("app", "info", ref, "--json").stdout)

    def containers(self) -> list[psutil.Process]:
        """The container processes of the server that runs here."""
        return [container for _, containers in self.families() for container in containers]

    def families(self) -> list[tuple[psutil.Process, list[psutil.Process]]]:
        """The template processes of the server that runs here that have containers, with these."""
        found = []
        for template in self.templates():
            with suppress(psutil.Error):
                if containers := template.children():
                    found.append((template, containers))
        return found

    def templates(self) -> list[psutil.Process]:
        """The template processes of the server that runs here."""
        found = []
        for process in [child for server in self.servers() for child in server.children()]:
            with suppress(psutil.Error):  # it has ended meanwhile
                if "boot.py" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def servers(self) -> list[psutil.Process]:
        """Server processes with this home."""
        found = []
        for process in psutil.process_iter():
            try:
                if " up" in " ".join(process.cmdline()) and process.environ().get("PORTICO_HOME") == str(self.home):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def leftovers(self) -> list[str]:
        """Processes that have anything to do with this home."""
        found = []
        for process in psutil.process_iter():
            try:
                text = " ".join([*process.cmdline(), process.environ().get("PORTICO_HOME", "")])
            except psutil.Error:
                continue
            if str(self.home) in text and process.pid != os.getpid():
                found.append(text)
        return found

    def close(self) -> None:
        """End all that was started here."""
        for process in reversed(self._processes):
            process.end()
        if self.servers():
            self.run("down", "--yes", code=None)
        for server in self.servers():
            server.kill()


def wait_until(condition: Callable[[], Found], what: str) -> Found:
    """Return when the condition holds: what it found."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.01)
    return found


def parse(raw: bytes) -> Answer:
    """The response in these bytes; chunks are joined."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        joined = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            joined += body[: int(size, 16)]
            body = body[int(size, 16) + 2 :]
        body = joined
    return Answer(int(first.split()[1]), headers, body)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A laptop of its own for the test; at the end, nothing may be left running on it."""
    machine = Machine(tmp_path)
    yield machine
    machine.close()
    wait_until(lambda: not machine.leftovers(), f"nothing is left: {machine.leftovers()}")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A laptop with a running server, for tests that leave it as they found it."""
    machine = Machine(tmp_path_factory.mktemp("shared"))
    machine.up()
    yield machine
    machine.close()
    wait_until(lambda: not machine.leftovers(), f"nothing is left: {machine.leftovers()}")
