"""Where this process calls functions."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Final

from portico.client.remote import Remote
from portico.client.settings import environment_name, load_settings
from portico.wire.calls import SOCKET_VARIABLE

_NAMES: Final = (
    *("PORTICO_HOME", "PORTICO_SERVER_URL", "PORTICO_TOKEN_ID", "PORTICO_TOKEN_SECRET", "PORTICO_CONFIG_PATH"),
    *("PORTICO_PROFILE", "PORTICO_ENVIRONMENT", "MODAL_ENVIRONMENT", "HOME", "XDG_DATA_HOME"),
)


def calls_address(environment: str | None = None) -> tuple[str | Remote, str]:
    """The calls' socket or a server elsewhere, and the environment: as the container was told, or as is set."""
    told = os.environ.get(SOCKET_VARIABLE)
    if told:
        return told, environment_name(environment)
    address, place = _set(tuple(os.environ.get(name) for name in _NAMES))
    return address, environment_name(environment or place)


@lru_cache(maxsize=16)
def _set(_values: tuple[str | None, ...]) -> tuple[str | Remote, str | None]:
    """What is set, looked up once for the same variables: calls are made often."""
    from portico.client.connect import address, current_profile, placed  # the control API, which no container needs

    profile = current_profile(os.environ)
    found = address(os.environ, profile)
    place = placed(os.environ, profile)
    return (found if isinstance(found, Remote) else str(load_settings().calls_socket)), place
