"""`portico domain`, on the API's double: its names lead nowhere, and are to have one A record."""

from __future__ import annotations

import json

import pytest

from portico.client.control import ControlClient
from tests.unit.cli.test_commands import run


def test_a_domain_is_added_with_its_records(stub: ControlClient) -> None:
    """The records on stdout; what is wrong is a warning, with the command that looks again."""
    done = run("domain", "add", "*.Example.com")
    assert done.returncode == 0
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["TYPE", "NAME", "VALUE"],
        ["A", "*.example.com", "192.0.2.7"],
    ]
    assert "Warning: *.example.com leads nowhere yet." in done.stderr
    assert "portico domain check '*.example.com'" in done.stderr
    assert [domain.name for domain in stub.domains()] == ["*.example.com"]


@pytest.mark.usefixtures("stub")
def test_a_check_that_fails_is_exit_code_1() -> None:
    """In both forms."""
    run("domain", "add", "a.example.com")
    assert run("domain", "check", "a.example.com").returncode == 1
    done = run("domain", "check", "a.example.com", "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (1, "missing")


@pytest.mark.usefixtures("stub")
def test_domains_are_listed_and_removed() -> None:
    """As a table and as JSON; an empty list is said in words, or is []."""
    assert "There is no custom domain" in run("domain", "list").stderr
    assert json.loads(run("domain", "list", "--json").stdout) == []
    added = json.loads(run("domain", "add", "a.example.com", "--json").stdout)
    assert (added["name"], added["dns"]["verdict"]) == ("a.example.com", "missing")
    head, row = run("domain", "list").stdout.splitlines()
    assert head.split() == ["NAME", "REGISTERED", "BY", "USED", "BY", "CERTIFICATE"]
    assert row.split()[0] == "a.example.com"
    assert run("domain", "remove", "a.example.com").stdout == "✓ Domain a.example.com is removed.\n"
    assert run("domain", "remove", "a.example.com").returncode == 1


def test_what_is_no_domain_needs_no_server(settings) -> None:
    """It is refused before anybody is asked."""
    done = run("domain", "add", "https://example.com")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: Not a domain name: 'https://example.com': leave out the scheme.")
