"""Labels: what `serve` ends them with, and who has one that two apps want."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.conftest import PATIENCE, Machine

SEED = """
import modal

app = modal.App("{app}")


@app.function()
@modal.fastapi_endpoint(label="{label}")
def says():
    return "{app}"
"""


@pytest.mark.parametrize(
    ("variables", "label"),
    [
        ({}, "acme--api-dev"),
        ({"MODAL_DEV_SUFFIX": "Jo"}, "acme--api-jo"),
        ({"PORTICO_DEV_SUFFIX": "me", "MODAL_DEV_SUFFIX": "jo"}, "acme--api-me"),
    ],
)
def test_a_served_label_ends_in_the_dev_suffix(
    shared: Machine, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], label: str
) -> None:
    """`-dev`, or what the variables say, behind a label of one's own, too."""
    shared.write("api.py", SEED.format(app="suffixed", label="api"))
    for name, value in variables.items():
        monkeypatch.setitem(shared.env, name, value)
    process = shared.start("serve", "api.py")
    url = process.until("^http://.*")[0]
    assert url == f"http://{label}.localhost:{shared.port}"
    assert shared.request(url).json == "suffixed"
    process.interrupt()


def test_a_reload_keeps_the_dev_suffix(shared: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the app had no endpoint when it came up."""
    monkeypatch.setitem(shared.env, "PORTICO_DEV_SUFFIX", "jo")
    shared.write("later.py", 'import modal\n\napp = modal.App("later")\n\n\n@app.function()\ndef f():\n    pass\n')
    process = shared.start("serve", "later.py")
    process.until("Serving later")
    shared.write("later.py", SEED.format(app="later", label="late"))
    assert process.until("^http://.*")[0] == f"http://acme--late-jo.localhost:{shared.port}"
    process.interrupt()


@pytest.mark.parametrize("suffix", ["a-b", "toolongone", "ä"])
def test_an_impossible_dev_suffix_is_refused(shared: Machine, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Before anything is read or started."""
    monkeypatch.setitem(shared.env, "MODAL_DEV_SUFFIX", suffix)
    shared.write("api.py", SEED.format(app="suffixed", label="api"))
    done = shared.run("serve", "api.py", code=1)
    assert "Invalid dev suffix" in done.stderr
    assert "1 to 8 letters and digits" in done.stderr


def test_a_reload_that_takes_a_label_says_so(shared: Machine) -> None:
    """The label of an older app that runs, too; and the older one is told."""
    for app in ("older", "newer"):
        shared.write(f"{app}.py", SEED.format(app=app, label=app))
    older, newer = shared.start("serve", "older.py"), shared.start("serve", "newer.py")
    url = older.until("^http://.*")[0]
    newer.until("Serving newer")
    shared.write("newer.py", SEED.format(app="newer", label="older"))
    newer.until("Took over a URL from the running app 'older'")
    older.until("another app has taken over a URL")
    assert newer.until("^http://.*")[0] == url
    assert shared.request(url).json == "newer"
    newer.interrupt()
    older.interrupt()


def test_a_served_app_takes_no_label_from_a_deployed_one(shared: Machine) -> None:
    """Where the deployed app's own label ends in the dev suffix; the error names the holder."""
    shared.write("api.py", SEED.format(app="lasting", label="egg-dev"))
    url = shared.deploy("api.py")["says"]
    shared.write("api.py", SEED.format(app="passing", label="egg"))
    assert "'lasting'" in shared.run("serve", "api.py", code=1).stderr
    assert shared.request(url).json == "lasting"


@pytest.mark.parametrize("label", ["ab--x", "Api", "api-", "12"])
def test_an_impossible_label_fails_the_deploy(shared: Machine, label: str) -> None:
    """It is named, with the rule."""
    shared.write("api.py", SEED.format(app="impossible", label=label))
    done = shared.run("deploy", "api.py", code=1)
    assert f"Invalid label: {label!r}" in done.stderr


def test_a_workspace_of_two_characters_is_refused(machine: Machine) -> None:
    """Its host names would be ones that TLS refuses."""
    machine.env["PORTICO_WORKSPACE"] = "ab"
    done = machine.run("up", code=1)
    assert "Invalid workspace name: 'ab'" in done.stderr
    assert "PORTICO_WORKSPACE" in done.stderr


ASKING = """
import modal

app = modal.App("asking")


@app.function()
@modal.fastapi_endpoint(label="asked")
def function():
    return [function.get_web_url(), Egg().method.get_web_url()]


@app.cls()
class Egg:
    @modal.fastapi_endpoint(label="egg")
    def method(self):
        return [function.get_web_url(), self.method.get_web_url()]
"""
SCRIPT = """
import modal

print(modal.Function.from_name("asking", "function").get_web_url())
print(modal.Cls.from_name("asking", "Egg")().method.get_web_url())
"""


def test_functions_and_methods_know_their_urls(shared: Machine) -> None:
    """Of their own and of each other, inside and by name; the label is what they have in them."""
    shared.write("asking.py", ASKING)
    found = shared.deploy("asking.py")
    urls = [f"http://acme--{label}.localhost:{shared.port}" for label in ("asked", "egg")]
    assert [found["function"], found["Egg.method"]] == urls
    assert [shared.request(url).json for url in urls] == [urls, urls]
    command = [sys.executable, str(shared.write("script.py", SCRIPT))]
    done = subprocess.run(command, env=shared.env, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.splitlines() == urls
