"""`portico app info`."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal, minute, table
from portico.client.control import ControlClient
from portico.client.settings import load_settings


@click.command("info")
@click.argument("app")
@options.environment
@options.as_json
def app_info(app: str, as_json: bool) -> None:
    """Show APP: its functions, their URLs, their containers and requests."""
    terminal = Terminal.standard()
    info = ControlClient(load_settings().control_socket).app(app)
    if as_json:
        terminal.result(msgspec.json.encode(info).decode())
        return
    version = f", version {info.version}" if info.version else ""
    terminal.result(f"{info.name} ({info.id}): {info.state}{version}, created {minute(info.created_at)}")
    if info.functions:
        rows = [[f.name, str(f.containers), str(f.running), str(f.queued), f.url or "-"] for f in info.functions]
        terminal.result(table(["FUNCTION", "CONTAINERS", "RUNNING", "QUEUED", "URL"], rows))
