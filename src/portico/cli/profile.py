"""`portico profile`: which server the commands talk to."""

from __future__ import annotations

import json
import os

import click

from portico.cli import options
from portico.cli.terminal import Terminal, table
from portico.client.profiles import Profiles, config_path


@click.group(short_help="Which server the commands talk to.")
def profile() -> None:
    """Profiles: servers on other machines, as `portico token set` keeps them. Without an active one: this machine's."""


@profile.command("list")
@options.as_json
def profile_list(as_json: bool) -> None:
    """List the profiles, without their secrets."""
    terminal = Terminal.standard()
    profiles = Profiles(config_path(os.environ))
    current = profiles.current(os.environ)
    found = profiles.all()
    if as_json:
        shown = [
            {
                "name": one.name,
                "server_url": one.server_url,
                "token_id": one.token_id,
                "environment": one.environment,
                "active": one == current,
            }
            for one in found
        ]
        terminal.result(json.dumps(shown))
    elif found:
        rows = [
            [
                "*" if one == current else "",
                one.name,
                one.server_url or "-",
                one.token_id or "-",
                one.environment or "main",
            ]
            for one in found
        ]
        terminal.result(table(["", "NAME", "SERVER", "TOKEN", "ENVIRONMENT"], rows))
    else:
        terminal.note(f"There is no profile in {profiles.path}: the commands use this machine's server.")


@profile.command("activate")
@click.argument("name")
def profile_activate(name: str) -> None:
    """Have all commands use the profile NAME from now on."""
    Profiles(config_path(os.environ)).activate(name)
    Terminal.standard().result(f"✓ The profile {name} is active.")


@profile.command("deactivate")
def profile_deactivate() -> None:
    """Have all commands use this machine's server again."""
    Profiles(config_path(os.environ)).deactivate()
    Terminal.standard().result("✓ The commands use this machine's server.")


@profile.command("current")
def profile_current() -> None:
    """Say which profile the commands use; nothing where they use this machine's server."""
    terminal = Terminal.standard()
    current = Profiles(config_path(os.environ)).current(os.environ)
    if current is None:
        terminal.note("No profile is active: the commands use this machine's server.")
    else:
        terminal.result(current.name)
