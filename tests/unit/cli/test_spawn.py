"""Servers that a command starts, finds, or fails to start."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import psutil
import pytest

from portico.cli.spawn import Attachment
from portico.cli.terminal import Terminal
from portico.client.control import ControlClient
from portico.model import errors
from tests.unit.cli.conftest import STUB


@pytest.fixture
def terminal() -> Terminal:
    return Terminal(io.StringIO(), io.StringIO(), {})


def said(terminal: Terminal) -> str:
    return terminal._err.getvalue()


def attach(settings, terminal, *, own: bool = True, roam: bool = False) -> Attachment:
    return Attachment(settings, terminal, own=own, roam=roam, command=STUB)


def test_own_server_lives_as_long_as_the_attachment(settings, terminal):
    """It is there when `ready` returns, and gone when the block ends."""
    with attach(settings, terminal) as server:
        server.begin()
        assert server.ready().home == str(settings.home)
        assert server.started
        assert "for as long as this command runs" in said(terminal)
    assert not settings.control_socket.exists()


def test_own_server_dies_with_its_command(settings, terminal):
    """A command that is killed takes its server along, since the pipe between them ends."""
    code = (
        "import io, os, signal\n"
        "from portico.cli.spawn import Attachment\n"
        "from portico.cli.terminal import Terminal\n"
        "from portico.client.settings import load_settings\n"
        "terminal = Terminal(io.StringIO(), io.StringIO(), {})\n"
        f"server = Attachment(load_settings(), terminal, own=True, roam=False, command={STUB!r})\n"
        "server.begin()\n"
        "print(server.ready().pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pid = int(done.stdout)
    if psutil.pid_exists(pid):
        psutil.Process(pid).wait(20)


def test_detached_server_stays(settings, terminal):
    """One in the background outlives the command, with its output in a private file."""
    with attach(settings, terminal, own=False) as server:
        server.begin()
        info = server.ready()
        process = server._process
    assert process is not None
    client = ControlClient(settings.control_socket)
    assert client.server().pid == info.pid
    assert (settings.home / "logs" / "server.log").stat().st_mode & 0o777 == 0o600
    assert settings.home.stat().st_mode & 0o777 == 0o700
    assert "portico down" in said(terminal)
    client.stop_server()
    assert process.wait(20) == 0


def test_running_server_is_used(stub, settings, terminal):
    """Where one runs, none is started, and it is left alone afterwards."""
    with attach(settings, terminal) as server:
        server.begin()
        server.ready()
        assert not server.started
    assert stub.server()


def test_own_server_with_deployed_apps_goes_on(settings, terminal, monkeypatch):
    """Apps that somebody deployed meanwhile are not taken down with it."""
    monkeypatch.setenv("STUB_DEPLOYED", "1")
    with attach(settings, terminal) as server:
        server.begin()
        server.ready()
        process = server._process
    assert "so it goes on" in said(terminal)
    assert process is not None
    process.wait(20)  # the stub ends with its lifetime; the real one does not


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("state", errors.StateError, "The database is broken."),
        ("die", errors.InternalFailure, "ended while it started"),
    ],
)
def test_a_server_that_cannot_start_says_why(settings, terminal, monkeypatch, how, error, text):
    """Its own words, with its hint; or where its log is."""
    monkeypatch.setenv("STUB", how)
    with attach(settings, terminal) as server:
        server.begin()
        with pytest.raises(error, match=text) as caught:
            server.ready()
    assert caught.value.hint


def test_port_in_use_without_roaming(settings, terminal, monkeypatch):
    """A deploy does not go looking for another port."""
    monkeypatch.setenv("STUB", "port")
    monkeypatch.setenv("STUB_TAKEN", "0")
    with attach(settings, terminal, own=False) as server:
        server.begin()
        with pytest.raises(errors.PortInUseError, match="nginx"):
            server.ready()


def test_roaming_takes_the_next_free_port(settings, terminal):
    """`serve` says which port it found in use, and which one it takes."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with attach(replace(settings, listen=f"127.0.0.1:{port}"), terminal, roam=True) as server:
            server.begin()
            listen = server.ready().listen
    assert int(listen.rpartition(":")[2]) > port
    assert f"Port {port} is in use by" in said(terminal)


def test_roaming_after_a_lost_race(settings, terminal, monkeypatch):
    """A port that is taken between our look and the server's start is as well left to its owner."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("STUB", "port")
    monkeypatch.setenv("STUB_TAKEN", str(port))
    with attach(replace(settings, listen=f"127.0.0.1:{port}"), terminal, roam=True) as server:
        server.begin()
        assert not server.ready().listen.endswith(f":{port}")


def test_the_loser_of_a_race_uses_the_winner(settings, terminal, monkeypatch):
    """Two commands that start a server at once end up with one."""
    monkeypatch.setenv("STUB", "home")
    with attach(settings, terminal) as loser:
        loser.begin()
        monkeypatch.delenv("STUB")
        winner = attach(settings, terminal)
        thread = threading.Thread(target=lambda: (winner._launch(), winner.ready()))
        thread.start()
        info = loser.ready()
        thread.join()
        assert winner.info is not None
        assert info.pid == winner.info.pid
        assert not loser.started
        winner.end()


def test_home_without_permission(settings, terminal, tmp_path):
    """A home that cannot be made is an error that names it."""
    (tmp_path / "file").write_text("")
    with (
        attach(replace(settings, home=tmp_path / "file" / "home"), terminal) as server,
        pytest.raises(errors.StateError, match="Cannot write to Portico's home"),
    ):
        server.begin()
