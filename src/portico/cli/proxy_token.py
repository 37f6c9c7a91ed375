"""`portico proxy-token`: what opens endpoints that ask for one."""

from __future__ import annotations

import click

from portico.cli.lazy import LazyGroup, Verb

_VERBS = {
    "create": Verb("portico.cli.proxy_token_create:proxy_token_create", "Make a token, and show its secret once."),
    "list": Verb("portico.cli.proxy_token_list:proxy_token_list", "List the tokens, without their secrets."),
    "revoke": Verb("portico.cli.proxy_token_revoke:proxy_token_revoke", "Have a token open nothing any more."),
}


@click.group("proxy-token", cls=LazyGroup, verbs=_VERBS, short_help="Make, list and revoke tokens for endpoints.")
def proxy_token() -> None:
    """Proxy tokens: what requests to protected endpoints need, as Modal-Key and Modal-Secret or as a bearer token."""
