"""The unit that `portico up --systemd` prints."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest

from portico.cli.systemd import unit
from portico.client.control import ControlClient
from portico.model.https import Https
from tests.unit.cli.test_commands import run


def values(text: str, key: str) -> list[str]:
    """What the unit says of a key, in order."""
    return [line.partition("=")[2] for line in text.splitlines() if line.partition("=")[0] == key]


def test_the_unit_runs_a_server_with_these_settings(settings):
    """Its command, with its variables and nothing else of ours, is a server in this home."""
    text = run("up", "--listen", "127.0.0.1:0", "--systemd").stdout
    (command,) = values(text, "ExecStart")
    variables = dict(shlex.split(value)[0].split("=", 1) for value in values(text, "Environment"))
    assert variables["PORTICO_HOME"] == str(settings.home)
    ready, far = os.pipe()
    with subprocess.Popen([*shlex.split(command), "--ready-fd", str(far)], env=variables, pass_fds=[far]) as server:
        os.close(far)
        assert os.read(ready, 10) == b"ready\n"
        assert ControlClient(settings.control_socket).server().workspace == "acme"
        server.terminate()
        assert server.wait(30) == 0
    os.close(ready)


def test_the_unit_is_hardened(settings):
    """It may write to its home and nowhere else, and gets no rights that it does not need."""
    text = unit(settings)
    assert values(text, "ReadWritePaths") == [f'"{settings.home}"']
    for key, value in {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "PrivateTmp": "yes",
        "CapabilityBoundingSet": "",
        "RestrictSUIDSGID": "yes",
        "LockPersonality": "yes",
        "UMask": "0077",
    }.items():
        assert values(text, key) == [value]


def test_the_unit_of_a_server_with_https_may_listen_on_its_ports(settings):
    """The right to take 80 and 443, and no other; on a laptop's ports not even that."""
    right = "CAP_NET_BIND_SERVICE"
    for domain, rights in (("apps.example.com", right), ("localhost", "")):
        text = unit(replace(settings, domain=domain, https=Https(acme_email="ops@example.com")))
        assert values(text, "AmbientCapabilities") == values(text, "CapabilityBoundingSet") == [rights]
        assert {'"PORTICO_HTTPS=on"', '"PORTICO_ACME_EMAIL=ops@example.com"'} <= set(values(text, "Environment"))


def test_systemd_understands_the_unit(settings, tmp_path):
    """It has nothing to say about it, and finds it better than what it calls medium (5 of 10)."""
    file = tmp_path / "portico.service"
    file.write_text(run("up", "--listen", "127.0.0.1:0", "--systemd").stdout)
    verified = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    judge = ["systemd-analyze", "security", "--offline=yes", "--threshold=50", "--no-pager", str(file)]
    judged = subprocess.run(judge, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.parametrize(("port", "capability"), [(80, "CAP_NET_BIND_SERVICE"), (7777, ""), (0, "")])
def test_only_a_low_port_needs_a_capability(settings, port, capability):
    """Ports below 1024 are for those who have it."""
    text = unit(replace(settings, listen=f"0.0.0.0:{port}"))
    assert values(text, "AmbientCapabilities") == [capability]


def test_sockets_in_the_temporary_folder_can_be_reached(settings, tmp_path):
    """Where the home's path is too long for them, the service has the machine's temporary folder."""
    assert values(unit(replace(settings, home=tmp_path / ("x" * 100))), "PrivateTmp") == ["no"]


def test_odd_paths_are_quoted(settings, tmp_path):
    """A path with a blank, a percent sign or a quote stays one word."""
    text = unit(replace(settings, home=tmp_path / 'a b%c"d'))
    assert f'Environment="PORTICO_HOME={tmp_path}/a b%%c\\"d"' in text.splitlines()


def test_a_bad_address_is_used_wrongly(settings):
    """The error shows what it should look like."""
    done = run("up", "--listen", "7777", "--systemd")
    assert done.returncode == 2
    assert "host:port" in done.stderr
    assert sys.executable not in done.stdout
