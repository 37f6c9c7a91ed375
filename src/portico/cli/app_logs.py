"""`portico app logs`."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal
from portico.client.connect import connect
from portico.wire.control import LogLine


@click.command("logs")
@click.argument("app")
@options.environment
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the app ends.")
@click.option("-n", "--tail", type=click.IntRange(0, 100_000), default=100, help="How many lines there are to start.")
@click.option("--function", metavar="NAME", help="Of this function only.")
@options.timestamps
@options.as_json
def app_logs(
    app: str,
    environment: str | None,
    follow: bool,
    tail: int,
    function: str | None,
    timestamps: bool,
    as_json: bool,
) -> None:
    """Show what the containers of APP have printed; with --json, one object a line."""
    terminal = Terminal.standard()
    client = connect(environment)
    with client.logs(app, follow=follow, tail=tail, function=function) as events:
        for event in events:
            if not isinstance(event, LogLine):
                continue
            if as_json:
                terminal.result(msgspec.json.encode(event).decode())
            else:
                terminal.log(event, timestamps=timestamps)
