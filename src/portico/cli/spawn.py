"""The server that a command uses: one that runs already, or one that it starts."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

import msgspec

from portico.cli.ports import holder, is_free, next_free
from portico.cli.reading import clean_environment
from portico.cli.terminal import Terminal
from portico.client.control import ControlClient
from portico.model import errors
from portico.model.settings import Settings
from portico.wire.control import Problem, ServerInfo

SERVER = (sys.executable, "-P", "-m", "portico", "up")
READY = b"ready\n"
_READY_TIMEOUT = 120.0  # seconds; a migration may take its time
_WINNER_TIMEOUT = 15.0  # seconds; how long the server of another command may take to answer
_END_TIMEOUT = 45.0  # seconds; exit handlers have 30
_PAUSE = 0.05  # seconds between questions to a server that another command is starting
_LOG_LIMIT = 10 << 20  # bytes


class Attachment:
    """A server to talk to. `begin` starts one if none runs, `ready` waits for it, `end` ends it if it is our own.
    One on another machine is used as it is.

    own: the server lives as long as this process; otherwise it stays, in the background. roam: where the port is
    taken, take the next free one. A server that wins the race for the home is used instead of ours.
    """

    def __init__(
        self,
        settings: Settings,
        terminal: Terminal,
        *,
        own: bool,
        roam: bool,
        client: ControlClient | None = None,
        command: Sequence[str] = SERVER,
    ) -> None:
        self.client = client or ControlClient(settings.control_socket)
        self.info: ServerInfo | None = None
        self._settings = settings
        self._terminal = terminal
        self._own = own
        self._roam = roam
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._lifetime: int | None = None  # our end; the server ends when it is closed
        self._ready: int | None = None  # our end; says "ready", or why not

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    @property
    def started(self) -> bool:
        """Whether the server is one that we have started."""
        return self._process is not None

    def begin(self) -> None:
        """Look for a server and, if there is none, start one; does not wait for it."""
        self.info = self.client.server() if self.client.is_remote else self.client.find_server()
        if self.info is None:
            if self._roam and not is_free(self._settings.listen_host, self._settings.listen_port):
                self._take_next_port()
            self._launch()

    def ready(self) -> ServerInfo:
        """Who answers, when it answers; raises what kept the server from starting."""
        while self.info is None:
            failure = self._outcome()
            if failure is None:
                self.info = self.client.server()
                self._say_started()
            elif isinstance(failure, errors.PortInUseError) and self._roam:
                self._take_next_port()
                self._launch()
            elif isinstance(failure, errors.HomeInUseError):
                self.info = self._winner(failure)
            else:
                raise failure
        return self.info

    def end(self) -> None:
        """If the server is ours, end it and wait until it has gone. One on which apps were deployed goes on."""
        self._close_ready()
        process, self._process = self._process, None
        stays = not self._own or self._has_deployed_apps()
        self._close_lifetime()
        if process is None or stays:
            return
        if self.info is None:
            process.terminate()  # it has not come far enough to look at its lifetime
        try:
            process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _has_deployed_apps(self) -> bool:
        if self.info is None or self._lifetime is None:
            return False
        try:
            deployed = self.client.server().deployed_apps
        except errors.Error:
            return False
        if deployed:
            self._terminal.note(f"Apps are deployed on the server (pid {self.info.pid}), so it goes on.")
        return deployed > 0

    def _close_lifetime(self) -> None:
        if self._lifetime is not None:
            os.close(self._lifetime)
            self._lifetime = None

    # -- starting ------------------------------------------------------------------------------------------------
    def _launch(self) -> None:
        arguments, handed = [*self._command], []
        self._ready, far = os.pipe()
        arguments += ["--ready-fd", str(far)]
        handed.append(far)
        if self._own:
            far, self._lifetime = os.pipe()
            arguments += ["--lifetime-fd", str(far)]
            handed.append(far)
        try:
            log = _open_log(self._settings)
            handed.append(log)
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._settings.home,
                env=clean_environment() | self._settings.variables,
                pass_fds=handed,
                start_new_session=True,  # it outlives the terminal, and Ctrl-C is not for it
            )
        finally:
            for fd in handed:
                os.close(fd)

    def _outcome(self) -> errors.Error | None:
        """None when the server is ready, otherwise why it is not; then it has gone."""
        assert self._ready is not None
        assert self._process is not None
        line = _read_line(self._ready, _READY_TIMEOUT)
        self._close_ready()
        if line == READY:
            return None
        log = self._settings.home / "logs" / "server.log"
        if line is None:
            self._process.kill()
        self._process.wait()
        code, self._process = self._process.returncode, None
        self._close_lifetime()
        if line is None:
            return errors.TimeoutError(f"The server was not ready after {_READY_TIMEOUT:g} s.", hint=f"See {log}")
        try:
            problem = msgspec.json.decode(line, type=Problem)
        except msgspec.DecodeError:
            return errors.InternalFailure(f"The server ended while it started (code {code}).", hint=f"See {log}")
        return errors.by_code(problem.code, problem.message, hint=problem.hint, detail=problem.detail)

    def _winner(self, conflict: errors.Error) -> ServerInfo:
        """The server that holds the home: another command may be starting it at this moment."""
        deadline = time.monotonic() + _WINNER_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(errors.ConnectionError):
                return self.client.server()
            time.sleep(_PAUSE)
        raise conflict

    def _take_next_port(self) -> None:
        host, port = self._settings.listen_host, self._settings.listen_port
        free = next_free(host, port)
        if free is None:
            raise errors.PortInUseError(
                f"Port {port} is in use, and so are those after it.", hint="Set PORTICO_LISTEN."
            )
        self._terminal.note(f"Port {port} is in use by {holder(port) or 'another process'}; taking {free}.")
        bracketed = f"[{host}]" if ":" in host else host
        self._settings = replace(self._settings, listen=f"{bracketed}:{free}")

    def _say_started(self) -> None:
        assert self.info is not None
        if self._own:
            self._terminal.note(f"Started a server on {self.info.listen}, for as long as this command runs.")
        else:
            self._terminal.note(
                f"Started a server on {self.info.listen} in the background (pid {self.info.pid}); "
                "`portico down` ends it."
            )

    def _close_ready(self) -> None:
        if self._ready is not None:
            os.close(self._ready)
            self._ready = None


def _open_log(settings: Settings) -> int:
    """Where a server in the background writes; one older file is kept."""
    folder = settings.home / "logs"
    path = folder / "server.log"
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > _LOG_LIMIT:
                path.replace(folder / "server.log.1")
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise errors.StateError(
            f"Cannot write to Portico's home, {settings.home}: {error.strerror}.",
            hint="Set PORTICO_HOME to another folder.",
        ) from None


def _read_line(fd: int, timeout: float) -> bytes | None:
    """Up to a newline or the end; None when neither has come after `timeout` seconds."""
    data = b""
    deadline = time.monotonic() + timeout
    while not data.endswith(b"\n"):
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        more = os.read(fd, 65536)
        if not more:
            break
        data += more
    return data
