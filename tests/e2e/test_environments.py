"""Environments: the same app in two of them is two apps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import PATIENCE, Machine, wait_until

SEED = """
import os
import modal

app = modal.App("seed")


@app.function()
@modal.fastapi_endpoint()
def where():
    return {{"says": "{says}", "environment": os.environ["MODAL_ENVIRONMENT"], "url": where.get_web_url()}}


@app.function()
def plain():
    return "{says}"
"""


@pytest.fixture
def staging(shared: Machine) -> Iterator[str]:
    """An environment, for one test."""
    shared.run("environment", "create", "staging")
    yield "staging"
    shared.run("environment", "delete", "staging", "--yes", code=None)


def deploy(machine: Machine, says: str, environment: str) -> str:
    """Deploy the seed app, with this word in it; its URL."""
    machine.write("seed.py", SEED.format(says=says))
    return machine.deploy("seed.py", "--env", environment)["where"]


def test_the_same_app_in_two_environments_is_two_apps(shared: Machine, staging: str) -> None:
    """Each answers at its own URL, knows its own environment, and is listed there alone."""
    main, other = deploy(shared, "one", "main"), deploy(shared, "two", staging)
    assert main == f"http://acme--seed-where.localhost:{shared.port}"
    assert other == f"http://acme-staging--seed-where.localhost:{shared.port}"
    assert shared.request(main).json == {"says": "one", "environment": "main", "url": main}
    assert shared.request(other).json == {"says": "two", "environment": "staging", "url": other}
    shared.run("app", "stop", "seed", "-e", staging, "--yes")
    assert json.loads(shared.run("app", "list", "--json", "-e", staging).stdout) == []
    assert shared.request(main).status == 200
    assert shared.request(other).text == "modal-http: app for invoked web endpoint is stopped"


def test_calls_and_lookups_stay_in_their_environment(shared: Machine, staging: str) -> None:
    """By `environment_name=`, else by the process's variable, else in main."""
    main, other = deploy(shared, "one", "main"), deploy(shared, "two", staging)
    script = shared.write(
        "script.py",
        "import modal, os\n"
        "for place in (None, 'main', 'staging'):\n"
        "    f = modal.Function.from_name('seed', 'where', environment_name=place)\n"
        "    print(f.get_web_url(), modal.Function.from_name('seed', 'plain', environment_name=place).remote())\n",
    )

    def says(**more: str) -> list[str]:
        command, env = [sys.executable, str(script)], shared.env | more
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()

    assert says() == [f"{main} one", f"{main} one", f"{other} two"]
    assert says(MODAL_ENVIRONMENT=staging)[0] == f"{other} two"
    assert says(MODAL_ENVIRONMENT="nothing", PORTICO_ENVIRONMENT=staging)[0] == f"{other} two"


def test_serve_and_run_in_an_environment(shared: Machine, staging: str) -> None:
    """Both take -e; the URLs of `serve` have the suffix, and what `run` starts knows where it is."""
    shared.write("seed.py", SEED.format(says="served"))
    process = shared.start("serve", "seed.py", "-e", staging)
    url = process.until("^http://.*")[0]
    assert url == f"http://acme-staging--seed-where-dev.localhost:{shared.port}"
    assert shared.request(url).json == {"says": "served", "environment": "staging", "url": url}
    process.interrupt()
    shared.write(
        "job.py",
        "import modal, os\napp = modal.App('job')\n"
        "@app.function()\ndef place(): return os.environ['MODAL_ENVIRONMENT']\n"
        "@app.local_entrypoint()\ndef main(): print('in', place.remote())\n",
    )
    assert "in staging" in shared.run("run", "-e", staging, "job.py").stdout


def test_a_new_web_suffix_moves_the_apps(shared: Machine, staging: str) -> None:
    """They answer at their new URLs at once, know them, and no longer at the old ones; also after a rename."""
    old = deploy(shared, "two", staging)
    assert shared.request(old).status == 200
    shared.run("environment", "update", staging, "--set-web-suffix", "s2", "--set-name", "testing")
    new = f"http://acme-s2--seed-where.localhost:{shared.port}"
    assert shared.request(new).json == {"says": "two", "environment": "testing", "url": new}
    assert shared.request(old).text == "modal-http: invalid function call"
    listed = json.loads(shared.run("app", "list", "--json", "-e", "testing").stdout)
    assert [(app["name"], app["environment"]) for app in listed] == [("seed", "testing")]
    shared.run("environment", "update", "testing", "--set-name", staging)


@pytest.mark.parametrize("change", [("update", "moving", "--set-web-suffix", "m2"), ("delete", "moving", "--yes")])
def test_a_deploy_whose_environment_changes_meanwhile_fails(shared: Machine, change: tuple[str, ...]) -> None:
    """It was made for URLs that are no longer those of its environment; nothing of it stays."""
    shared.run("environment", "create", "moving")
    image = f"image=modal.Image.debian_slim().run_commands('sleep 3 # {change[0]}')"
    shared.write("slow.py", SEED.format(says="slow").replace("@app.function()", f"@app.function({image})", 1))
    process = shared.start("deploy", "slow.py", "--env", "moving")
    process.until("Building the image")
    shared.run("environment", *change)
    process.until("was changed meanwhile|There is no environment 'moving'")
    assert process.popen.wait(PATIENCE) == 1
    if change[0] == "update":
        assert json.loads(shared.run("app", "list", "--json", "-e", "moving").stdout) == []
        shared.run("environment", "delete", "moving", "--yes")


def test_deleting_an_environment_stops_its_apps(shared: Machine) -> None:
    """Deployed and served ones; without --yes it asks, and `main` cannot be deleted."""
    shared.run("environment", "create", "gone")
    url = deploy(shared, "gone", "gone")
    process = shared.start("serve", "seed.py", "--env", "gone")
    process.until("Serving seed")
    asked = shared.run("environment", "delete", "gone", code=1)
    assert "Delete the environment gone and stop the 2 apps in it?" in asked.stderr
    shared.run("environment", "delete", "gone", "--yes")
    process.until("The app was stopped")
    assert shared.request(url).status == 404
    assert "cannot be deleted" in shared.run("environment", "delete", "main", "--yes", code=1).stderr


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        *((verb, "seed.py") for verb in ("deploy", "serve")),
        ("run", "seed.py::plain"),
        *((f"app {verb}", "seed") for verb in ("info", "logs", "history", "rollback")),
        *(("app list", ""), ("app stop", "seed --yes")),
        *(("secret list", ""), ("secret create", "s A=1"), ("secret delete", "s --yes")),
        ("workspace set", "max-body 1MiB --app seed"),
    ],
)
def test_an_unknown_environment_is_named(
    shared: Machine, monkeypatch: pytest.MonkeyPatch, verb: str, words: str
) -> None:
    """By the flag, which wins, and by the variables; the error says how to make it."""
    shared.write("seed.py", SEED.format(says="x"))
    monkeypatch.setitem(shared.env, "MODAL_ENVIRONMENT", "nowhere")
    for given, name in (((), "nowhere"), (("-e", "nothing"), "nothing")):
        said = shared.run(*verb.split(), *given, *words.split(), code=1).stderr
        assert f"There is no environment '{name}'." in said
        assert f"portico environment create {name}" in said
    monkeypatch.setitem(shared.env, "PORTICO_ENVIRONMENT", "elsewhere")
    assert "There is no environment 'elsewhere'." in shared.run(*verb.split(), *words.split(), code=1).stderr


def test_environments_outlive_the_server(machine: Machine) -> None:
    """After a restart its apps answer at the same URLs."""
    server = machine.up()
    machine.run("environment", "create", "staging", "--web-suffix", "st")
    url = deploy(machine, "kept", "staging")
    server.interrupt()
    machine.up()
    wait_until(lambda: machine.request(url).status == 200, "the app answers again")
    assert machine.request(url).json == {"says": "kept", "environment": "staging", "url": url}
