"""`portico app`: what is deployed or served."""

from __future__ import annotations

import click

from portico.cli.lazy import LazyGroup, Verb

_VERBS = {
    "list": Verb("portico.cli.app_list:app_list", "List the apps."),
    "info": Verb("portico.cli.app_info:app_info", "Show an app's functions, URLs and containers."),
    "logs": Verb("portico.cli.app_logs:app_logs", "Show what an app's containers print."),
    "stop": Verb("portico.cli.app_stop:app_stop", "Stop an app for good."),
    "history": Verb("portico.cli.app_history:app_history", "List an app's versions."),
    "rollback": Verb("portico.cli.app_rollback:app_rollback", "Go back to an earlier version."),
}


@click.group(cls=LazyGroup, verbs=_VERBS, short_help="List, look at, stop and roll back apps.")
def app() -> None:
    """Apps that are deployed or served. APP is a name, or an id as `portico app list` shows it."""
