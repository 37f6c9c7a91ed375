"""`portico workspace`: what holds for all endpoints."""

from __future__ import annotations

import click

from portico.cli.lazy import LazyGroup, Verb

_VERBS = {
    "set": Verb("portico.cli.workspace_set:workspace_set", "Set who may call endpoints, and how much."),
    "settings": Verb("portico.cli.workspace_settings:workspace_settings", "Show what is set."),
}


@click.group(cls=LazyGroup, verbs=_VERBS, short_help="Set who may call endpoints, and how much.")
def workspace() -> None:
    """Settings for all endpoints, or for those of an environment, an app or a function."""
