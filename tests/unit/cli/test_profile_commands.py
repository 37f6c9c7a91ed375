"""`portico profile`, `portico config` and `portico token set`, without any server."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.unit.cli.test_commands import run

SET = ("token", "set", "--token-id", "ak-1", "--token-secret", "as-hidden", "--no-verify")


@pytest.fixture
def config(settings) -> Path:
    """Where profiles are."""
    return Path(os.environ["PORTICO_CONFIG_PATH"])


def shown() -> dict[str, object]:
    """What `config show` says."""
    return json.loads(run("config", "show").stdout)


def test_two_profiles(config: Path) -> None:
    """The one that was set last is active, until another one is; without one, this machine's server is meant."""
    assert run(*SET, "--server-url", "http://10.0.0.1:7777").returncode == 0
    assert run(*SET, "--server-url", "https://b.example/", "--profile", "b", "--env", "staging").returncode == 0
    listed = json.loads(run("profile", "list", "--json").stdout)
    assert [(p["name"], p["server_url"], p["active"]) for p in listed] == [
        ("10.0.0.1", "http://10.0.0.1:7777", False),
        ("b", "https://b.example", True),
    ]
    assert run("profile", "current").stdout == "b\n"
    assert (shown()["server_url"], shown()["environment"], shown()["token_id"]) == (
        "https://b.example",
        "staging",
        "ak-1",
    )
    run("profile", "activate", "10.0.0.1")
    assert (shown()["profile"], shown()["environment"]) == ("10.0.0.1", "main")
    run("config", "set-environment", "testing")
    assert shown()["environment"] == "testing"
    run("profile", "deactivate")
    assert shown()["server_url"] is None
    assert "this machine's server" in run("profile", "current").stderr


def test_no_command_shows_a_secret(config: Path) -> None:
    """It is in the file, and nowhere else."""
    run(*SET, "--server-url", "http://10.0.0.1:7777")
    assert "as-hidden" in config.read_text()
    for words in (("profile", "list"), ("profile", "list", "--json"), ("config", "show"), ("app", "list")):
        done = run(*words)
        assert "as-hidden" not in done.stdout + done.stderr


def test_a_new_secret_for_the_same_server(config: Path) -> None:
    """The URL need not be said again; comments in the file stay."""
    run(*SET, "--server-url", "http://10.0.0.1:7777")
    config.write_text("# mine\n" + config.read_text())
    assert run("token", "set", "--token-id", "ak-2", "--token-secret", "as-2", "--no-verify").returncode == 0
    assert config.read_text().startswith("# mine\n")
    assert shown()["token_id"] == "ak-2"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (SET, 2, "--server-url"),
        ((*SET, "--server-url", "b.example"), 1, "--server-url is not a server's URL"),
        (
            ("token", "set", "--token-id", "wk-1", "--token-secret", "ws-1", "--server-url", "http://b"),
            1,
            "no token of",
        ),
        (("profile", "activate", "nothing"), 1, "no profile 'nothing'"),
        (("config", "set-environment", "staging"), 1, "No profile is active"),
        (("token", "new", "--expires-in", "soon"), 2, "90d"),
    ],
)
def test_bad_input_is_named(config: Path, words: tuple[str, ...], code: int, said: str) -> None:
    """And no file is made."""
    done = run(*words)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert not config.exists()
