"""Finding deployed functions by name, from programs that are not Portico's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.conftest import Machine

SEED = """
import modal

app = modal.App("{app}")


@app.function()
@modal.fastapi_endpoint()
def square(x: int):
    return {{"square": x**2}}


@app.function()
def plain():
    return 1
"""
ASK = 'import {module}; print({module}.Function.from_name("{app}", "{function}").get_web_url())'


def ask(
    machine: Machine, app: str = "seed", function: str = "square", module: str = "modal"
) -> subprocess.CompletedProcess[str]:
    """Run a plain script that asks for a function's URL."""
    script = machine.write("script.py", ASK.format(module=module, app=app, function=function))
    command = [sys.executable, str(script)]
    return subprocess.run(command, env=machine.env, cwd=machine.folder, capture_output=True, text=True, timeout=40)


@pytest.fixture(scope="module")
def seed(shared: Machine) -> str:
    """The URL of a deployed function."""
    shared.write("seed.py", SEED.format(app="seed"))
    return shared.deploy("seed.py")["square"]


@pytest.mark.parametrize("module", ["modal", "portico"])
def test_a_plain_script_finds_a_function(shared: Machine, seed: str, module: str) -> None:
    """With `import modal` (portico-modal) and with `import portico`."""
    done = ask(shared, module=module)
    assert (done.stdout, done.returncode) == (f"{seed}\n", 0)


def test_a_script_finds_an_app_that_is_served(shared: Machine) -> None:
    """Its -dev URL, where none of the name is deployed."""
    shared.write("served.py", SEED.format(app="only-served"))
    process = shared.start("serve", "served.py")
    url = process.until("^http://.*")[0]
    assert ask(shared, "only-served").stdout == f"{url}\n"
    process.interrupt()


def test_a_deployed_app_is_found_before_a_served_one(shared: Machine, seed: str) -> None:
    """Its URL is the stable one."""
    process = shared.start("serve", "seed.py")
    process.until("Serving seed")
    assert ask(shared).stdout == f"{seed}\n"
    process.interrupt()


def test_a_function_without_a_url_has_none(shared: Machine, seed: str) -> None:
    """It is not an error."""
    assert ask(shared, function="plain").stdout == "None\n"


@pytest.mark.parametrize(
    ("app", "function", "error"),
    [
        ("nothing", "square", "NotFoundError: There is no function 'square' in the app 'nothing'."),
        ("seed", "nothing", "NotFoundError: There is no function 'nothing' in the app 'seed'."),
    ],
)
def test_what_is_not_there_is_not_found(shared: Machine, seed: str, app: str, function: str, error: str) -> None:
    """And the error names it."""
    done = ask(shared, app, function)
    assert done.returncode == 1
    assert error in done.stderr


def test_without_a_server_it_says_so(machine: Machine) -> None:
    """In one line at the end of the traceback."""
    done = ask(machine)
    assert done.returncode == 1
    assert "No Portico server is running" in done.stderr


def test_a_long_name_is_cut_and_marked(shared: Machine) -> None:
    """63 characters; the dev URL has the mark of the deployed one."""
    name = "a-very-long-name-of-an-app-that-goes-on-and-on-and-on"
    shared.write("long.py", SEED.format(app=name))
    url = shared.deploy("long.py")["square"]
    process = shared.start("serve", "long.py")
    dev = process.until("^http://.*")[0]
    process.interrupt()
    label, dev_label = (address.partition("//")[2].partition(".")[0] for address in (url, dev))
    assert (len(label), len(dev_label)) == (63, 63)
    assert dev_label.removesuffix("-dev")[-7:] == label[-7:]
    assert shared.request(f"{url}/?x=3").json == {"square": 9}


def test_names_are_made_fit_for_host_names(shared: Machine) -> None:
    """Lower-case, and everything else becomes a hyphen; the host's case does not matter to requests."""
    shared.write("odd.py", SEED.format(app="My_App.v2").replace("square(", "Square_It("))
    url = shared.deploy("odd.py")["Square_It"]
    assert url == f"http://acme--my-app-v2-square-it.localhost:{shared.port}"
    assert shared.request(f"{url}/?x=3".replace("acme--my-app", "ACME--My-App")).json == {"square": 9}


def test_a_container_finds_the_address_of_another_apps_function(shared: Machine) -> None:
    """By its name, as a script does."""
    head = "import modal\n\napp = modal.App({!r})\n\n\n"
    text = head + "@app.function()\n@modal.fastapi_endpoint()\ndef f():\n    return {}\n"
    shared.write("callee.py", text.format("callee", "1"))
    shared.write("asker.py", text.format("asker", 'modal.Function.from_name("callee", "f").get_web_url()'))
    url = shared.deploy("callee.py")["f"]
    assert shared.request(shared.deploy("asker.py")["f"]).json == url
