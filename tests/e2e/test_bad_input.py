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
@pytest.mark.parametrize("verb", ["serve", "deploy"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", ["app.py", "no app"]),
        (PLAIN + "\nother = modal.App('other')\n", ["app.py", "app", "other", "::"]),
        ("import no_such_module\n" + PLAIN, ["app.py", "line 1", "No module named 'no_such_module'"]),
        ("def (:\n", ["app.py", "line 1", "SyntaxError"]),
        ("1 / 0\n", ["app.py", "line 1", "ZeroDivisionError: division by zero"]),
        ("import sys\nsys.exit(3)\n", ["app.py", "__main__"]),
        ("import os\nos._exit(3)\n", ["app.py", "exit code 3"]),
        ("", ["app.py", "no app"]),
    ],
)
def test_a_file_that_is_no_app_is_named(shared: Machine, verb: str, text: str, words: list[str]) -> None:
    """With what is wrong, and where."""
    shared.write("app.py", text)
    said = refused(shared, verb, "app.py")
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize("verb", ["serve", "deploy"])
@pytest.mark.parametrize(
    ("reference", "words", "code"),
    [
        (["nothing.py"], "no such file: nothing.py", 2),
        (["."], "no such file: .", 2),
        (["-m", "no.such.module"], "No module named 'no.such.module'", 1),
        (["named.py::other"], "other", 1),
        ([], "Missing argument 'REF'", 2),
    ],
)
def test_a_reference_to_nothing_is_refused(
    shared: Machine, verb: str, reference: list[str], words: str, code: int
) -> None:
    """2 for what can be seen in the command itself."""
    shared.write("named.py", PLAIN)
    assert words in refused(shared, verb, *reference, code=code)


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
@pytest.mark.skipif("any(Path('/dev').glob('nvidia[0-9]*'))", reason="the machine has one")
def test_placeholder() -> None:
    """x"""
