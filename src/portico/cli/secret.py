"""`portico secret`: environment variables that the server keeps for functions."""

from __future__ import annotations

import click

from portico.cli.lazy import LazyGroup, Verb

_VERBS = {
    "create": Verb("portico.cli.secret_create:secret_create", "Keep variables under a name."),
    "list": Verb("portico.cli.secret_list:secret_list", "List the secrets, without their values."),
    "delete": Verb("portico.cli.secret_delete:secret_delete", "Forget a secret."),
}


@click.group(cls=LazyGroup, verbs=_VERBS, short_help="Keep environment variables for functions.")
def secret() -> None:
    """Secrets: variables for functions that name them with `modal.Secret.from_name(NAME)`."""
