"""The `portico` commands around serve and deploy: the server, the apps on it, the machine."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.e2e.conftest import Machine, free_port, wait_until

APP = """
import modal

app = modal.App("{name}")


@app.function({options})
@modal.fastapi_endpoint()
def f(say: str = ""):
    if say:
        print(say, flush=True)
    return "{word}"
"""


def deploy(machine: Machine, name: str, word: str = "hello", options: str = "") -> str:
    """Deploy an app of this name; the URL of its one function."""
    machine.write(f"{name}.py", APP.format(name=name, word=word, options=options))
    return machine.deploy(f"{name}.py")["f"]


def as_json(machine: Machine, *arguments: str) -> object:
    """What a command prints on stdout with --json, all of it."""
    return json.loads(machine.run(*arguments, "--json").stdout)


def on_a_terminal(machine: Machine, *arguments: str, answer: str) -> tuple[int, str]:
    """Run a command on a pseudo-terminal and answer its question; its exit code and all that the terminal shows."""
    ours, theirs = pty.openpty()
    command = subprocess.Popen(
        [sys.executable, "-m", "portico", *arguments],
        env=machine.env,
        cwd=machine.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown, answered = b"", False
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:
            break  # nobody has the terminal open any more
        if b"[y/N]" in shown and not answered:
            answered = True
            os.write(ours, f"{answer}\n".encode())
    os.close(ours)
    return command.wait(30), shown.decode()


# -- up and down ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_ends_cleanly_on_a_signal(machine: Machine, number: signal.Signals) -> None:
    """Exit code 0; containers end with it."""
    server = machine.up()
    assert machine.request(deploy(machine, "a")).json == "hello"
    server.popen.send_signal(number)
    assert server.popen.wait(30) == 0
    assert machine.leftovers() == []


def test_up_says_where_it_listens(machine: Machine) -> None:
    """And where its home is."""
    server = machine.start("up")
    said = server.until("listens on").string
    assert f"127.0.0.1:{machine.port}" in said
    assert str(machine.home) in said


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_up_says_what_it_means_to_listen_to_the_network(machine: Machine, host: str) -> None:
    """Whoever comes from there meets functions that may do what the user may. At home it says nothing."""
    machine.env["PORTICO_LISTEN"] = f"{host}:{machine.port}"
    server = machine.up()
    said = " ".join(server.seen)
    assert ("Functions run as your user" in said) == (host == "0.0.0.0")
    assert ("serve only code that you trust. See docs/security.md." in said) == (host == "0.0.0.0")


def test_up_and_down_in_the_background(machine: Machine) -> None:
    """`up --detach` returns when the server answers, `down` when it has ended; both say so when asked again."""
    assert f"127.0.0.1:{machine.port}" in machine.run("up", "--detach").stderr
    assert len(machine.servers()) == 1
    assert "running already" in machine.run("up", "--detach").stderr
    assert "has ended" in machine.run("down").stderr
    assert machine.leftovers() == []
    assert "No Portico server is running" in machine.run("down").stderr


def test_deployed_apps_come_back_with_the_server(machine: Machine) -> None:
    """After `down`, as after a restart of the machine."""
    url = deploy(machine, "a")
    machine.run("down", "--yes")
    machine.run("up", "--detach")
    assert machine.request(url).json == "hello"


def test_deploy_starts_a_server_in_the_background_and_says_so(machine: Machine) -> None:
    """With what ends it."""
    machine.write("a.py", APP.format(name="a", word="hello", options=""))
    said = machine.run("deploy", "a.py").stderr
    assert f"Started a server on 127.0.0.1:{machine.port} in the background" in said
    assert "`portico down` ends it" in said


def test_two_deploys_at_once_start_one_server(machine: Machine) -> None:
    """Both apps are on it."""
    commands = []
    for name in ("a", "b"):
        machine.write(f"{name}.py", APP.format(name=name, word=name, options=""))
        commands.append(machine.start("deploy", f"{name}.py"))
    assert [command.popen.wait(60) for command in commands] == [0, 0], [command.rest() for command in commands]
    assert len(machine.servers()) == 1
    for name in ("a", "b"):
        assert machine.request(f"http://acme--{name}-f.localhost:{machine.port}").json == name


def test_two_servers_live_side_by_side(machine: Machine) -> None:
    """With homes and ports of their own; each command speaks to the one of its home."""
    first_url = deploy(machine, "a", "first")
    first = dict(machine.env), machine.port
    machine.port = free_port()
    machine.env |= {"PORTICO_HOME": str(machine.home / "second"), "PORTICO_LISTEN": f"127.0.0.1:{machine.port}"}
    second_url = deploy(machine, "a", "second")
    assert machine.request(second_url).json == "second"
    machine.run("down", "--yes")
    machine.env, machine.port = first
    assert machine.request(first_url).json == "first"


# -- apps -------------------------------------------------------------------------------------------------------------
def test_app_list_shows_what_is_deployed_and_served(shared: Machine) -> None:
    """As a table and as JSON."""
    deploy(shared, "listed")
    shared.write("shown.py", APP.format(name="shown", word="x", options=""))
    process = shared.start("serve", "shown.py")
    process.until("Serving shown")
    apps = as_json(shared, "app", "list")
    assert isinstance(apps, list)
    assert {("listed", "deployed"), ("shown", "ephemeral")} <= {(app["name"], app["state"]) for app in apps}
    head, *rows = shared.run("app", "list").stdout.splitlines()
    assert head.split() == ["NAME", "STATE", "VERSION", "FUNCTIONS", "PROXY", "AUTH", "DOMAINS", "CREATED", "ID"]
    assert any(row.split()[:3] == ["listed", "deployed", "1"] for row in rows)
    process.interrupt()


def test_app_info_shows_functions_urls_and_containers(shared: Machine) -> None:
    """By name or by id, as a table and as JSON."""
    url = deploy(shared, "described")
    assert shared.request(url).status == 200
    info = as_json(shared, "app", "info", "described")
    assert isinstance(info, dict)
    counts = {"containers": 1, "running": 0, "queued": 0}
    assert info["functions"] == [{"name": "f", "url": url, "protected": False, "custom_urls": []} | counts]
    assert as_json(shared, "app", "info", info["id"]) == info
    assert url in shared.run("app", "info", "described").stdout


def test_app_history_lists_versions(shared: Machine) -> None:
    """The newest first, with their tags."""
    deploy(shared, "told", "one")
    shared.write("told.py", APP.format(name="told", word="two", options=""))
    shared.run("deploy", "told.py", "--tag", "second")
    history = as_json(shared, "app", "history", "told")
    assert isinstance(history, list)
    assert [(v["version"], v["current"], v["tag"]) for v in history] == [(2, True, "second"), (1, False, None)]
    assert "second" in shared.run("app", "history", "told").stdout


@pytest.mark.parametrize("version", ["1", "v1"])
def test_app_rollback_to_a_version(shared: Machine, version: str) -> None:
    """With --json it prints what deploy prints."""
    name = f"back-{version}"
    url = deploy(shared, name, "one")
    deploy(shared, name, "two")
    result = as_json(shared, "app", "rollback", name, version, "--yes")
    assert isinstance(result, dict)
    assert (result["app"], result["version"]) == (name, 3)
    assert shared.request(url).json == "one"


def test_app_rollback_to_nothing_is_refused(shared: Machine) -> None:
    """No such version; none before the first."""
    deploy(shared, "only")
    assert "no version 9" in shared.run("app", "rollback", "only", "9", "--yes", code=1).stderr
    assert "no earlier version" in shared.run("app", "rollback", "only", "--yes", code=1).stderr
    assert "not a version" in shared.run("app", "rollback", "only", "two", "--yes", code=2).stderr


def test_app_stop_with_json(shared: Machine) -> None:
    """It is in the list of all apps afterwards, and can be deployed again."""
    url = deploy(shared, "halted")
    stopped = as_json(shared, "app", "stop", "halted", "--yes")
    assert isinstance(stopped, dict)
    assert stopped["state"] == "stopped"
    assert "halted" not in shared.run("app", "list").stdout
    assert "halted" in shared.run("app", "list", "--all").stdout
    assert "stopped already" in shared.run("app", "stop", "halted", "--yes", code=1).stderr
    deploy(shared, "halted")
    assert shared.request(url).json == "hello"


def test_app_logs_shows_what_was_printed(shared: Machine) -> None:
    """As lines, with times, the last ones, and as JSON."""
    url = deploy(shared, "wordy")
    for number in range(3):
        shared.request(f"{url}/?say=line-{number}")
    wait_until(lambda: "line-2" in shared.run("app", "logs", "wordy").stdout, "the lines are in the log")
    assert shared.run("app", "logs", "wordy").stdout.splitlines() == [f"[f] line-{number}" for number in range(3)]
    assert shared.run("app", "logs", "wordy", "-n", "1").stdout == "[f] line-2\n"
    assert "T" in shared.run("app", "logs", "wordy", "--timestamps").stdout.split()[0]
    lines = [json.loads(line) for line in shared.run("app", "logs", "wordy", "--json").stdout.splitlines()]
    assert [(line["function"], line["source"], line["line"]) for line in lines[:1]] == [("f", "stdout", "line-0")]


def test_app_logs_follows(shared: Machine) -> None:
    """-f: what comes is shown as it comes, until the app is stopped."""
    url = deploy(shared, "chatty")
    follower = shared.start("app", "logs", "chatty", "-f")
    shared.request(f"{url}/?say=first")
    follower.until("first")
    shared.request(f"{url}/?say=second")
    follower.until("second")
    shared.run("app", "stop", "chatty", "--yes")
    assert follower.popen.wait(30) == 0


def test_deploy_can_stream_logs(shared: Machine) -> None:
    """--stream-logs, until Ctrl-C."""
    shared.write("streamed.py", APP.format(name="streamed", word="x", options=""))
    process = shared.start("deploy", "streamed.py", "--stream-logs")
    process.until("App deployed")
    url = f"http://acme--streamed-f.localhost:{shared.port}"

    def said() -> bool:
        shared.request(f"{url}/?say=words")
        return "[f] words" in shared.run("app", "logs", "streamed").stdout

    wait_until(said, "the app has said something")
    shared.request(f"{url}/?say=words")
    process.until("words")
    process.interrupt()


@pytest.mark.parametrize("verb", ["info", "stop", "logs", "history", "rollback"])
def test_an_app_that_is_not_there_is_named(shared: Machine, verb: str) -> None:
    """And where to look for those that are."""
    said = shared.run("app", verb, "nobody", code=1).stderr
    assert "There is no app 'nobody'" in said
    assert "portico app list" in said


@pytest.mark.parametrize(
    "arguments", [["list"], ["info", "a"], ["stop", "a", "--yes"], ["logs", "a"], ["history", "a"]]
)
def test_without_a_server_the_remedy_is_named(machine: Machine, arguments: list[str]) -> None:
    """None is started for a question."""
    said = machine.run("app", *arguments, code=1)
    assert said.stdout == ""
    assert "No Portico server is running" in said.stderr
    assert "portico up" in said.stderr


# -- questions --------------------------------------------------------------------------------------------------------
DESTRUCTIVE = [["app", "stop", "kept"], ["app", "rollback", "kept"], ["down"]]


@pytest.mark.parametrize("arguments", DESTRUCTIVE)
def test_without_a_terminal_a_destructive_command_does_nothing(shared: Machine, arguments: list[str]) -> None:
    """It tells of --yes."""
    url = deploy(shared, "kept")
    assert "--yes" in shared.run(*arguments, code=1).stderr
    assert shared.request(url).json == "hello"


@pytest.mark.parametrize("arguments", DESTRUCTIVE)
def test_no_is_taken_for_an_answer(shared: Machine, arguments: list[str]) -> None:
    """Nothing has changed."""
    url = deploy(shared, "kept")
    code, shown = on_a_terminal(shared, *arguments, answer="n")
    assert (code, "[y/N]" in shown) == (1, True)
    assert shared.request(url).json == "hello"


def test_yes_is_taken_for_an_answer(shared: Machine) -> None:
    """And done."""
    url = deploy(shared, "agreed")
    code, shown = on_a_terminal(shared, "app", "stop", "agreed", answer="y")
    assert code == 0
    assert "is stopped" in shown
    assert shared.request(url).status == 404


# -- the machine ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("running", [False, True])
def test_doctor_examines_the_machine(machine: Machine, running: bool) -> None:
    """A line for each check; with --json one object. It finds nothing broken here."""
    if running:
        machine.up()
    report = as_json(machine, "doctor")
    assert isinstance(report, dict)
    assert report["ok"] is True
    names = [check["name"] for check in report["checks"]]
    assert {"interpreter", "uv", "home", "server", "port", "names", "caddy", "ray"} <= set(names)
    lines = machine.run("doctor").stdout.splitlines()
    assert [line.split(":")[0][2:] for line in lines if not line.startswith(" ")] == names
    server = next(check["text"] for check in report["checks"] if check["name"] == "server")
    assert server.startswith("running on" if running else "not running")


def test_doctor_names_what_is_broken(machine: Machine) -> None:
    """And its exit code says so."""
    machine.home.write_text("not a folder")
    done = machine.run("doctor", code=1)
    assert "✗ home" in done.stdout
    assert json.loads(machine.run("doctor", "--json", code=1).stdout)["ok"] is False


# -- the command line itself ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], ["serve"], ["deploy"], ["app"], ["app", "logs"], ["up"], ["down"], ["doctor"]])
def test_help(shared: Machine, command: list[str], option: str) -> None:
    """For each command, on stdout."""
    assert shared.run(*command, option).stdout.startswith(f"Usage: {' '.join(['portico', *command])} ")


def test_version(shared: Machine) -> None:
    """One line."""
    assert shared.run("--version").stdout.startswith("portico 0.")


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["serve"], ["deploy"], ["app", "info"], ["app", "nothing"], ["up", "--nothing"], ["serve", "no.py"]],
)
def test_wrong_use_is_exit_code_2(shared: Machine, arguments: list[str]) -> None:
    """With how to use it, on stderr."""
    done = shared.run(*arguments, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: portico")


def test_lines_are_plain_where_nobody_looks(shared: Machine) -> None:
    """No colours and no moving display in a pipe."""
    shared.env.pop("NO_COLOR")
    try:
        shared.write("plain.py", APP.format(name="plain", word="x", options="gpu='T4'"))
        done = shared.run("deploy", "plain.py", "--allow-missing-gpu")
        assert "\x1b" not in done.stdout + done.stderr
    finally:
        shared.env["NO_COLOR"] = "1"


def test_no_color_is_respected_on_a_terminal(shared: Machine) -> None:
    """Also in an error."""
    assert "\x1b" not in on_a_terminal(shared, "app", "info", "nobody", answer="")[1]


def test_the_modal_command_is_portico(shared: Machine) -> None:
    """From the distribution portico-modal."""
    script = os.path.join(os.path.dirname(sys.executable), "modal")
    done = subprocess.run([script, "app", "list", "--json"], env=shared.env, capture_output=True, text=True, timeout=40)
    assert isinstance(json.loads(done.stdout), list)


# -- interrupted ------------------------------------------------------------------------------------------------------
def test_ctrl_c_during_a_deploy_leaves_nothing_half_done(shared: Machine) -> None:
    """Exit code 130; the old version stays, also in the history, and no container of the new one is left."""
    url = deploy(shared, "steady", "old")
    gate = shared.folder.parent / "gate"
    waits = (
        "import modal, time, pathlib\n"
        f"gate = pathlib.Path({str(gate)!r})\n"
        "if not modal.is_local():\n    gate.with_suffix('.begun').touch()\n"
        "    while not gate.exists():\n        time.sleep(0.01)\n"
    )
    shared.write("steady.py", waits + APP.format(name="steady", word="new", options=""))
    before = len(shared.containers())
    process = shared.start("deploy", "steady.py")
    wait_until(gate.with_suffix(".begun").exists, "the new version's container starts")
    assert process.interrupt() == 130
    wait_until(lambda: len(shared.containers()) <= before, "its container has ended")
    assert shared.request(url).json == "old"
    assert shared.app("steady")["version"] == 1
    gate.touch()
    assert "version" in str(as_json(shared, "deploy", "steady.py"))
    assert shared.request(url).json == "new"


def test_ctrl_c_during_the_reading_of_a_file(shared: Machine) -> None:
    """Exit code 130, and the file's process has ended."""
    begun = shared.folder.parent / "reading.begun"
    text = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\nwhile True:\n    time.sleep(0.01)\n"
    shared.write("endless.py", text)
    process = shared.start("deploy", "endless.py")
    wait_until(begun.exists, "the file is read")
    assert process.interrupt() == 130
    wait_until(lambda: not [p for p in shared.leftovers() if "reader" in p], "the reader has ended")
