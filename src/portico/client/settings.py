"""Settings from the environment: the one place where `PORTICO_HOME` and its siblings are read."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from portico.model.errors import InvalidError
from portico.model.https import Https
from portico.model.limits import DEFAULT_LIMITS, Limits
from portico.model.naming import MAIN, check_environment, workspace_from
from portico.model.policy import DEFAULT_RATE_LIMIT, parse_rate
from portico.model.settings import Settings

DEFAULT_LISTEN = "127.0.0.1:7777"

N = TypeVar("N", int, None)


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """What the environment says, with defaults for what it does not say; an empty variable says nothing.

    InvalidError where a variable makes no sense.
    """
    environ = os.environ if environ is None else environ
    return Settings(
        home=_home(environ.get("PORTICO_HOME")),
        workspace=environ.get("PORTICO_WORKSPACE") or workspace_from(_user()),
        listen=environ.get("PORTICO_LISTEN") or DEFAULT_LISTEN,
        domain=environ.get("PORTICO_DOMAIN") or "localhost",
        limits=Limits(
            queue=_number("PORTICO_QUEUE_LIMIT", environ.get("PORTICO_QUEUE_LIMIT"), DEFAULT_LIMITS.queue),
            containers=_number(
                "PORTICO_MAX_CONTAINERS", environ.get("PORTICO_MAX_CONTAINERS"), DEFAULT_LIMITS.containers
            ),
            drain=_number("PORTICO_DRAIN_TIMEOUT", environ.get("PORTICO_DRAIN_TIMEOUT"), None),
        ),
        trusted_proxies=environ.get("PORTICO_TRUSTED_PROXIES") or "",
        max_websocket_message=environ.get("PORTICO_MAX_WEBSOCKET_MESSAGE") or "2MiB",
        public_address=environ.get("PORTICO_PUBLIC_ADDRESS") or "",
        dns_resolver=environ.get("PORTICO_DNS_RESOLVER") or "",
        redirect_after=_number("PORTICO_REDIRECT_AFTER", environ.get("PORTICO_REDIRECT_AFTER"), None),
        ingress=_number("PORTICO_INGRESS", environ.get("PORTICO_INGRESS"), 1),
        rate_limit=parse_rate(environ.get("PORTICO_RATE_LIMIT") or f"{DEFAULT_RATE_LIMIT:g}", "PORTICO_RATE_LIMIT"),
        secret_key=environ.get("PORTICO_SECRET_KEY") or None,
        https=https_from(environ) if _switch("PORTICO_HTTPS", environ.get("PORTICO_HTTPS")) else None,
    ).validate()


def environment_name(given: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The environment that is meant: the given one, or what the process's own variables say, or `main`."""
    environ = os.environ if environ is None else environ
    named = given or environ.get("PORTICO_ENVIRONMENT") or environ.get("MODAL_ENVIRONMENT") or MAIN
    return check_environment(named)


def https_from(environ: Mapping[str, str]) -> Https:
    """What the environment says about HTTPS, whether it is on or not."""
    wait = environ.get("PORTICO_DNS_WAIT") or "30"
    try:
        dns_wait = float(wait)
    except ValueError:
        raise InvalidError(f"PORTICO_DNS_WAIT is not a number of seconds: {wait!r}.") from None
    return Https(
        listen=environ.get("PORTICO_HTTPS_LISTEN") or "",
        http_listen=environ.get("PORTICO_HTTP_LISTEN") or "",
        caddy=environ.get("PORTICO_CADDY") or "",
        acme_email=environ.get("PORTICO_ACME_EMAIL") or "",
        acme_ca=environ.get("PORTICO_ACME_CA") or "",
        acme_root=environ.get("PORTICO_ACME_ROOT") or "",
        dns_hook=environ.get("PORTICO_DNS_HOOK") or "",
        dns_wait=dns_wait,
    )


def _switch(name: str, given: str | None) -> bool:
    if given not in (None, "", "on", "off"):
        raise InvalidError(f"{name} is neither on nor off: {given!r}.")
    return given == "on"


def _number(name: str, given: str | None, default: N) -> int | N:
    if not given:
        return default
    try:
        return int(given)
    except ValueError:
        raise InvalidError(f"{name} is not a whole number: {given!r}.") from None


def _home(given: str | None) -> Path:
    if given:
        return Path(given).expanduser().absolute()
    from platformdirs import user_data_path  # only where the default is asked for: 15 ms

    return user_data_path("portico")


def _user() -> str:
    # The account, not $USER or $LOGNAME: URLs must not change under sudo, cron or a service manager.
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""
