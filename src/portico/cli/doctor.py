"""`portico doctor`: what is right and wrong with this machine."""

from __future__ import annotations

import json
import os
import platform
import stat
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Literal, NamedTuple

import click

from portico.cli import options
from portico.cli.ports import holder, is_free
from portico.cli.resolving import advice, public_host, reachable, resolves
from portico.cli.terminal import Terminal
from portico.client.control import ControlClient
from portico.client.settings import load_settings
from portico.model import errors
from portico.model.naming import host_label
from portico.model.settings import Settings
from portico.server.https import describe_caddy
from portico.wire.control import ServerInfo

State = Literal["ok", "warning", "broken", "unused"]
_MARKS: dict[State, str] = {"ok": "✓", "warning": "!", "broken": "✗", "unused": "-"}
_MIN_PYTHON = (3, 11)
_TIMEOUT = 10.0  # seconds, for a program that only says its version


class Check(NamedTuple):
    """One thing that was looked at. hint: what to do about it."""

    name: str
    state: State
    text: str
    hint: str | None = None


@click.command(short_help="Check this machine.")
@options.as_json
def doctor(as_json: bool) -> None:
    """Check what Portico needs of this machine, and say how to mend what is broken. Exit code 1 if anything is."""
    terminal = Terminal.standard()
    checks = examine(load_settings())
    healthy = all(check.state != "broken" for check in checks)
    if as_json:
        terminal.result(json.dumps({"ok": healthy, "checks": [check._asdict() for check in checks]}))
    else:
        terminal.result("\n".join(map(render, checks)))
    if not healthy:
        raise click.exceptions.Exit(1)


def examine(settings: Settings) -> list[Check]:
    """All checks."""
    info, server = _server(settings)
    return [
        _interpreter(),
        _uv(),
        _home(settings.home),
        _socket(settings),
        server,
        _port(settings, info),
        _isolation(),
        _limits(),
        _own_ports(),
        _resolution(settings, info),
        _caddy(settings),
        Check("ray", "unused", "not used: there is one machine"),
    ]


def render(check: Check) -> str:
    """A line for the check, and one for its hint."""
    line = f"{_MARKS[check.state]} {check.name}: {check.text}"
    return f"{line}\n    {check.hint}" if check.hint else line


def _interpreter() -> Check:
    text = f"Python {platform.python_version()} ({sys.executable})"
    if sys.version_info < _MIN_PYTHON:
        return Check("interpreter", "broken", text, "Portico needs Python 3.11 or newer.")
    return Check("interpreter", "ok", text)


def _uv() -> Check:
    hint = "Install it next to Portico: pip install uv"
    try:
        import uv  # an installed program more than a library; it may be broken on its own

        path = uv.find_uv_bin()
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT, check=True)
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        return Check("uv", "broken", f"cannot be run: {error}", hint)
    return Check("uv", "ok", f"{answer.stdout.strip()} ({path})")


def _home(home: Path) -> Check:
    try:
        info = home.stat()
    except FileNotFoundError:
        parent = next(folder for folder in home.parents if folder.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            return Check("home", "ok", f"{home} (will be made)")
        return Check("home", "broken", f"{home} cannot be made: {parent} is not writable", "Set PORTICO_HOME.")
    except OSError as error:
        return Check("home", "broken", f"{home}: {error.strerror}", "Set PORTICO_HOME.")
    if not stat.S_ISDIR(info.st_mode):
        return Check("home", "broken", f"{home} is not a folder", "Set PORTICO_HOME.")
    if info.st_uid != os.getuid():
        return Check("home", "broken", f"{home} belongs to another user", "Set PORTICO_HOME to a folder of your own.")
    if not os.access(home, os.W_OK | os.X_OK):
        return Check("home", "broken", f"{home} is not writable", f"chmod 700 '{home}'")
    mode = stat.S_IMODE(info.st_mode)
    if mode & 0o077:
        return Check("home", "warning", f"{home} is open to others (mode {mode:o})", f"chmod 700 '{home}'")
    return Check("home", "ok", str(home))


def _socket(settings: Settings) -> Check:
    length, limit = len(os.fsencode(settings.control_socket)), 107
    text = f"{settings.control_socket} ({length} of {limit} bytes)"
    if length > limit:
        return Check("control socket", "broken", f"the path is too long: {text}", "Set TMPDIR to a shorter folder.")
    return Check("control socket", "ok", text)


def _server(settings: Settings) -> tuple[ServerInfo | None, Check]:
    try:
        info = ControlClient(settings.control_socket, timeout=5).find_server()
    except errors.Error as error:
        return None, Check("server", "broken", error.message, error.hint)
    if info is None:
        return None, Check("server", "ok", "not running; `portico up`, `serve` and `deploy` start one")
    return info, Check("server", "ok", f"running on {info.listen} (pid {info.pid}), {info.deployed_apps} apps deployed")


def _port(settings: Settings, info: ServerInfo | None) -> Check:
    port = settings.listen_port
    if info is not None and info.listen == settings.listen:
        return Check("port", "ok", f"{settings.listen} is our server's")
    if port == 0 or is_free(settings.listen_host, port):
        return Check("port", "ok", f"{settings.listen} is free")
    return Check(
        "port",
        "broken",
        f"{settings.listen} is in use by {holder(port) or 'another process'}",
        "End that process, or set PORTICO_LISTEN. (`portico serve` takes the next free port by itself.)",
    )


def _url(settings: Settings) -> str:
    return f"http://{host_label(settings.workspace, 'app-function')}.{settings.domain}:{settings.listen_port}/"


def _caddy(settings: Settings) -> Check:
    if settings.https is None:
        return Check("caddy", "unused", "not used: PORTICO_HTTPS is not on")
    try:
        text = describe_caddy(settings.https)
    except errors.Error as error:
        return Check("caddy", "broken", error.message, error.hint)
    return Check("caddy", "ok", text)


def _isolation() -> Check:
    found = _obstacle("from portico.runtime import confine; sys.exit(confine.obstacle())")
    if not found:
        return Check("isolation", "ok", "available: containers do not see the server's files, nor into each other")
    text = f"not available: the system allows no user namespaces ({os.strerror(found)})"
    return Check("isolation", "warning", text, "Containers see all that your user sees: docs/security.md")


def _limits() -> Check:
    # in a process of its own, which may be moved by it
    code = "from portico.engines import groups; print(' '.join(sorted(groups.find().controllers)))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], check=False, timeout=_TIMEOUT, capture_output=True, text=True
    )
    if found := done.stdout.split():
        return Check("limits", "ok", f"control groups can be made for: {', '.join(found)}")
    return Check(
        "limits",
        "warning",
        "no control groups can be made: `memory=` limits each process by itself, `cpu=` nothing",
        "Run the server as root, or by systemd with Delegate=yes: portico up --systemd",
    )


def _own_ports() -> Check:
    found = _obstacle("from portico.runtime import seccomp; sys.exit(seccomp.try_out())")
    if not found:
        return Check("own ports", "ok", "available: several web_server(8000) can run at a time")
    text = f"not available: {os.strerror(found)}"
    return Check("own ports", "warning", text, "Only one web_server(8000) can run at a time.")


def _obstacle(code: str) -> int:
    """The exit status of this code, an errno: in a process of its own, since there is no way back."""
    return subprocess.run([sys.executable, "-I", "-c", f"import sys; {code}"], check=False, timeout=_TIMEOUT).returncode


def _resolution(settings: Settings, info: ServerInfo | None) -> Check:
    listen_host, url = settings.listen_host, _url(settings)
    if info is not None:
        listen_host, url = public_host(info), info.url.format(label=host_label(info.workspace, "app-function"))
    # A name that nobody has asked for, since resolvers remember.
    host = f"{host_label(settings.workspace, f'doctor-{uuid.uuid4().hex[:8]}')}.{settings.domain}"
    if resolves(host, listen_host):
        return Check("names", "ok", f"*.{settings.domain} leads to the server")
    text = f"*.{settings.domain} does not lead to {reachable(listen_host)} here; curl and browsers may know better"
    return Check("names", "warning", text, advice(url, reachable(listen_host)).replace("\n", "\n    "))
