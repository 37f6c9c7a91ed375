"""Which host leads where, and who holds which label."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from portico.model.errors import ConflictError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Claim(Generic[T]):
    """A label's holder. `target` is None once its app has been stopped."""

    app_id: str
    app_name: str
    ephemeral: bool
    target: T | None


class RouteTable(Generic[T]):
    """Labels and their holders. A newer ephemeral app takes a label over from an older one; when it ends, the older one
    has it again. Otherwise whoever had a label keeps it."""

    def __init__(self) -> None:
        self._claims: dict[str, list[Claim[T]]] = {}  # the holder last; before it, those from whom it was taken

    def get(self, label: str) -> Claim[T] | None:
        """The holder of a label."""
        claims = self._claims.get(label)
        return claims[-1] if claims else None

    def check(self, labels: list[str], app_id: str, *, ephemeral: bool) -> list[Claim[T]]:
        """The claims that `app_id` would take over; ConflictError where it may not."""
        taken = []
        for label in labels:
            claim = self.get(label)
            if claim is None or claim.target is None or claim.app_id == app_id:
                continue
            if not (ephemeral and claim.ephemeral):
                raise ConflictError(
                    f"The label {label!r} belongs to the app {claim.app_name!r}.",
                    hint=f"Choose another label=, or stop that app: portico app stop {claim.app_name}",
                )
            taken.append(claim)
        return taken

    def assign(self, app_id: str, app_name: str, targets: dict[str, T], *, ephemeral: bool) -> None:
        """The app has these labels, and no others. One that was taken from it stays with who took it."""
        self.check(list(targets), app_id, ephemeral=ephemeral)
        for label in [label for label in self._claims if label not in targets]:
            others = [claim for claim in self._claims[label] if claim.app_id != app_id]
            if others:
                self._claims[label] = others
            else:
                del self._claims[label]
        for label, target in targets.items():
            claims = [claim for claim in self._claims.get(label, ()) if claim.target is not None]
            places = [place for place, claim in enumerate(claims) if claim.app_id == app_id]
            place = places[0] if places else len(claims)
            claims[place : place + 1] = [Claim(app_id, app_name, ephemeral, target)]
            self._claims[label] = claims

    def stop(self, app_id: str) -> dict[str, str]:
        """The app gives up its labels: which ones other apps have again, and who. The rest is remembered as stopped."""
        returned: dict[str, str] = {}
        for label, claims in self._claims.items():
            others = [claim for claim in claims if claim.app_id != app_id]
            if len(others) == len(claims):
                continue
            if others and claims[-1].app_id == app_id:
                returned[label] = others[-1].app_id
            self._claims[label] = others or [replace(claims[-1], target=None)]
        return returned
