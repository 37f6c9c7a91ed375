"""`portico app info`."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal, marked, marked_domains, minute, table
from portico.client.connect import connect


@click.command("info")
@click.argument("app")
@options.environment
@options.as_json
def app_info(app: str, environment: str | None, as_json: bool) -> None:
    """Show APP: its functions, their URLs, their containers and requests."""
    terminal = Terminal.standard()
    info = connect(environment).app(app)
    if as_json:
        terminal.result(msgspec.json.encode(info).decode())
        return
    version = f", version {info.version}" if info.version else ""
    terminal.result(f"{info.name} ({info.id}): {info.state}{version}, created {minute(info.created_at)}")
    if info.functions:
        rows = []
        for f in info.functions:
            rows.append([f.name, str(f.containers), str(f.running), str(f.queued), marked(f) if f.url else "-"])
            rows += [["", "", "", "", url] for url in marked_domains(f)]
        terminal.result(table(["FUNCTION", "CONTAINERS", "RUNNING", "QUEUED", "URL"], rows))
