"""What cannot work gets a clear error, and nothing is lost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Machine, parse

APP = """
import modal

app = modal.App("{name}")


@app.function({options})
@modal.fastapi_endpoint()
def f():
    return "{word}"
"""
PLAIN = APP.format(name="plain", options="", word="hello")


def refused(machine: Machine, *arguments: str, code: int = 1) -> str:
    """What a command says on stderr that must fail; never with a traceback of our own code."""
    done = machine.run(*arguments, code=code)
    assert done.stdout == ""
    assert "/portico/cli/" not in done.stderr
    return done.stderr


# -- files ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("verb", "text", "words"),
    [
        ("serve", "x = 1\n", ["app.py", "no app"]),
        ("deploy", "", ["app.py", "no app"]),
        ("serve", PLAIN + "\nother = modal.App('other')\n", ["app.py", "app", "other", "::"]),
        ("deploy", "import no_such_module\n" + PLAIN, ["app.py", "line 1", "No module named 'no_such_module'"]),
        ("serve", "def (:\n", ["app.py", "line 1", "SyntaxError"]),
        ("deploy", "1 / 0\n", ["app.py", "line 1", "ZeroDivisionError: division by zero"]),
        ("serve", "import sys\nsys.exit(3)\n", ["app.py", "__main__"]),
        ("deploy", "import os\nos._exit(3)\n", ["app.py", "exit code 3"]),
    ],
)
def test_a_file_that_is_no_app_is_named(shared: Machine, verb: str, text: str, words: list[str]) -> None:
    """With what is wrong, and where."""
    shared.write("app.py", text)
    said = refused(shared, verb, "app.py")
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize(
    ("command", "words", "code"),
    [
        (["serve", "nothing.py"], "no such file: nothing.py", 2),
        (["deploy", "nothing.py"], "no such file: nothing.py", 2),
        (["serve", "."], "no such file: .", 2),
        (["deploy", "-m", "no.such.module"], "No module named 'no.such.module'", 1),
        (["serve", "named.py::other"], "other", 1),
    ],
)
def test_a_reference_to_nothing_is_refused(shared: Machine, command: list[str], words: str, code: int) -> None:
    """2 for what can be seen in the command itself."""
    shared.write("named.py", PLAIN)
    assert words in refused(shared, *command, code=code)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "@modal.fastapi_endpoint()\n@app.function()\ndef f():\n    pass\n",
            "swap the order of the decorators",
        ),
        ("@app.function()\n@modal.fastapi_endpoint()\ndef f():\n    yield 1\n", "enerator"),
        ("@app.function()\n@modal.fastapi_endpoint(label='No_Good')\ndef f():\n    pass\n", "No_Good"),
        ("@app.function()\n@modal.fastapi_endpoint(custom_domains='a.com')\ndef f():\n    pass\n", "custom_domains"),
        ("@app.function(retries=3)\n@modal.fastapi_endpoint()\ndef f():\n    pass\n", "retries"),
        ("@app.function(scaledown_window=1)\n@modal.fastapi_endpoint()\ndef f():\n    pass\n", "scaledown_window"),
        ("@app.function(no_such=1)\n@modal.fastapi_endpoint()\ndef f():\n    pass\n", "no_such"),
        ("@app.function(min_containers=3, max_containers=2)\ndef f():\n    pass\n", "max_containers"),
    ],
)
def test_wrong_use_of_the_api_is_explained(shared: Machine, text: str, words: str) -> None:
    """With the user's line."""
    shared.write("wrong.py", f"import modal\napp = modal.App('wrong')\n\n{text}")
    said = refused(shared, "deploy", "wrong.py")
    assert words in said
    assert "wrong.py" in said


def test_what_needs_a_root_filesystem_is_refused_at_deploy(shared: Machine) -> None:
    """And the error says what is missing."""
    image = "image=modal.Image.debian_slim().apt_install('ffmpeg')"
    shared.write("apt.py", APP.format(name="apt", options=image, word="x"))
    assert "apt_install" in refused(shared, "deploy", "apt.py")
    assert "apt" not in [app["name"] for app in json.loads(shared.run("app", "list", "--json").stdout)]


def test_a_failing_build_step_shows_its_own_words(shared: Machine) -> None:
    """And fails the deploy."""
    image = "image=modal.Image.debian_slim().run_commands('echo these are my own words; exit 3')"
    shared.write("step.py", APP.format(name="step", options=image, word="x"))
    assert "these are my own words" in refused(shared, "deploy", "step.py")


# -- gpu --------------------------------------------------------------------------------------------------------------
NO_GPU = not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/kfd").exists()
MISSING = "gpu= is set, and this machine has no GPU."


def test_serve_without_the_gpu_that_is_asked_for_warns_once_and_runs(shared: Machine) -> None:
    """On the CPU; a reload does not say it again."""
    shared.write("gpu/app.py", APP.format(name="served-gpu", options="gpu='T4'", word="hello"))
    process = shared.start("serve", "gpu/app.py")
    url = process.until("^http://.*")[0]
    process.until("Serving")
    assert shared.request(url).json == "hello"
    shared.write("gpu/app.py", APP.format(name="served-gpu", options="gpu='T4'", word="new"))
    process.until("Reloaded")
    assert shared.request(url).json == "new"
    assert len([line for line in process.seen if MISSING in line]) == NO_GPU
    process.interrupt()


def test_deploy_without_the_gpu_that_is_asked_for_is_refused(shared: Machine) -> None:
    """Unless --allow-missing-gpu says that it may run on the CPU."""
    shared.write("needs_gpu.py", APP.format(name="needs-gpu", options="gpu='T4'", word="hello"))
    done = shared.run("deploy", "needs_gpu.py", code=None)
    assert (done.returncode, MISSING in done.stderr) == (int(NO_GPU), NO_GPU)
    assert ("--allow-missing-gpu" in done.stderr) == NO_GPU
    url = shared.deploy("needs_gpu.py", "--allow-missing-gpu")["f"]
    assert shared.request(url).json == "hello"


# -- ports ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("arguments", [["up"], ["up", "--detach"], ["serve", "app.py"], ["deploy", "app.py"]])
def test_a_port_in_use_is_named_with_its_holder(machine: Machine, arguments: list[str]) -> None:
    """Nothing is started; serve takes no other port, for this one was asked for."""
    machine.write("app.py", PLAIN)
    with socket.socket() as other:
        other.bind(("127.0.0.1", machine.port))
        other.listen()
        said = refused(machine, *arguments)
    assert f"127.0.0.1:{machine.port} is in use by" in said
    assert str(os.getpid()) in said
    assert machine.leftovers() == []


def test_a_second_server_with_the_same_home_is_refused(shared: Machine) -> None:
    """The first one goes on."""
    assert "already runs with the home" in refused(shared, "up")
    assert len(shared.servers()) == 1


# -- homes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("arguments", [["up"], ["up", "--detach"], ["serve", "app.py"], ["deploy", "app.py"]])
def test_a_home_that_cannot_be_made_is_refused(machine: Machine, arguments: list[str]) -> None:
    """Here: below a file. The home is named, and what to do."""
    machine.write("app.py", PLAIN)
    machine.home.write_text("a file")
    machine.env["PORTICO_HOME"] = str(machine.home / "below")
    said = refused(machine, *arguments)
    assert str(machine.home / "below") in said
    assert "PORTICO_HOME" in said
    assert machine.home.read_text() == "a file"


@pytest.mark.parametrize("arguments", [["up"], ["serve", "app.py"]])
def test_a_home_without_write_permission_is_refused(machine: Machine, arguments: list[str]) -> None:
    """Also to root, for whom /proc is such a place."""
    machine.write("app.py", PLAIN)
    machine.env["PORTICO_HOME"] = "/proc/portico"
    said = refused(machine, *arguments)
    assert "/proc/portico" in said
    assert "PORTICO_HOME" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"this is not a database, and somebody needs it\n" * 100, "is not a database"),
        (b"SQLite format 3\x00" + b"\xff" * 8176, "portico.db"),
    ],
)
@pytest.mark.parametrize("arguments", [["up"], ["deploy", "app.py"]])
def test_a_broken_database_is_refused_and_left_as_it_is(
    machine: Machine, arguments: list[str], content: bytes, words: str
) -> None:
    """Byte by byte."""
    machine.write("app.py", PLAIN)
    machine.home.mkdir()
    database = machine.home / "portico.db"
    database.write_bytes(content)
    said = refused(machine, *arguments)
    assert words in said
    assert "never overwrites it" in said
    assert database.read_bytes() == content
    assert not list(machine.home.glob("portico.db-*"))


def test_a_database_that_is_cut_short_is_refused_and_left_as_it_is(machine: Machine) -> None:
    """One that was good, and lost its end."""
    machine.write("app.py", PLAIN)
    machine.deploy("app.py")
    machine.run("down", "--yes")
    database = machine.home / "portico.db"
    content = database.read_bytes()[:5000]
    database.write_bytes(content)
    assert "damaged" in refused(machine, "up")
    assert database.read_bytes() == content


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PORTICO_WORKSPACE", "ab"), ("PORTICO_LISTEN", "nowhere"), ("PORTICO_DOMAIN", ".localhost")],
)
def test_a_setting_that_makes_no_sense_is_named(machine: Machine, variable: str, value: str) -> None:
    """With its value."""
    machine.env[variable] = value
    said = refused(machine, "up")
    assert variable in said
    assert repr(value) in said


# -- requests ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.localhost\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: many\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.localhost\r\nHost: b.localhost\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.localhost\r\nX-Long: " + b"a" * 66_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a.localhost\r\n" + b"X-Many: a\r\n" * 7_000 + b"\r\n", 431),
        (b"GET /" + b"a" * 66_000 + b" HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 414),
    ],
    ids=["nonsense", "no colon", "length", "no host", "two hosts", "long header", "many headers", "long target"],
)
def test_a_request_that_is_none_is_answered(shared: Machine, request_bytes: bytes, status: int) -> None:
    """In plain text, readable from any origin, with an id."""
    answer = parse(shared.raw(request_bytes))
    assert answer.status == status
    assert answer.text.startswith("modal-http: ")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-request-id"]


def test_a_head_just_below_64_kib_is_taken(shared: Machine) -> None:
    """The limit is where it is said to be."""
    answer = shared.request(f"http://x.localhost:{shared.port}/", headers={"X-Long": "a" * 65_000})
    assert answer.status == 404


def test_an_unknown_host_is_404(shared: Machine) -> None:
    """With the words that clients know, and an id."""
    answer = shared.request(f"http://acme--nothing-here.localhost:{shared.port}/")
    assert (answer.status, answer.text) == (404, "modal-http: invalid function call")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-request-id"]


def test_an_error_is_json_for_those_who_ask_for_it(shared: Machine) -> None:
    """By Accept."""
    url = f"http://acme--nothing-here.localhost:{shared.port}/"
    answer = shared.request(url, headers={"Accept": "application/json"})
    assert isinstance(answer.json, dict)
    assert answer.json["error"]["message"] == "modal-http: invalid function call"
    assert answer.json["error"]["request_id"] == answer.headers["x-request-id"]


def test_a_reader_that_has_had_enough_is_no_fault(shared: Machine) -> None:
    """A pipe into `head` ends without a word."""
    command = f"{sys.executable} -m portico app list --all --json | head -c 0"
    done = subprocess.run(command, shell=True, env=shared.env, capture_output=True, text=True, timeout=40)
    assert done.stderr == ""
