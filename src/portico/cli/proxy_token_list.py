"""`portico proxy-token list`."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal, minute, table
from portico.client.connect import connect


@click.command("list")
@options.as_json
def proxy_token_list(as_json: bool) -> None:
    """List the proxy tokens, the oldest first. Nothing shows their secrets."""
    terminal = Terminal.standard()
    tokens = connect().proxy_tokens()
    if as_json:
        terminal.result(msgspec.json.encode(tokens).decode())
    elif tokens:
        rows = [
            [
                token.id,
                minute(token.created_at),
                _time(token.expires_at),
                _time(token.last_used_at),
                ", ".join([*token.environments, *token.endpoints]) or "all",
                "-" if token.rate_limit is None else f"{token.rate_limit:g}/s",
            ]
            for token in tokens
        ]
        terminal.result(table(["ID", "CREATED", "EXPIRES", "LAST USED", "FOR", "RATE LIMIT"], rows))
    else:
        terminal.note("There is no proxy token.")


def _time(at: float | None) -> str:
    return "never" if at is None else minute(at)
