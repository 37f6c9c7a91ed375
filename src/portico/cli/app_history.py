"""`portico app history`."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal, minute, table
from portico.client.connect import connect
from portico.wire.control import VersionInfo


@click.command("history")
@click.argument("app")
@options.environment
@options.as_json
def app_history(app: str, environment: str | None, as_json: bool) -> None:
    """List the versions of APP, the newest first."""
    terminal = Terminal.standard()
    versions = connect(environment).history(app).versions
    if as_json:
        terminal.result(msgspec.json.encode(versions).decode())
    else:
        head = ["VERSION", "DEPLOYED", "TAG", "FUNCTIONS", ""]
        terminal.result(table(head, [_row(version) for version in versions]))


def _row(version: VersionInfo) -> list[str]:
    notes = ["current"] if version.current else []
    notes += [f"rollback to {version.rollback_of}"] if version.rollback_of else []
    return [
        str(version.version),
        minute(version.created_at),
        version.tag or "-",
        ", ".join(version.functions) or "-",
        ", ".join(notes),
    ]
