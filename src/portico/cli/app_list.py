"""`portico app list`."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal, minute, table
from portico.client.connect import connect


@click.command("list")
@options.environment
@click.option("--all", "everything", is_flag=True, help="Stopped apps, too.")
@options.as_json
def app_list(environment: str | None, everything: bool, as_json: bool) -> None:
    """List the apps, the newest first."""
    terminal = Terminal.standard()
    found = connect(environment).apps()
    apps = [app for app in found if everything or app.state != "stopped"]
    if as_json:
        terminal.result(msgspec.json.encode(apps).decode())
    elif apps:
        rows = [
            [app.name, app.state, str(app.version or "-"), str(len(app.functions)), minute(app.created_at), app.id]
            for app in apps
        ]
        terminal.result(table(["NAME", "STATE", "VERSION", "FUNCTIONS", "CREATED", "ID"], rows))
    else:
        terminal.note("No app is deployed or served.")
