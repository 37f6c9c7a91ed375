"""What an endpoint of one app can see and do of the machine, of the server and of other apps: hostile code tries."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.conftest import Machine, wait_until

SPY = """
import ctypes, glob, os, pathlib, signal, socket, subprocess, sys, tempfile, time
import modal

app = modal.App("{name}")


@app.function(secrets=[modal.Secret.from_dict({{"MARK": "{name}-mark-of-my-own"}})], min_containers=1)
@modal.concurrent(max_inputs=4)
@modal.fastapi_endpoint()
def tries(code: str):
    try:
        return {{"result": eval(code, globals())}}
    except BaseException as error:
        return {{"error": type(error).__name__}}
"""
Try = Callable[[str], object]


@pytest.fixture(scope="module", params=[[], ["unshare", "--user", "--map-user=1000", "--map-group=1000"]])
def apps(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Machine, Try, Try]]:
    """A server with two apps of strangers; each runs what it is given. Once as whoever runs the tests, once as nobody
    special: a user who is not root, without any rights."""
    machine = Machine(tmp_path_factory.mktemp("isolation"))
    machine.prefix = request.param
    config = Path(machine.env["PORTICO_CONFIG_PATH"])
    config.write_text('[laptop]\nserver_url = "http://example.invalid"\ntoken_secret = "as-hidden"\n')
    machine.up()
    tries = []
    for name in ("spy", "victim"):
        machine.write(f"{name}.py", SPY.format(name=name))
        tries.append(_ask(machine, machine.deploy(f"{name}.py")["tries"]))
    yield machine, *tries
    machine.close()


def _ask(machine: Machine, url: str) -> Try:
    def ask(code: str) -> object:
        answer = json.loads(machine.request(f"{url}/?code={quote(code)}").body)
        return answer.get("result", answer.get("error"))

    return ask


@pytest.fixture
def machine(apps: tuple[Machine, Try, Try]) -> Machine:
    return apps[0]


@pytest.fixture
def spy(apps: tuple[Machine, Try, Try]) -> Try:
    return apps[1]


@pytest.fixture
def victim(apps: tuple[Machine, Try, Try]) -> Try:
    return apps[2]


# -- files of the server ----------------------------------------------------------------------------------------------
def test_of_the_servers_home_a_container_sees_its_own_files_only(machine: Machine, spy: Try) -> None:
    """No database, no key, no log; of the bundles only its own, of the sockets only where functions are called."""
    assert set(spy(f"os.listdir({str(machine.home)!r})")) <= {"bundles", "layers", "images", "run"}
    assert len(os.listdir(machine.home / "bundles")) == 2
    assert len(spy(f"os.listdir({str(machine.home / 'bundles')!r})")) == 1
    assert sorted(spy(f"os.listdir({str(machine.home / 'run')!r})")) == ["c", "calls.sock"]
    assert len(spy(f"os.listdir({str(machine.home / 'run' / 'c')!r})")) == 1


@pytest.mark.parametrize("name", ["control.sock", "desk.sock", "public.sock", "web-desk.sock"])
def test_a_container_cannot_reach_a_socket_of_the_control_plane(machine: Machine, spy: Try, name: str) -> None:
    """It is there, and not for containers."""
    path = str(machine.home / "run" / name)
    assert os.path.exists(path)
    assert spy(f"socket.socket(socket.AF_UNIX).connect({path!r})") == "FileNotFoundError"


def test_a_container_sees_no_token_of_the_account(machine: Machine, spy: Try) -> None:
    """The file with the profiles of the account is empty for it."""
    path = Path(machine.env["PORTICO_CONFIG_PATH"])
    assert "as-hidden" in path.read_text()
    assert spy(f"pathlib.Path({str(path)!r}).read_text()") == ""


@pytest.mark.parametrize(
    "code",
    [
        "(libc := ctypes.CDLL(None, use_errno=True)).umount2({home}.encode(), 2) and ctypes.get_errno()",
        "(libc := ctypes.CDLL(None, use_errno=True)).mount(b'none', b'/mnt', b'tmpfs', 0, None) and ctypes.get_errno()",
        "(libc := ctypes.CDLL(None, use_errno=True)).setns(os.pidfd_open({server}), 0x20000) and ctypes.get_errno()",
    ],
    ids=["umount", "mount", "setns"],
)
def test_a_container_cannot_undo_its_view(machine: Machine, spy: Try, code: str) -> None:
    """It has no right to mount, to unmount, or to enter another namespace."""
    server = machine.servers()[0].pid
    assert spy(code.format(home=repr(str(machine.home)), server=server)) in (1, 22)
    assert spy(f"os.path.exists({str(machine.home / 'portico.db')!r})") is False


def test_a_namespace_below_does_not_uncover_anything(machine: Machine, spy: Try) -> None:
    """In a user namespace that it makes, a container may mount; what was covered for it stays covered."""
    look = f"umount -l {machine.home} 2>&1; ls {machine.home}"
    seen = spy(f"subprocess.run(['unshare', '-Urm', 'sh', '-c', {look!r}], capture_output=True, text=True).stdout")
    assert "portico.db" not in str(seen)


# -- other processes --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("what", ["environ", "mem", "root", "cwd", "fd/0", "maps", "ns/mnt"])
def test_a_container_cannot_look_into_the_server_or_another_container(
    machine: Machine, spy: Try, victim: Try, what: str
) -> None:
    """Neither their variables nor their memory, nor the machine as they see it."""
    pids = [victim("os.getpid()"), machine.servers()[0].pid, machine.templates()[0].pid]
    assert spy(f"open('/proc/self/{what}', 'rb').close()") in (None, "IsADirectoryError")
    for pid in pids:
        assert spy(f"os.stat('/proc/{pid}/{what}') and open('/proc/{pid}/{what}', 'rb').read(1)") == "PermissionError"


def test_a_container_finds_another_apps_secret_in_no_process(spy: Try, victim: Try) -> None:
    """Its own it finds."""
    child = victim("(child := subprocess.Popen(['sleep', '1000'])) and child.pid")
    assert b"victim-mark-of" in Path(f"/proc/{child}/environ").read_bytes()
    search = (
        "[pid for pid in os.listdir('/proc') if pid.isdigit() and os.access(f'/proc/{pid}/environ', os.R_OK)"
        " and b'%s-mark-of' in subprocess.run(['cat', f'/proc/{pid}/environ'], capture_output=True).stdout]"
    )
    assert victim("os.environ['MARK']") == "victim-mark-of-my-own"
    assert spy(search % "victim") == []
    own = spy("subprocess.run(['cat', '/proc/self/environ'], capture_output=True, text=True).stdout")
    assert "spy-mark-of" in str(own)
    victim(f"os.kill({child}, 9)")


def test_a_container_cannot_trace_another_one(spy: Try, victim: Try) -> None:
    """ptrace(ATTACH) is refused."""
    code = "(libc := ctypes.CDLL(None, use_errno=True)).ptrace(16, {}, 0, 0) and ctypes.get_errno()"
    assert spy(code.format(victim("os.getpid()"))) == 1


# -- what is its own --------------------------------------------------------------------------------------------------
def test_containers_have_private_folders_for_temporary_files(machine: Machine, spy: Try, victim: Try) -> None:
    """What one writes there no other one finds."""
    folder = spy("tempfile.gettempdir()")
    assert folder == spy("os.environ['TMPDIR']") != victim("tempfile.gettempdir()")
    assert spy("open(tempfile.mkstemp()[1]).read()") == ""
    assert spy("len(os.listdir(tempfile.gettempdir()))") == 1
    assert victim(f"os.path.exists({folder!r})") is False
    assert spy(f"oct(os.stat({folder!r}).st_mode)") == "0o41777"


def test_what_a_container_does_to_its_code_is_its_own(machine: Machine) -> None:
    """It may change, add and remove files: other apps with the same ones, later deploys and its next container find
    them as they were."""
    note = machine.write("data/note.txt", "as deployed")
    apps = {name: _with_data(machine, name) for name in ("painter", "beholder")}
    read = "pathlib.Path('data/note.txt').read_text()"
    paint = "os.chmod('data/note.txt', 0o600) or pathlib.Path('data/note.txt').write_text('painted') and " + read
    assert apps["painter"](paint) == "painted"
    assert apps["painter"]("os.rename('painter.py', 'gone.py') or pathlib.Path('new').write_text('new')") == 3
    assert apps["painter"]("sorted(name for name in os.listdir() if 'ain' in name or name in ('gone.py', 'new'))") == [
        *("gone.py", "new")
    ]
    assert apps["beholder"](read) == "as deployed"
    assert {path.read_text() for path in machine.home.glob("bundles/*/data/note.txt")} == {"as deployed"}
    assert hashlib.sha256(note.read_bytes()).hexdigest() in {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in machine.home.glob("blobs/??/*")
    }
    for container in machine.containers():
        container.kill()
    assert apps["painter"](read) == "as deployed"
    assert apps["painter"]("os.path.exists('new')") is False
    again = _with_data(machine, "painter", "# another version\n")
    assert again(read) == "as deployed"


@pytest.fixture
def stacked() -> Iterator[Machine]:
    """A laptop whose home is on overlayfs, as inside of somebody else's container; its path is short, so that all of
    it is there."""
    with tempfile.TemporaryDirectory(prefix="portico-") as folder:
        machine = Machine(Path(folder))
        layers = [Path(folder, name) for name in ("lower", "upper", "work", "home")]
        for layer in layers:
            layer.mkdir()
        options = "lowerdir={},upperdir={},workdir={}".format(*layers)
        subprocess.run(["mount", "-t", "overlay", "-o", options, "none", machine.home], check=True)
        try:
            yield machine
            machine.close()
        finally:
            subprocess.run(["umount", "--lazy", str(machine.home)], check=True)


def test_where_its_code_cannot_be_its_own_it_cannot_be_changed(stacked: Machine) -> None:
    """The kernel lays nothing over such a folder: it is read-only, and a container is told so."""
    stacked.write("data/note.txt", "as deployed")
    ask = _with_data(stacked, "painter")
    attempt = "pathlib.Path('data/note.txt').{}"
    assert ask(attempt.format("write_text('painted')")) == "OSError"
    assert ask(attempt.format("unlink()")) == "OSError"
    assert ask("pathlib.Path('new').touch()") == "OSError"
    assert ask(attempt.format("read_text()")) == "as deployed"
    assert ask("pathlib.Path(tempfile.gettempdir(), 'new').write_text('new')") == 3


def _with_data(machine: Machine, name: str, more: str = "") -> Try:
    """An app that travels with a folder of data."""
    image = "image=modal.Image.debian_slim().add_local_dir('data', '/root/data')"
    machine.write(f"{name}.py", more + SPY.format(name=name).replace("min_containers=1", image))
    return _ask(machine, machine.deploy(f"{name}.py")["tries"])


def test_the_environment_is_not_the_servers(machine: Machine, spy: Try) -> None:
    """Of the variables that the server was started with, only who the user is."""
    names = set(spy("dict(os.environ)"))
    assert names - {name for name in names if name.startswith(("PORTICO_", "MODAL_"))} <= {
        *("HOME", "TZ", "USER", "LOGNAME", "PATH", "LANG", "VIRTUAL_ENV", "TMPDIR", "MARK")
    }
    assert "PORTICO_CONFIG_PATH" not in names


def test_the_user_stays_who_they_are(machine: Machine, spy: Try, tmp_path: Path) -> None:
    """Files that are not covered belong to whom they belonged, and may be written as ever."""
    assert spy("[os.getuid(), os.getgid()]") == ([1000, 1000] if machine.prefix else [os.getuid(), os.getgid()])
    assert spy(f"pathlib.Path({str(tmp_path / 'note')!r}).write_text('here')") == 4
    assert (tmp_path / "note").stat().st_uid == os.getuid()


def test_nothing_of_a_container_is_left_when_it_is_gone(machine: Machine) -> None:
    """Neither its folder nor what it wrote there."""
    machine.write("short.py", SPY.format(name="short"))
    ask = _ask(machine, machine.deploy("short.py")["tries"])
    assert ask("pathlib.Path(tempfile.gettempdir(), 'note').write_text('x')") == 1
    folder = machine.home / "run" / "c" / str(ask("os.environ['PORTICO_TASK_ID']"))
    assert (folder / "tmp" / "note").exists()
    machine.run("app", "stop", "short", "--yes")
    wait_until(lambda: not folder.exists() and not Path(f"{folder}.gone").exists(), "its folder is gone")


def test_the_home_is_its_owners_only(machine: Machine) -> None:
    """Folders 0700 at the top, and no file below that others could read, were they to get there."""
    assert stat.S_IMODE(machine.home.stat().st_mode) == 0o700
    for name in ("portico.db", "secret.key", "server.lock"):
        for path in machine.home.glob(f"{name}*"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for path in (machine.home / "run").glob("*.sock"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
