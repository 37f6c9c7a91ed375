"""`portico app stop`."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal
from portico.client.connect import connect


@click.command("stop")
@click.argument("app")
@options.environment
@options.yes
@options.as_json
def app_stop(app: str, environment: str | None, yes: bool, as_json: bool) -> None:
    """Stop APP for good: its URLs answer 404 until it is deployed again."""
    terminal = Terminal.standard()
    client = connect(environment)
    found = client.app(app)
    options.confirm(f"Stop the app {found.name} ({found.id}) for good?", yes)
    info = client.stop_app(found.id)
    if as_json:
        terminal.result(msgspec.json.encode(info).decode())
    else:
        terminal.result(f"✓ App {info.name} is stopped.")
