"""Which host leads where, and who holds which label or custom domain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from portico.model.errors import ConflictError
from portico.model.naming import MAIN

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Owner:
    """An app that has names, or wants them."""

    app_id: str
    app_name: str
    environment: str = MAIN
    ephemeral: bool = False

    def __str__(self) -> str:
        return f"the app {self.app_name!r}" + (
            "" if self.environment == MAIN else f" in the environment {self.environment!r}"
        )


@dataclass(frozen=True, slots=True)
class Claim(Generic[T]):
    """A name's holder. `target` is None once its app has been stopped."""

    owner: Owner
    target: T | None


class RouteTable(Generic[T]):
    """Names and their holders. A name is a label ("acme--shop-cart"), or a custom domain ("api.example.com", or
    "*.example.com" for all that is one label longer); the former has no dot, the latter has one.

    A newer ephemeral app takes a name over from an older one, and a deployed app takes a domain over from an ephemeral
    one; when it ends, the older one has it again. Otherwise whoever had a name keeps it.
    """

    def __init__(self) -> None:
        self._claims: dict[str, list[Claim[T]]] = {}  # the holder last; before it, those from whom it was taken

    def get(self, name: str) -> Claim[T] | None:
        """The holder of a name."""
        claims = self._claims.get(name)
        return claims[-1] if claims else None

    def at(self, host: str) -> Claim[T] | None:
        """Who has this host as a custom domain: the living before the stopped, the exact name before the wildcard."""
        name, dot, parent = host.partition(".")
        if not dot or name == "*":
            return None
        claims = [claim for claim in (self.get(host), self.get(f"*.{parent}")) if claim is not None]
        return next((claim for claim in claims if claim.target is not None), claims[0] if claims else None)

    def domains(self) -> dict[str, Owner]:
        """The custom domains that lead to living apps, and who has each."""
        holders = ((name, self.get(name)) for name in self._claims if "." in name)
        return {name: claim.owner for name, claim in holders if claim is not None and claim.target is not None}

    def may_have(self, name: str, owner: Owner) -> bool:
        """Whether the name is free for `owner`, or may be taken over."""
        claim = self.get(name)
        if claim is None or claim.target is None or claim.owner.app_id == owner.app_id:
            return True
        return claim.owner.ephemeral and (owner.ephemeral or "." in name)

    def check(self, names: Iterable[str], owner: Owner) -> list[Claim[T]]:
        """The claims that `owner` would take over; ConflictError where it may not."""
        claims = [(name, claim) for name in names if (claim := self.get(name)) is not None]
        for name, claim in claims:
            if not self.may_have(name, owner):
                raise _held(name, claim.owner)
        return [claim for _, claim in claims if claim.target is not None and claim.owner.app_id != owner.app_id]

    def assign(self, owner: Owner, targets: dict[str, T]) -> None:
        """The app has these names, and no others. One that was taken from it stays with who took it."""
        self.check(targets, owner)
        for name in [name for name in self._claims if name not in targets]:
            others = [claim for claim in self._claims[name] if claim.owner.app_id != owner.app_id]
            if others:
                self._claims[name] = others
            else:
                del self._claims[name]
        for name, target in targets.items():
            claims = [claim for claim in self._claims.get(name, ()) if claim.target is not None]
            places = [place for place, claim in enumerate(claims) if claim.owner.app_id == owner.app_id]
            place = places[0] if places else len(claims)
            claims[place : place + 1] = [Claim(owner, target)]
            self._claims[name] = claims

    def drop(self, names: Iterable[str]) -> None:
        """Nobody has these names any more."""
        for name in names:
            self._claims.pop(name, None)

    def stop(self, app_id: str) -> dict[str, str]:
        """The app gives up its names: which ones other apps have again, and who. The rest is remembered as stopped."""
        returned: dict[str, str] = {}
        for name, claims in self._claims.items():
            others = [claim for claim in claims if claim.owner.app_id != app_id]
            if len(others) == len(claims):
                continue
            if others and claims[-1].owner.app_id == app_id:
                returned[name] = others[-1].owner.app_id
            self._claims[name] = others or [replace(claims[-1], target=None)]
        return returned


def _held(name: str, holder: Owner) -> ConflictError:
    place = "" if holder.environment == MAIN else f" -e {holder.environment}"
    stop = f"portico app stop {holder.app_name}{place}"
    if "." in name:
        return ConflictError(
            f"The domain {name} belongs to {holder}.", hint=f"Take it out of that app, or stop the app: {stop}"
        )
    return ConflictError(
        f"The label {name!r} belongs to {holder}.", hint=f"Choose another label=, or stop that app: {stop}"
    )
