"""Options that several verbs share, and the question before what cannot be undone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from portico.model import errors
from portico.model.naming import check_environment, check_object_name
from portico.wire.reading import ReadRequest

_F = TypeVar("_F", bound=Callable[..., Any])


def _environment_name(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return value and check_environment(value)
    except errors.InvalidError as error:
        raise click.BadParameter(f"{error.message} {error.hint}") from None


def _object_name(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return value and check_object_name(value, "app")
    except errors.InvalidError as error:
        raise click.BadParameter(f"{error.message} {error.hint}") from None


def _existing(ctx: click.Context, _: click.Parameter, value: str) -> str:
    if not ctx.params.get("module"):
        path = value.partition("::")[0]
        if not os.path.isfile(path):
            raise click.BadParameter(f"no such file: {path}")
    return value


def reference(command: _F) -> _F:
    """The argument REF with its -m, and --name."""
    for option in (
        click.argument("ref", callback=_existing),
        click.option("-m", "module", is_flag=True, is_eager=True, help="REF is a module: pkg.mod or pkg.mod::app."),
        click.option("-n", "--name", callback=_object_name, metavar="NAME", help="Call the app this."),
    ):
        command = option(command)
    return command


environment = click.option(
    "-e",
    "--env",
    "environment",
    callback=_environment_name,
    metavar="NAME",
    help="The environment; without it, the one that PORTICO_ENVIRONMENT names, or main.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")
timestamps = click.option("--timestamps", is_flag=True, help="Put the time before each log line.")
yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def read_request(ref: str, module: bool, name: str | None) -> ReadRequest:
    """What the reader is asked, from here."""
    return ReadRequest(ref=ref, module=module, cwd=os.getcwd(), name=name)


def confirm(question: str, sure: bool) -> None:
    """Return if the user is sure; otherwise ask. Without a terminal to ask on: InvalidError."""
    if sure:
        return
    if not sys.stdin.isatty():
        raise errors.InvalidError(f"There is no terminal to ask on: {question}", hint="Pass --yes to go ahead.")
    if not click.confirm(question, err=True):
        raise click.exceptions.Exit(1)
