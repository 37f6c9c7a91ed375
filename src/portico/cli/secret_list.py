"""`portico secret list`."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal, minute, table
from portico.client.connect import connect


@click.command("list")
@options.environment
@options.as_json
def secret_list(environment: str | None, as_json: bool) -> None:
    """List the secrets of an environment, by name. Nothing tells their values."""
    terminal = Terminal.standard()
    client = connect(environment)
    secrets = client.secrets()
    if as_json:
        terminal.result(msgspec.json.encode(secrets).decode())
    elif secrets:
        rows = [[secret.name, minute(secret.created_at), minute(secret.updated_at)] for secret in secrets]
        terminal.result(table(["NAME", "CREATED", "UPDATED"], rows))
    else:
        terminal.note(f"There is no secret in the environment {client.environment}.")
