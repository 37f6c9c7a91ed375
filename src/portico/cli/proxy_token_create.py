"""`portico proxy-token create`."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal
from portico.client.connect import connect
from portico.model.errors import InvalidError
from portico.model.policy import parse_rate
from portico.wire.control import ProxyTokenRequest


def _rate(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_rate(value, "a rate limit")
    except InvalidError as error:
        raise click.BadParameter(error.message) from None


@click.command("create")
@options.expires_in
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
