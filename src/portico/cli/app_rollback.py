"""`portico app rollback`."""

from __future__ import annotations

import json

import click

from portico.cli import options
from portico.cli.deploy import follow, report, summary
from portico.cli.terminal import Terminal
from portico.client.connect import connect
from portico.wire.control import RollbackRequest


def _number(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    digits = value.removeprefix("v")
    if not (digits.isascii() and digits.isdigit() and int(digits) > 0):
        raise click.BadParameter(f"not a version: {value!r}; one looks like 3, or v3.")
    return int(digits)


@click.command("rollback")
@click.argument("app")
@click.argument("version", required=False, callback=_number)
@options.environment
@options.yes
@options.as_json
def app_rollback(app: str, environment: str | None, version: int | None, yes: bool, as_json: bool) -> None:
    """Deploy VERSION of APP again (default: the one before the current), as a new version."""
    terminal = Terminal.standard()
    client = connect(environment)
    found = client.app(app)
    target = f"version {version}" if version else "the version before"
    options.confirm(f"Roll {found.name} back from version {found.version} to {target}?", yes)
    deployed = follow(client.rollback(found.id, RollbackRequest(version=version)), terminal)
    terminal.result(json.dumps(summary(deployed)) if as_json else report(deployed))
