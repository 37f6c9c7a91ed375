"""`portico secret create`."""

from __future__ import annotations

import getpass
import json
import os
import sys
from pathlib import Path

import click
import msgspec

from portico.cli import options
from portico.cli.spawn import Attachment
from portico.cli.terminal import Terminal
from portico.client.connect import connect
from portico.client.settings import load_settings
from portico.model.errors import InvalidError
from portico.model.variables import check_key, check_secret
from portico.sdk.dotenv import parse_dotenv

_ASK = "-"  # KEY=-
_MAX_FILE = 64 << 20  # bytes


def _file(_: click.Context, __: click.Parameter, value: str | None) -> Path | None:
    if value is not None and not os.path.isfile(value):
        raise click.BadParameter(f"no such file: {value}")
    return None if value is None else Path(value)


@click.command("create")
@click.argument("name")
@click.argument("variables", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--from-dotenv", callback=_file, metavar="FILE", help="Take the variables of a .env file.")
@click.option("--from-json", callback=_file, metavar="FILE", help="Take the variables of a JSON object of strings.")
@click.option("--force", is_flag=True, help="Replace the secret of this name, with all that it has.")
@options.environment
@options.as_json
def secret_create(
    name: str,
    variables: tuple[str, ...],
    from_dotenv: Path | None,
    from_json: Path | None,
    force: bool,
    environment: str | None,
    as_json: bool,
) -> None:
    """Keep variables under NAME. KEY=- asks for the value, or reads it from standard input, a line for each.

    Values on a command line are seen by other programs, and kept in the shell's history: KEY=- and files are not.
    """
    terminal = Terminal.standard()
    values = check_secret(name, _from_files(from_dotenv, from_json) | _from_words(variables, name))
    client = connect(environment)
    with Attachment(load_settings(), terminal, own=False, roam=False, client=client) as server:
        server.begin()
        server.ready()
    info = client.write_secret(name, values, replace=force)
    if as_json:
        terminal.result(msgspec.json.encode(info).decode())
        return
    terminal.result(f"✓ Secret {info.name} is kept in the environment {info.environment}: {', '.join(values)}")
    terminal.note(
        "In a function's file: "
        f'@app.function(secrets=[modal.Secret.from_name("{info.name}", required_keys=[{_quoted(values)}])])'
    )


def _from_words(words: tuple[str, ...], name: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise click.UsageError("Variables are written KEY=VALUE; one of them has no '='.")
        check_key(key, f"The secret {name!r}")
        if key in values:
            raise InvalidError(f"The key {key!r} is there twice.")
        values[key] = _ask(key) if value == _ASK else value
    return values


def _ask(key: str) -> str:
    """A value that is on no command line; not shown while it is typed."""
    if sys.stdin.isatty():
        value = getpass.getpass(f"{key}: ", stream=sys.stderr)
    else:
        value = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    if not value:
        raise InvalidError(f"There is no value for {key} on standard input.", hint="A line for each KEY=-.")
    return value


def _from_files(dotenv: Path | None, document: Path | None) -> dict[str, object]:
    values: dict[str, object] = {}
    if dotenv is not None:
        values |= parse_dotenv(_text(dotenv), os.environ)
    if document is not None:
        try:
            found = json.loads(_text(document))
        except ValueError:
            raise InvalidError(f"{document} is not JSON.") from None
        if not isinstance(found, dict):
            raise InvalidError(f"{document} is not a JSON object.", hint='For example {"KEY": "value"}')
        values |= found
    return values


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_FILE:
            raise InvalidError(f"{path} is larger than 64 MiB.")
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise InvalidError(f"{path} is not text in UTF-8.") from None
    except OSError as error:
        raise InvalidError(f"Cannot read {path}: {error.strerror}.") from None


def _quoted(values: dict[str, str]) -> str:
    return ", ".join(f'"{key}"' for key in values)
