"""Which host leads where, and who holds which label."""

from __future__ import annotations

from dataclasses import dataclass
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
    """Labels and their holders. Between ephemeral apps the newer one has a label; otherwise whoever had it keeps it."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim[T]] = {}

    def get(self, label: str) -> Claim[T] | None:
        """The holder of a label."""
        return self._claims.get(label)

    def check(self, labels: list[str], app_id: str, *, ephemeral: bool) -> list[Claim[T]]:
        """The claims that `app_id` would take over; ConflictError where it may not."""
        taken = []
        for label in labels:
            claim = self._claims.get(label)
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
        """From now on these labels, and no others, lead to this app."""
        self.check(list(targets), app_id, ephemeral=ephemeral)
        for label, claim in list(self._claims.items()):
            if claim.app_id == app_id and label not in targets:
                del self._claims[label]
        for label, target in targets.items():
            self._claims[label] = Claim(app_id, app_name, ephemeral, target)

    def stop(self, app_id: str) -> None:
        """The app's labels lead nowhere from now on; they are remembered as stopped."""
        for label, claim in self._claims.items():
            if claim.app_id == app_id:
                self._claims[label] = Claim(claim.app_id, claim.app_name, claim.ephemeral, None)
