"""Secrets, from `portico secret create` to the container, and nowhere else."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sys
import threading
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE, Machine, wait_until

APP = """
import os
import modal

app = modal.App("{name}", secrets=[modal.Secret.from_dict({{"INLINE": "{inline}", "SHARED": "app"}})])

@app.function(secrets=[modal.Secret.from_name("{secret}", required_keys=["TOKEN"])], env={{"LAST": "env"}})
@modal.fastapi_endpoint()
def show():
    return {{key: os.environ.get(key) for key in ("INLINE", "SHARED", "TOKEN", "LAST")}} | {{"pid": os.getpid()}}
"""


def write_app(machine: Machine, name: str, secret: str, inline: str = "inline") -> str:
    file = f"{name}.py"
    machine.write(file, APP.format(name=name, secret=secret, inline=inline))
    return file


def variables(machine: Machine, url: str) -> dict[str, str]:
    """What the function has in its environment."""
    answer = dict(machine.request(url).json)
    del answer["pid"]
    return answer


def test_a_function_gets_its_secrets_in_order(shared: Machine) -> None:
    """The app's, then the function's, then env=; the later win, and names of secrets count like values."""
    shared.run("secret", "create", "ordered", "TOKEN=t-1", "SHARED=kept", "LAST=kept")
    urls = shared.deploy(write_app(shared, "ordered", "ordered"))
    assert variables(shared, urls["show"]) == {"INLINE": "inline", "SHARED": "kept", "TOKEN": "t-1", "LAST": "env"}


def test_a_missing_secret_fails_the_deploy_with_the_command_that_makes_it(shared: Machine) -> None:
    """Run as it is printed, the command makes the next deploy work."""
    file = write_app(shared, "missing", "not-there")
    failed = shared.run("deploy", file, code=1)
    assert "There is no secret 'not-there' in the environment 'main'." in failed.stderr
    found = re.search(r"^Hint: portico (secret create .*)$", failed.stderr, re.MULTILINE)
    assert found is not None
    shared.run(*found[1].split(), stdin="typed\n")
    assert shared.request(shared.deploy(file)["show"]).json["TOKEN"] == "typed"


def test_a_missing_secret_fails_serve_as_well(shared: Machine) -> None:
    """With the same words."""
    failed = shared.run("serve", write_app(shared, "unserved", "nowhere"), code=1)
    assert "There is no secret 'nowhere'" in failed.stderr
    assert "portico secret create nowhere TOKEN=-" in failed.stderr


def test_a_missing_key_is_named(shared: Machine) -> None:
    """A secret without one of `required_keys` fails the deploy."""
    shared.run("secret", "create", "keyless", "OTHER=1")
    failed = shared.run("deploy", write_app(shared, "keyless", "keyless"), code=1)
    assert "The secret 'keyless' in the environment 'main' lacks TOKEN." in failed.stderr
    assert "portico secret create keyless OTHER=- TOKEN=- --force" in failed.stderr


def test_a_changed_secret_is_what_new_containers_get(shared: Machine) -> None:
    """A deploy of the unchanged file is a new version then; without a change it is none."""
    shared.run("secret", "create", "changing", "TOKEN=before")
    file = write_app(shared, "changing", "changing")
    url = shared.deploy(file)["show"]
    assert shared.request(url).json["TOKEN"] == "before"
    shared.run("secret", "create", "changing", "TOKEN=after", "--force")
    assert shared.request(url).json["TOKEN"] == "before"  # the container that runs keeps what it has
    shared.deploy(file)
    assert shared.request(url).json["TOKEN"] == "after"
    assert json.loads(shared.run("deploy", file, "--json").stdout)["unchanged"] is True


def test_a_container_that_starts_later_gets_the_change_too(shared: Machine) -> None:
    """No deploy is needed for that."""
    shared.run("secret", "create", "later", "TOKEN=before")
    url = shared.deploy(write_app(shared, "later", "later"))["show"]
    assert shared.request(url).json["TOKEN"] == "before"
    shared.run("secret", "create", "later", "TOKEN=after", "--force")
    os.kill(shared.request(url).json["pid"], signal.SIGKILL)
    wait_until(lambda: b'"after"' in shared.request(url).body, "a new container has the new value")


def test_a_deleted_secret_is_missed_by_new_containers(shared: Machine) -> None:
    """They say so, and start again once it is there again; the one that runs goes on."""
    shared.run("secret", "create", "deleted", "TOKEN=before-deletion")
    url = shared.deploy(write_app(shared, "deleted", "deleted"))["show"]
    assert shared.request(url).json["TOKEN"] == "before-deletion"
    shared.run("secret", "delete", "deleted", "--yes")
    os.kill(shared.request(url).json["pid"], signal.SIGKILL)
    wait_until(lambda: shared.request(url).status == 503, "the missing secret is noticed")
    assert "There is no secret 'deleted'" in shared.request(url).text
    shared.run("secret", "create", "deleted", "TOKEN=again")
    wait_until(lambda: shared.request(url).status == 200, "a container has started again")


def test_values_are_nowhere_to_be_found(machine: Machine) -> None:
    """In no file of the home, no command line, no environment that `ps` shows, and nothing that is printed."""
    kept, inline = "kept-value-7fe1", "inline-value-93ab"
    machine.up()
    said = machine.run("secret", "create", "hidden", "TOKEN=-", stdin=f"{kept}\n")
    file = write_app(machine, "hidden", "hidden", inline)
    deployed = machine.run("deploy", file)
    url = machine.app("hidden")["functions"][0]["url"]
    assert variables(machine, url) == {"INLINE": inline, "SHARED": "app", "TOKEN": kept, "LAST": "env"}
    listed = machine.run("secret", "list", "--json")
    (machine.folder / file).unlink()
    shown = [said.stdout, said.stderr, deployed.stdout, deployed.stderr, listed.stdout]
    shown += [machine.run("app", "info", "hidden").stdout, machine.run("app", "logs", "hidden").stdout]
    processes = [*machine.servers(), *machine.templates(), *machine.containers()]
    assert len(processes) >= 3
    for process in processes:
        shown += [*process.cmdline(), *process.environ().values()]
    assert not [text for text in shown if kept in text or inline in text]
    sources = {place for place in machine.home.rglob("*") if place.is_file() and inline.encode() in place.read_bytes()}
    assert {place.relative_to(machine.home).parts[0] for place in sources} <= {
        "blobs",
        "bundles",
        "compiled",
    }  # the file
    assert not [place for place in machine.home.rglob("*") if place.is_file() and kept.encode() in place.read_bytes()]
    key = machine.home / "secret.key"
    assert key.stat().st_mode & 0o777 == 0o600


def test_nothing_writes_memory_to_disk(machine: Machine) -> None:
    """The server and what it starts leave no memory in a core dump."""
    machine.up()
    machine.run("secret", "create", "hidden", "TOKEN=1")
    urls = machine.deploy(write_app(machine, "hidden", "hidden"))
    machine.request(urls["show"])
    for process in [*machine.servers(), *machine.templates(), *machine.containers()]:
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"Max core file size\s+0 ", limits)
        assert int(Path(f"/proc/{process.pid}/coredump_filter").read_text(), 16) == 0


def test_a_key_of_ones_own_is_used_and_kept_from_what_the_server_starts(machine: Machine) -> None:
    """PORTICO_SECRET_KEY: no key lies in the home, containers do not see it; without it the server does not start."""
    machine.env["PORTICO_SECRET_KEY"] = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    machine.env["PYTHONUNBUFFERED"] = "1"
    server = machine.up()
    machine.run("secret", "create", "own", "TOKEN=1")
    urls = machine.deploy(write_app(machine, "own", "own"))
    assert machine.request(urls["show"]).json["TOKEN"] == "1"
    assert not (machine.home / "secret.key").exists()
    for process in [*machine.templates(), *machine.containers()]:
        assert "PORTICO_SECRET_KEY" not in process.environ()
    server.end()
    del machine.env["PORTICO_SECRET_KEY"]
    failed = machine.run("up", code=1)
    assert "secret.key is gone" in failed.stderr
    assert not (machine.home / "secret.key").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["not a name", "A=1"], "Invalid secret name"),
        (["x" * 65, "A=1"], "Invalid secret name"),
        (["bad", "1A=1"], "cannot name an environment variable"),
        (["bad", "A" * 20_480 + "=1"], "20,480 characters; at most 16,384"),
        (["bad", "A=" + "x" * 32_769], "longer than 32,768 characters"),
        (["bad"], "has no variables"),
        (["bad", "A=1", "A=2"], "is there twice"),
        (["bad", "A=-"], "no value for A"),
        (["bad", "--env", "nowhere", "A=1"], "no environment 'nowhere'"),
    ],
)
def test_bad_secrets_are_refused(shared: Machine, arguments: list[str], said: str) -> None:
    """With an error that says what is wrong, in a few words, and without the value."""
    failed = shared.run("secret", "create", *arguments, code=1)
    assert said in failed.stderr
    assert len(failed.stderr) < 1000
    assert "bad" not in shared.run("secret", "list").stdout


def test_a_word_without_a_value_is_a_wrong_use(shared: Machine) -> None:
    """And is not shown: it may be a value."""
    failed = shared.run("secret", "create", "wrong", "hunter2", code=2)
    assert "KEY=VALUE" in failed.stderr
    assert "hunter2" not in failed.stderr


def test_secrets_come_from_files(shared: Machine) -> None:
    """`.env` and JSON; what stands on the command line wins."""
    shared.write("more/.env", "A=dotenv\nB='two words'\nTOKEN=dotenv\n")
    shared.write("more/secret.json", json.dumps({"A": "json", "C": "json"}))
    made = shared.run(
        *("secret", "create", "filed", "TOKEN=word", "--from-dotenv", "more/.env", "--from-json", "more/secret.json")
    )
    assert "A, B, TOKEN, C" in made.stdout
    urls = shared.deploy(write_app(shared, "filed", "filed"))
    assert shared.request(urls["show"]).json["TOKEN"] == "word"
    for text, said in (("[1]", "not a JSON object"), ("{", "is not JSON"), ('{"A": 1}', "'A' has not")):
        shared.write("more/bad.json", text)
        assert said in shared.run("secret", "create", "unfiled", "--from-json", "more/bad.json", code=1).stderr


def test_a_secret_is_replaced_only_by_force(shared: Machine) -> None:
    """Otherwise the old one stays, and the error says how."""
    shared.run("secret", "create", "forced", "A=1")
    assert "--force" in shared.run("secret", "create", "forced", "A=2", code=1).stderr
    shared.run("secret", "create", "forced", "A=2", "--force")
    shared.run("secret", "delete", "forced", "-y")
    assert "no secret 'forced'" in shared.run("secret", "delete", "forced", "-y", code=1).stderr
    shared.run("secret", "delete", "forced", "-y", "--allow-missing")


def test_secrets_are_per_environment(shared: Machine) -> None:
    """One of another environment is not found, unless the code names it."""
    shared.run("environment", "create", "staging")
    shared.run("secret", "create", "placed", "TOKEN=main")
    file = write_app(shared, "placed", "placed")
    failed = shared.run("deploy", file, "--env", "staging", code=1)
    assert "portico secret create placed TOKEN=- --env staging" in failed.stderr
    shared.run("secret", "create", "placed", "TOKEN=staging", "-e", "staging")
    assert shared.request(shared.deploy(file, "--env", "staging")["show"]).json["TOKEN"] == "staging"
    assert shared.request(shared.deploy(file)["show"]).json["TOKEN"] == "main"
    shared.run("environment", "update", "staging", "--set-name", "stage")
    names = [secret["name"] for secret in json.loads(shared.run("secret", "list", "-e", "stage", "--json").stdout)]
    assert names == ["placed"]
    shared.run("secret", "create", "placed", "TOKEN=stage", "-e", "stage", "--force")


def test_a_value_is_typed_without_being_shown(shared: Machine) -> None:
    """KEY=- on a terminal asks, and echoes nothing."""
    command = [sys.executable, "-m", "portico", "secret", "create", "typed", "TOKEN=-"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(shared.folder)
        os.execve(command[0], command, shared.env)
    seen = bytearray()

    def read() -> None:
        try:
            while data := os.read(terminal, 4096):
                seen.extend(data)
        except OSError:
            return  # the terminal's other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: b"TOKEN:" in seen, "it asks")
    os.write(terminal, b"typed-value-55\n")
    reader.join(PATIENCE)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(terminal)
    assert b"typed-value-55" not in seen
    assert shared.request(shared.deploy(write_app(shared, "typed", "typed"))["show"]).json["TOKEN"] == "typed-value-55"
