"""`portico app list`."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal, minute, table
from portico.client.connect import connect
from portico.wire.control import AppInfo


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
            [
                *(app.name, app.state, str(app.version or "-"), str(len(app.functions))),
                *(_protected(app), _domains(app), minute(app.created_at), app.id),
            ]
            for app in apps
        ]
        terminal.result(
            table(["NAME", "STATE", "VERSION", "FUNCTIONS", "PROXY AUTH", "DOMAINS", "CREATED", "ID"], rows)
        )
    else:
        terminal.note("No app is deployed or served.")


def _domains(app: AppInfo) -> str:
    """The custom domains that lead to it."""
    urls = [url for function in app.functions for url in function.custom_urls]
    return ", ".join(url.partition("//")[2].partition(":")[0] for url in urls) or "-"


def _protected(app: AppInfo) -> str:
    """Whether its endpoints need a proxy token: all, some, none; "-" where there is no endpoint."""
    states = [function.protected for function in app.functions if function.url is not None]
    if not states:
        return "-"
    return "on" if all(states) else f"{sum(states)} of {len(states)}" if any(states) else "off"
