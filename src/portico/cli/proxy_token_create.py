"""`portico proxy-token create`."""

from __future__ import annotations

import re

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal
from portico.client.connect import connect
from portico.model.errors import InvalidError
from portico.model.policy import parse_rate
from portico.wire.control import ProxyTokenRequest

_DURATION = re.compile(r"(\d{1,9})([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = _DURATION.fullmatch(value)
    if found is None or not int(found[1]):
        raise click.BadParameter("a number of seconds, or one with s, m, h or d behind it: 90d")
    return float(int(found[1]) * _UNITS[found[2]])


def _rate(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_rate(value, "a rate limit")
    except InvalidError as error:
        raise click.BadParameter(error.message) from None


@click.command("create")
@click.option("--expires-in", callback=_seconds, metavar="TIME", help="For how long it is valid: 3600, 12h, 90d.")
@click.option("-e", "--env", "environments", multiple=True, metavar="NAME", help="Only for this environment.")
@click.option("--endpoint", "endpoints", multiple=True, metavar="APP/FUNCTION", help="Only for this endpoint, or APP.")
@click.option("--rate-limit", callback=_rate, metavar="N", help="At most so many requests a second with it.")
@options.as_json
def proxy_token_create(
    expires_in: float | None,
    environments: tuple[str, ...],
    endpoints: tuple[str, ...],
    rate_limit: float | None,
    as_json: bool,
) -> None:
    """Make a proxy token. Its secret is shown now, and never again."""
    terminal = Terminal.standard()
    request = ProxyTokenRequest(
        expires_in=expires_in, environments=list(environments), endpoints=list(endpoints), rate_limit=rate_limit
    )
    made = connect().create_proxy_token(request)
    if as_json:
        terminal.result(msgspec.json.encode(made).decode())
        return
    terminal.result(f"Modal-Key: {made.id}\nModal-Secret: {made.secret}")
    terminal.note(
        f"Or as a bearer token: Authorization: Bearer {made.id}.{made.secret}\nKeep the secret: nothing shows it again."
    )
