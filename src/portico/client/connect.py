"""The server that this process talks to, as its variables and its user's profiles say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from portico.client.control import ControlClient
from portico.client.profiles import Profile, Profiles, config_path
from portico.client.remote import Remote, check_token, check_url
from portico.client.settings import environment_name, load_settings
from portico.wire.calls import SOCKET_VARIABLE


def connect(environment: str | None = None, timeout: float = 30.0) -> ControlClient:
    """A client for it, about this environment or the one that is set. Connects to nothing yet."""
    profile = current_profile(os.environ)
    place = environment_name(environment or placed(os.environ, profile))
    return ControlClient(address(os.environ, profile), timeout, place)


def current_profile(environ: Mapping[str, str]) -> Profile | None:
    """The profile that counts. In a container none does: it belongs to the server that has started it."""
    return None if environ.get(SOCKET_VARIABLE) else Profiles(config_path(environ)).current(environ)


def address(environ: Mapping[str, str], profile: Profile | None) -> Path | Remote:
    """The control socket of this machine's server, or a server elsewhere.

    A profile's token goes to the profile's server and to no other.
    """
    if environ.get(SOCKET_VARIABLE):
        return load_settings(environ).control_socket
    url, named = environ.get("PORTICO_SERVER_URL"), profile and profile.server_url
    token = check_token(environ.get("PORTICO_TOKEN_ID"), environ.get("PORTICO_TOKEN_SECRET"), "PORTICO_TOKEN_…")
    if url:
        url = check_url(url, "PORTICO_SERVER_URL")
    elif named:
        url = check_url(named, f"server_url of the profile {profile.name!r}") if profile else None
    if not url:
        return load_settings(environ).control_socket
    if token is None and profile is not None and named and check_url(named, "server_url") == url:
        token = check_token(profile.token_id, profile.token_secret, f"the profile {profile.name!r}")
    return Remote(url, token)


def placed(environ: Mapping[str, str], profile: Profile | None) -> str | None:
    """The environment that is set, if one is."""
    named = environ.get("PORTICO_ENVIRONMENT") or environ.get("MODAL_ENVIRONMENT")
    return named or (profile.environment if profile else None)
