"""`portico config`: what the commands go by."""

from __future__ import annotations

import json
import os

import click

from portico.cli.terminal import Terminal
from portico.client.connect import connect, current_profile
from portico.client.profiles import Profiles, config_path
from portico.client.remote import Remote
from portico.model import errors
from portico.model.naming import check_environment


@click.group(short_help="Show what the commands go by; change the profile's environment.")
def config() -> None:
    """What the commands go by: variables of the environment first, then the active profile."""


@config.command("show")
def config_show() -> None:
    """Show it, as JSON, without secrets."""
    profile = current_profile(os.environ)
    client = connect()
    remote = client.address if isinstance(client.address, Remote) else None
    shown = {
        "config_path": str(config_path(os.environ)),
        "profile": profile.name if profile else None,
        "server_url": remote.url if remote else None,
        "control_socket": None if remote else str(client.address),
        "token_id": remote.token.partition(".")[0] if remote and remote.token else None,
        "environment": client.environment,
    }
    Terminal.standard().result(json.dumps(shown, indent=2))


@config.command("set-environment")
@click.argument("name")
def config_set_environment(name: str) -> None:
    """Have the current profile mean the environment NAME."""
    profile = current_profile(os.environ)
    if profile is None:
        raise errors.InvalidError("No profile is active.", hint="Without one, PORTICO_ENVIRONMENT says it.")
    Profiles(config_path(os.environ)).change(profile.name, {"environment": check_environment(name)})
    Terminal.standard().result(f"✓ The profile {profile.name} means the environment {name}.")
