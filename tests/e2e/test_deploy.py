"""`portico deploy`, as a user sees it."""

from __future__ import annotations

import json

from tests.e2e.conftest import Machine

SQUARE = """
import modal

app = modal.App("seed")


@app.function()
@modal.fastapi_endpoint()
def square(x: int):
    return {{"square": x**{power}}}
"""


def test_deploy_starts_a_server_and_its_endpoint_answers(machine: Machine) -> None:
    """Two words on the command line, and a URL that works."""
    machine.write("app.py", SQUARE.format(power=2))
    done = machine.run("deploy", "app.py")
    assert f"http://acme--seed-square.localhost:{machine.port}" in done.stdout
    answer = machine.request(f"http://acme--seed-square.localhost:{machine.port}/?x=7")
    assert (answer.status, answer.json) == (200, {"square": 49})


def test_deploy_with_json_prints_one_object_and_nothing_else(machine: Machine) -> None:
    """Programs read stdout."""
    machine.write("app.py", SQUARE.format(power=2))
    printed = json.loads(machine.run("deploy", "app.py", "--json").stdout)
    url = f"http://acme--seed-square.localhost:{machine.port}"
    assert printed["app"] == "seed"
    assert printed["version"] == 1
    assert printed["endpoints"] == [{"function": "square", "url": url, "protected": False, "custom_urls": []}]


def test_deploying_an_unchanged_app_is_a_no_op_and_says_so(machine: Machine) -> None:
    """The version stays."""
    machine.write("app.py", SQUARE.format(power=2))
    machine.deploy("app.py")
    assert "unchanged" in machine.run("deploy", "app.py").stdout.lower()
    assert machine.app("seed")["version"] == 1


def test_deployed_apps_survive_a_restart_of_the_server(machine: Machine) -> None:
    """The same URL, once the server runs again."""
    server = machine.up()
    machine.write("app.py", SQUARE.format(power=2))
    url = machine.deploy("app.py")["square"]
    assert server.interrupt() == 0
    machine.up()
    assert machine.request(f"{url}/?x=3").json == {"square": 9}


def test_a_version_that_cannot_start_fails_the_deploy_and_the_old_one_stays(machine: Machine) -> None:
    """With the traceback of the user's code."""
    machine.write("app.py", SQUARE.format(power=2))
    url = machine.deploy("app.py")["square"]
    machine.write("app.py", SQUARE.format(power=2) + "\nif not modal.is_local():\n    raise RuntimeError('not here')\n")
    done = machine.run("deploy", "app.py", code=1)
    assert "RuntimeError: not here" in done.stderr
    assert "app.py" in done.stderr
    assert machine.request(f"{url}/?x=3").json == {"square": 9}
    assert machine.app("seed")["version"] == 1


def test_rollback_brings_the_version_before_back(machine: Machine) -> None:
    """As a new version."""
    machine.up()
    machine.write("app.py", SQUARE.format(power=2))
    machine.deploy("app.py")
    machine.write("app.py", SQUARE.format(power=3))
    url = machine.deploy("app.py")["square"]
    assert machine.request(f"{url}/?x=2").json == {"square": 8}
    machine.run("app", "rollback", "seed", "--yes")
    assert machine.request(f"{url}/?x=2").json == {"square": 4}
    history = json.loads(machine.run("app", "history", "seed", "--json").stdout)
    assert [version["version"] for version in history] == [3, 2, 1]
    assert history[0]["rollback_of"] == 1


def test_a_stopped_app_answers_that_it_is_stopped(machine: Machine) -> None:
    """Also after a restart."""
    server = machine.up()
    machine.write("app.py", SQUARE.format(power=2))
    url = machine.deploy("app.py")["square"]
    machine.run("app", "stop", "seed", "--yes")
    stopped = (404, "modal-http: app for invoked web endpoint is stopped")
    answer = machine.request(url)
    assert (answer.status, answer.text) == stopped
    server.interrupt()
    machine.up()
    answer = machine.request(url)
    assert (answer.status, answer.text) == stopped
