"""What an administrator sets for endpoints, at four levels: the workspace, an environment, an app, one function."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from portico.model.errors import InvalidError
from portico.model.sizes import parse_size

DEFAULT_RATE_LIMIT: Final = 200.0  # requests a second
DEFAULT_MAX_BODY: Final = 4 << 30  # bytes
_MAX_RATE: Final = 1_000_000.0
UNLIMITED: Final = "unlimited"


class Setting(StrEnum):
    """What can be set."""

    REQUIRE_PROXY_AUTH = "require-proxy-auth"  # "on", "off"
    RATE_LIMIT = "rate-limit"  # requests a second, or "off"
    MAX_BODY = "max-body"  # bytes of a request's body, or "unlimited"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a setting is about: "" stands for all. `Scope()` is the workspace."""

    environment: str = ""
    app: str = ""
    function: str = ""

    def __str__(self) -> str:
        names = [name for name in (self.environment, self.app, self.function) if name]
        return "/".join(names) or "the workspace"

    @property
    def wider(self) -> tuple[Scope, ...]:
        """The levels that hold for it, from the workspace to itself."""
        levels = [Scope(), Scope(self.environment), Scope(self.environment, self.app), self]
        return tuple(dict.fromkeys(levels))


@dataclass(frozen=True, slots=True)
class Policy:
    """One setting of one scope, its value as text."""

    scope: Scope
    setting: Setting
    value: str


class Policies:
    """All settings, and which one holds where: the narrowest for what is on or off, each of them for rates."""

    def __init__(self, policies: Iterable[Policy] = ()) -> None:
        self._values = {(policy.setting, policy.scope): policy.value for policy in policies}

    @property
    def all(self) -> list[Policy]:
        """Each of them."""
        return [Policy(scope, setting, value) for (setting, scope), value in self._values.items()]

    def requires_proxy_auth(self, endpoint: Scope) -> bool:
        """Whether a setting protects this endpoint."""
        return self._narrowest(Setting.REQUIRE_PROXY_AUTH, endpoint) == "on"

    def max_body(self, endpoint: Scope) -> int:
        """Bytes that the body of a request to this endpoint may have."""
        value = self._narrowest(Setting.MAX_BODY, endpoint)
        if value == UNLIMITED:
            return sys.maxsize
        return DEFAULT_MAX_BODY if value is None else int(value)

    def rates(self, endpoint: Scope, default: float | None) -> dict[Scope, float]:
        """The rate of each level that has one. `default` is the workspace's where nothing else was set for it."""
        found = {} if default is None else {Scope(): default}
        for level in endpoint.wider:
            value = self._values.get((Setting.RATE_LIMIT, level))
            if value == "off":
                found.pop(level, None)
            elif value is not None:
                found[level] = float(value)
        return found

    def _narrowest(self, setting: Setting, endpoint: Scope) -> str | None:
        found = [self._values.get((setting, level)) for level in endpoint.wider]
        return next((value for value in reversed(found) if value is not None), None)


def check_value(setting: Setting, text: str) -> str:
    """The value in its one form, or InvalidError."""
    if setting is Setting.REQUIRE_PROXY_AUTH:
        if text not in ("on", "off"):
            raise InvalidError(f"{setting} is on or off, not {text!r}.")
        return text
    if setting is Setting.RATE_LIMIT:
        rate = parse_rate(text, setting)
        return "off" if rate is None else f"{rate:g}"
    size = parse_size(text, setting)
    return UNLIMITED if size is None else str(size)


def parse_rate(text: str, owner: str) -> float | None:
    """Requests a second; None for "off"."""
    if text == "off":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate <= _MAX_RATE:
        raise InvalidError(f"{owner} is a number of requests a second, or off, not {text!r}.")
    return rate
