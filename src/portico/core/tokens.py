"""The proxy tokens, as the door knows them: who may pass."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import sha256

from portico.core.bucket import TokenBucket
from portico.model.policy import Scope


class Verdict(Enum):
    """What becomes of a request's credentials."""

    VALID = auto()
    INVALID = auto()  # no such token, another secret, expired
    ELSEWHERE = auto()  # it is good, but not here


@dataclass(slots=True)
class ProxyToken:
    """One token. expires_at is in seconds since the epoch. environments and endpoints: all, where there are none.

    An endpoint is named "app/function", or "app" for all of an app.
    """

    id: str
    digest: bytes  # SHA-256 of its secret
    expires_at: float | None = None
    environments: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset()
    bucket: TokenBucket | None = field(default=None, repr=False)

    def reaches(self, endpoint: Scope) -> bool:
        """Whether it is meant for this endpoint."""
        if self.environments and endpoint.environment not in self.environments:
            return False
        names = (endpoint.app, f"{endpoint.app}/{endpoint.function}")
        return not self.endpoints or not self.endpoints.isdisjoint(names)


_NOBODY = ProxyToken("", bytes(32))  # what an unknown id is compared with, so that it takes no less time


class ProxyTokens:
    """All that are valid, by id. `on_use` is told of the first use since somebody has asked for the uses."""

    def __init__(self, on_use: Callable[[], None] = lambda: None) -> None:
        self._on_use = on_use
        self._tokens: dict[str, ProxyToken] = {}
        self._used: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<ProxyTokens {len(self._tokens)}>"

    def put(self, token: ProxyToken) -> None:
        """It is valid from now on."""
        self._tokens[token.id] = token

    def remove(self, token_id: str) -> None:
        """It is valid no longer."""
        self._tokens.pop(token_id, None)

    def clear(self) -> None:
        """None is valid any more."""
        self._tokens.clear()

    def check(self, key: bytes, secret: bytes, endpoint: Scope, at: float) -> tuple[Verdict, ProxyToken]:
        """Whether these credentials open this endpoint, and whose they are. `at`: seconds since the epoch."""
        token = self._tokens.get(key.decode("latin-1"), _NOBODY)
        same = hmac.compare_digest(sha256(secret).digest(), token.digest)
        if not same or token is _NOBODY or (token.expires_at is not None and token.expires_at <= at):
            return Verdict.INVALID, token
        if not token.reaches(endpoint):
            return Verdict.ELSEWHERE, token
        if not self._used:
            self._on_use()
        self._used[token.id] = at
        return Verdict.VALID, token

    def have_been_used(self, used: Mapping[str, float]) -> None:
        """By others, then."""
        if used and not self._used:
            self._on_use()
        for token_id, at in used.items():
            self._used[token_id] = max(at, self._used.get(token_id, 0.0))

    def take_used(self) -> dict[str, float]:
        """When each token was last used that was used since this was asked last."""
        used, self._used = self._used, {}
        return used
