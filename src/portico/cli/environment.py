"""`portico environment`: groups of apps, each with URLs and secrets of its own."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal, minute, table
from portico.client.connect import connect
from portico.model import errors
from portico.wire.control import EnvironmentChange


@click.group(short_help="Environments: apps that know nothing of each other.")
def environment() -> None:
    """Environments: each has apps, URLs and secrets of its own. `main` is always there."""


@environment.command("list")
@options.as_json
def environment_list(as_json: bool) -> None:
    """List the environments, with what their URLs begin with."""
    terminal = Terminal.standard()
    found = connect().environments()
    if as_json:
        terminal.result(msgspec.json.encode(found).decode())
        return
    rows = [[e.name, e.web_suffix or "-", f"{e.label}--…", str(e.apps), minute(e.created_at)] for e in found]
    terminal.result(table(["NAME", "WEB SUFFIX", "LABELS", "APPS", "CREATED"], rows))


@environment.command("create")
@click.argument("name")
@click.option("--web-suffix", metavar="SUFFIX", help="What follows the workspace in its URLs; without it, the name.")
def environment_create(name: str, web_suffix: str | None) -> None:
    """Make the environment NAME."""
    made = connect().create_environment(name, web_suffix)
    Terminal.standard().result(f"✓ Environment {made.name} is there; its URLs begin with {made.label}--")


@environment.command("update")
@click.argument("name")
@click.option("--set-name", metavar="NAME", help="Call it this.")
@click.option("--set-web-suffix", metavar="SUFFIX", help='Put this after the workspace in its URLs; "" for nothing.')
def environment_update(name: str, set_name: str | None, set_web_suffix: str | None) -> None:
    """Give the environment NAME another name, or its apps other URLs; at once, and the old ones end."""
    if set_name is None and set_web_suffix is None:
        raise click.UsageError("say what to change: --set-name or --set-web-suffix.")
    made = connect().change_environment(name, EnvironmentChange(name=set_name, web_suffix=set_web_suffix))
    Terminal.standard().result(f"✓ Environment {made.name} is changed; its URLs begin with {made.label}--")


@environment.command("delete")
@click.argument("name")
@options.yes
def environment_delete(name: str, yes: bool) -> None:
    """Delete the environment NAME for good, with its apps, their versions and its secrets. Running apps are stopped."""
    client = connect()
    found = next((known for known in client.environments() if known.name == name), None)
    if found is None:
        raise errors.NotFoundError(f"There is no environment {name!r}.", hint="See `portico environment list`.")
    running = {0: "", 1: " and stop the app that runs in it"}.get(found.apps, f" and stop the {found.apps} apps in it")
    options.confirm(f"Delete the environment {name}{running}?", yes)
    client.delete_environment(name, stop_apps=True)
    Terminal.standard().result(f"✓ Environment {name} is deleted.")
