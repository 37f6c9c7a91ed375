"""The flags that are about HTTPS."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import click

from portico.client.settings import https_from
from portico.model import errors
from portico.model.settings import Settings

_F = TypeVar("_F", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--https", "https", is_flag=True, help="Speak HTTPS, with Caddy in front. See docs/https.md."),
    click.option("--https-listen", metavar="[HOST]:PORT", help="Where. Default: :443; for localhost, 127.0.0.1:7443."),
    click.option(
        "--http-listen", metavar="[HOST]:PORT|off", help="Where HTTP leads there. Default: :80; for localhost, off."
    ),
    click.option("--caddy", metavar="PATH", help="Use this Caddy. Default: the one of portico[https]."),
    click.option("--acme-email", metavar="EMAIL", help="Whom the certificates' authority may write to."),
    click.option("--acme-ca", metavar="URL", help="The authority's ACME directory. Default: Let's Encrypt."),
    click.option("--acme-root", metavar="FILE", help="What the authority's own certificate is signed with (PEM)."),
    click.option("--dns-hook", metavar="COMMAND", help="Sets TXT records, for a wildcard certificate of the domain."),
    click.option("--dns-wait", metavar="SECONDS", help="Until a record can be seen everywhere. Default: 30."),
)


def https_options(command: _F) -> _F:
    """The flags; each has a variable of the environment that says the same."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def speaking_https(settings: Settings, given: Mapping[str, str | bool | None]) -> Settings:
    """With what the flags say, before what the environment says. UsageError where that makes no sense."""
    flags = {f"PORTICO_{name.upper()}": value for name, value in given.items() if isinstance(value, str)}
    if settings.https is None and not given["https"]:
        if flags:
            name = next(iter(flags)).removeprefix("PORTICO_").lower().replace("_", "-")
            raise click.UsageError(f"--{name} is about HTTPS: it needs --https beside it.")
        return settings
    try:
        https = https_from({**os.environ, **flags})
        https = replace(
            https, acme_root=https.acme_root and os.path.abspath(https.acme_root), caddy=_absolute(https.caddy)
        )
        return replace(settings, https=https).validate()
    except errors.InvalidError as error:
        raise click.UsageError(f"{error.message} {error.hint or ''}".rstrip()) from None


def _absolute(path: str) -> str:
    """From here, where the server may run elsewhere; a bare name is looked for on PATH there."""
    return os.path.abspath(path) if "/" in path else path
