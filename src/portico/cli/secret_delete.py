"""`portico secret delete`."""

from __future__ import annotations

import click

from portico.cli import options
from portico.cli.terminal import Terminal
from portico.client.connect import connect
from portico.model.errors import NotFoundError


@click.command("delete")
@click.argument("name")
@click.option("--allow-missing", is_flag=True, help="It is no failure when there is no such secret.")
@options.environment
@options.yes
def secret_delete(name: str, allow_missing: bool, environment: str | None, yes: bool) -> None:
    """Forget the secret NAME. Containers that run keep what they have; functions that name it start no new ones."""
    terminal = Terminal.standard()
    client = connect(environment)
    options.confirm(f"Forget the secret {name} of the environment {client.environment}?", yes)
    try:
        client.delete_secret(name)
    except NotFoundError as error:
        if not allow_missing:
            raise
        terminal.note(error.message)
    else:
        terminal.result(f"✓ Secret {name} is forgotten.")
