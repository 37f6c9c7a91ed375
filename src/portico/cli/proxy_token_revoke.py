"""`portico proxy-token revoke`."""

from __future__ import annotations

import json

import click

from portico.cli import options
from portico.cli.terminal import Terminal
from portico.client.connect import connect


@click.command("revoke")
@click.argument("token_id", metavar="ID")
@options.as_json
def proxy_token_revoke(token_id: str, as_json: bool) -> None:
    """Have the proxy token ID (wk-…) open nothing any more, from this moment on."""
    connect().revoke_proxy_token(token_id)
    Terminal.standard().result(json.dumps({"id": token_id}) if as_json else f"✓ Proxy token {token_id} is revoked.")
