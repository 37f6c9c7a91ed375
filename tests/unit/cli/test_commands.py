"""The command as users run it: output, exit codes, and what they are told when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from portico.cli import main as cli_main


def run(*arguments: str, cwd=None, **variables: str) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "portico", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        cwd=cwd,
        env=os.environ | variables,
    )


def test_help_names_every_verb():
    """The help lists the verbs without importing them."""
    done = run("-h")
    assert done.returncode == 0
    for verb in ("serve", "deploy", "app", "up", "down", "doctor"):
        assert f"  {verb} " in done.stdout


def test_help_is_light():
    """Neither rich nor the server nor an HTTP library is imported to show the help."""
    code = (
        "import sys; from portico.cli.main import run; run(['--help']);"
        "print([m for m in ('rich', 'starlette', 'watchfiles', 'asyncio', 'portico.server.main') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_verb_can_be_imported():
    """The table of verbs names what exists."""
    for arguments in (["serve"], ["deploy"], ["down"], ["doctor"], ["app", "list"], ["app", "rollback"]):
        assert cli_main.run([*arguments, "--help"]) == 0


@pytest.mark.parametrize("arguments", [["nonsense"], ["app", "nonsense"], ["serve"], ["serve", "none.py"], ["-x"]])
def test_wrong_use_is_2(arguments):
    """What cannot be understood is exit code 2."""
    assert run(*arguments).returncode == 2


def test_no_server_is_1_with_a_hint(settings):
    """An error is one line and a hint, on stderr."""
    done = run("app", "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: No Portico server is running.\nHint: Start one with `portico up`.\n"


def test_unexpected_errors_have_no_traceback(monkeypatch, capsys):
    """A fault of ours is one line; PORTICO_TRACEBACK=1 shows where it comes from."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(cli_main.cli, "main", broken)
    monkeypatch.delenv("PORTICO_TRACEBACK", raising=False)
    assert cli_main.run([]) == 1
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert "PORTICO_TRACEBACK=1" in text
    monkeypatch.setenv("PORTICO_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        cli_main.run([])


def test_ctrl_c_is_130(monkeypatch):
    """An interrupted command says so in its exit code."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_main.cli, "main", interrupted)
    assert cli_main.run([]) == 130


def test_bad_settings_are_1(settings):
    """A variable that makes no sense is named."""
    done = run("app", "list", PORTICO_LISTEN="nonsense")
    assert done.returncode == 1
    assert "PORTICO_LISTEN" in done.stderr


def test_an_impossible_environment_is_used_wrongly(settings):
    """A name that no environment can have is a mistake of the command line's."""
    done = run("app", "list", "-e", "a/b")
    assert done.returncode == 2
    assert "Invalid environment name: 'a/b'" in done.stderr


def leaves(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """All commands below a group, with what is written on the command line."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, *path, name)
        else:
            yield " ".join((*path, name)), command


def test_every_command_about_apps_takes_an_environment():
    """Those that do not are about the server, this machine, or all environments."""
    without = {name for name, command in leaves(cli_main.cli) if not any("-e" in p.opts for p in command.params)}
    about = {name.partition(" ")[0] for name in without}
    machine = {"up", "down", "doctor", "profile", "config"}
    assert about == machine | {"domain", "token", "proxy-token", "environment", "workspace"}
    assert {name for name, _ in leaves(cli_main.cli)} - without >= {"deploy", "serve", "run", "workspace set"}


def test_environment_verbs(stub):
    """`environment` makes, lists, changes and deletes them; deleting asks first."""
    assert "begin with acme-staging--" in run("environment", "create", "staging").stdout
    assert "begin with acme-s--" in run("environment", "update", "staging", "--set-web-suffix", "s").stdout
    listed = json.loads(run("environment", "list", "--json").stdout)
    assert [(e["name"], e["web_suffix"], e["label"]) for e in listed] == [
        ("main", "", "acme"),
        ("staging", "s", "acme-s"),
    ]
    assert "staging  s           acme-s--…" in run("environment", "list").stdout
    refused = run("environment", "delete", "staging")
    assert (refused.returncode, "Pass --yes" in refused.stderr) == (1, True)
    assert run("environment", "delete", "staging", "--yes").returncode == 0
    assert "no environment 'staging'" in run("environment", "delete", "staging", "--yes").stderr


def test_an_update_without_a_change_is_used_wrongly(settings):
    """It says what can be changed."""
    done = run("environment", "update", "staging")
    assert done.returncode == 2
    assert "--set-name or --set-web-suffix" in done.stderr


def test_deploy_json_is_all_of_stdout(stub, project):
    """With --json there is one object on stdout; what the user's file prints goes to stderr."""
    (project / "seed.py").write_text((project / "seed.py").read_text() + "\nprint('noise')\n")
    done = run("deploy", "seed.py", "--json", cwd=project)
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    url = "http://acme--seed-square.localhost:0"
    assert answer == {
        "app": "seed",
        "version": 1,
        "endpoints": [{"function": "square", "url": url, "protected": False, "custom_urls": []}],
        "unchanged": False,
    }
    assert list(answer)[:3] == ["app", "version", "endpoints"]
    assert "noise" in done.stderr


def test_deploy_ends_with_its_urls(stub, project):
    """Without it, a line for each endpoint, and one that it is done."""
    done = run("deploy", "seed.py", "--name", "other", cwd=project)
    assert done.stdout.splitlines() == [
        "Created web function square => http://acme--other-square.localhost:0",
        "✓ App deployed in 0.500s!",
    ]


def test_deploy_of_a_broken_file(stub, project):
    """The user's traceback comes first, then a line that names the file; nothing reaches the server."""
    (project / "seed.py").write_text("import modal\n1/0\n")
    done = run("deploy", "seed.py", cwd=project)
    assert (done.returncode, done.stdout) == (1, "")
    assert "    1/0" in done.stderr
    assert "portico/" not in done.stderr
    assert "Error: seed.py: ZeroDivisionError" in done.stderr
    assert stub.apps() == []


def test_deploy_without_a_name(stub, project):
    """An app needs a name to stay."""
    (project / "seed.py").write_text("import modal\napp = modal.App()\n")
    done = run("deploy", "seed.py", cwd=project)
    assert done.returncode == 1
    assert "--name" in done.stderr


@pytest.mark.parametrize("option", [["--name", "no/slash"], ["--tag", "no space"], ["--strategy", "hope"]])
def test_deploy_with_bad_options(project, option):
    """Bad names, tags and strategies are wrong use."""
    assert run("deploy", "seed.py", *option, cwd=project).returncode == 2


def test_app_list_json(stub, project):
    """A list of objects, empty without apps."""
    assert json.loads(run("app", "list", "--json").stdout) == []
    run("deploy", "seed.py", cwd=project)
    (app,) = json.loads(run("app", "list", "--json").stdout)
    assert (app["name"], app["state"], app["version"]) == ("seed", "deployed", 1)
    assert "seed" in run("app", "list").stdout


def test_app_info_history_and_logs(stub, project):
    """The other ways to look at an app."""
    run("deploy", "seed.py", cwd=project)
    assert "http://acme--seed-square.localhost:0" in run("app", "info", "seed").stdout
    assert json.loads(run("app", "info", "seed", "--json").stdout)["name"] == "seed"
    assert json.loads(run("app", "history", "seed", "--json").stdout)[0]["current"] is True
    assert "current" in run("app", "history", "seed").stdout
    assert run("app", "logs", "seed").stdout == "[square] hello from inside\n"
    assert json.loads(run("app", "logs", "seed", "--json").stdout)["line"] == "hello from inside"
    assert run("app", "info", "none").returncode == 1


def test_destructive_commands_ask(stub, project):
    """Without a terminal to ask on, they do nothing and name --yes."""
    run("deploy", "seed.py", cwd=project)
    for arguments in (["app", "stop", "seed"], ["app", "rollback", "seed"]):
        done = run(*arguments)
        assert done.returncode == 1
        assert "--yes" in done.stderr
    assert [app.name for app in stub.apps()] == ["seed"]


def test_yes_skips_the_question(stub, project):
    """With --yes they act."""
    run("deploy", "seed.py", cwd=project)
    assert run("app", "rollback", "seed", "v1", "--yes", "--json").returncode == 0
    assert run("app", "stop", "seed", "-y").returncode == 0
    assert stub.apps() == []


def test_rollback_to_nonsense(settings):
    """A version is a number, with or without a v."""
    assert run("app", "rollback", "seed", "last").returncode == 2


def test_down(stub, settings):
    """The server ends before the command does; a second time there is nothing to end."""
    done = run("down")
    assert (done.returncode, done.stderr) == (0, "The server has ended.\n")
    assert not settings.control_socket.exists()
    assert run("down").stderr == "No Portico server is running.\n"


def test_following_logs_ends_with_ctrl_c(stub, project, portico):
    """`app logs -f` goes on until Ctrl-C, which is exit code 130."""
    run("deploy", "seed.py", cwd=project)
    command = portico("app", "logs", "seed", "-f")
    command.wait_for("hello from inside")
    command.interrupt()
    assert command.end() == 130


def test_doctor_json(settings):
    """Every check says how it is; the exit code is 0 where nothing is broken."""
    done = run("doctor", "--json")
    answer = json.loads(done.stdout)
    names = {check["name"] for check in answer["checks"]}
    assert {"interpreter", "uv", "home", "port", "server", "names", "caddy", "ray"} <= names
    assert answer["ok"] == all(check["state"] != "broken" for check in answer["checks"])
    assert done.returncode == (0 if answer["ok"] else 1)
