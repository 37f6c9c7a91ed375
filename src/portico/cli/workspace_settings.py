"""`portico workspace settings`."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal, table
from portico.client.connect import connect
from portico.wire.control import SettingInfo


@click.command("settings")
@options.as_json
def workspace_settings(as_json: bool) -> None:
    """Show what is set, the widest scopes first, and what holds where nothing is."""
    terminal = Terminal.standard()
    found = connect().settings()
    if as_json:
        terminal.result(msgspec.json.encode(found).decode())
        return
    rows = [["(default)", setting, value] for setting, value in found.defaults.items()]
    rows += [[_place(entry), entry.setting, entry.value or ""] for entry in found.settings]
    terminal.result(table(["FOR", "SETTING", "VALUE"], rows))


def _place(entry: SettingInfo) -> str:
    return "/".join(name for name in (entry.environment, entry.app, entry.function) if name) or "the workspace"
