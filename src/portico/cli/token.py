"""`portico token`: tokens of the control API, with which other machines use a server."""

from __future__ import annotations

import os
import re
import sys
from urllib.parse import urlsplit

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal, minute, table
from portico.client.connect import connect
from portico.client.control import ControlClient
from portico.client.profiles import Profiles, config_path
from portico.client.remote import Remote, check_token, check_url
from portico.wire.control import NewToken, TokenInfo

_DURATION = re.compile(r"(\d{1,9})([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = _DURATION.fullmatch(value)
    if found is None or not int(found[1]):
        raise click.BadParameter("a number of seconds, or one with s, m, h or d behind it: 90d")
    return float(int(found[1]) * _UNITS[found[2]])


@click.group(short_help="Tokens with which other machines use this server.")
def token() -> None:
    """Tokens of the control API: `new` on the server's machine, `set` on the one that deploys to it."""


@token.command("new")
@click.option("-n", "--name", default="token", metavar="NAME", help="What to remember it by: a person, a machine.")
@click.option("-e", "--env", "environment", metavar="NAME", help="Only for this environment.")
@click.option("--expires-in", callback=_seconds, metavar="TIME", help="For how long it is valid: 3600, 12h, 90d.")
@options.as_json
def token_new(name: str, environment: str | None, expires_in: float | None, as_json: bool) -> None:
    """Make a token. Its secret is shown now, and never again."""
    terminal = Terminal.standard()
    made = connect().create_token(NewToken(name=name, environment=environment, expires_in=expires_in))
    if as_json:
        terminal.result(msgspec.json.encode(made).decode())
        return
    terminal.result(f"{made.id}\n{made.secret}")
    place = f" --env {made.environment}" if made.environment else ""
    terminal.note(
        "The secret is shown only now. On the machine that is to use this server:\n"
        f"portico token set --server-url http://SERVER:PORT --token-id {made.id}{place}"
    )


@token.command("list")
@options.as_json
def token_list(as_json: bool) -> None:
    """List the tokens, without their secrets."""
    terminal = Terminal.standard()
    found = connect().tokens()
    if as_json:
        terminal.result(msgspec.json.encode(found).decode())
    elif found:
        terminal.result(table(["ID", "NAME", "ENVIRONMENT", "CREATED", "EXPIRES", "LAST USED"], list(map(_row, found))))
    else:
        terminal.note("There is no token: only this machine uses the server.")


@token.command("revoke")
@click.argument("token")
@options.yes
def token_revoke(token: str, yes: bool) -> None:
    """Revoke TOKEN, an id or a name: at once, and what runs on its behalf ends."""
    options.confirm(f"Revoke the token {token}?", yes)
    revoked = connect().revoke_token(token)
    Terminal.standard().result(f"✓ Token {revoked.id} ({revoked.name}) is revoked.")


@token.command("set")
@click.option("--server-url", metavar="URL", help="Where the server is: http://host:port. [required for a new profile]")
@click.option("--token-id", required=True, prompt="Token id", metavar="ID", help="The token's id: ak-…")
@click.option(
    "--token-secret", metavar="SECRET", help="Its secret: as-…; without it, or with -, it is read from stdin."
)
@click.option("-e", "--env", "environment", metavar="NAME", help="The environment that this profile means.")
@click.option("--profile", "name", metavar="NAME", help="The profile to write; without it, the server's host.")
@click.option("--activate/--no-activate", default=True, help="Have all commands use it from now on (default).")
@click.option("--verify/--no-verify", default=True, help="Ask the server first whether it takes the token (default).")
def token_set(
    server_url: str | None,
    token_id: str,
    token_secret: str | None,
    environment: str | None,
    name: str | None,
    activate: bool,
    verify: bool,
) -> None:
    """Keep a token, and the server that it is for, in a profile of this user's."""
    terminal = Terminal.standard()
    profiles = Profiles(config_path(os.environ))
    if server_url is None:
        known = profiles.find(name) if name else profiles.current(os.environ)
        if known is None or known.server_url is None:
            raise click.UsageError("say where the server is: --server-url http://host:port")
        name, server_url = known.name, known.server_url
    url = check_url(server_url, "--server-url")
    secret = _read_secret() if token_secret in (None, "-") else token_secret
    pair = check_token(token_id, secret, "--token-id and --token-secret")
    if verify:
        info = ControlClient(Remote(url, pair)).server()
        terminal.note(f"The server takes it: Portico {info.version}, workspace {info.workspace}, domain {info.domain}.")
    name = name or (urlsplit(url).hostname or "server").replace(":", "-")
    values = {"server_url": url, "token_id": token_id, "token_secret": secret}
    profiles.change(name, values | ({"environment": environment} if environment else {}))
    if activate:
        profiles.activate(name)
    terminal.result(
        f"✓ The token is in the profile {name} in {profiles.path}{', which is active' if activate else ''}."
    )


def _read_secret() -> str:
    """One line, without an echo where somebody types it."""
    if sys.stdin.isatty():
        return str(click.prompt("Token secret", hide_input=True, err=True)).strip()
    return sys.stdin.readline().strip()


def _row(token: TokenInfo) -> list[str]:
    return [
        token.id,
        token.name,
        token.environment or "all",
        minute(token.created_at),
        "never" if token.expires_at is None else minute(token.expires_at),
        "never" if token.last_used_at is None else minute(token.last_used_at),
    ]
