"""Which host of the calls' socket leads to which function."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class CallTable(Generic[T]):
    """Hosts and the apps that answer at them. A name is a deployed app's before it is an ephemeral one's."""

    def __init__(self) -> None:
        self._targets: dict[str, dict[str, tuple[bool, T]]] = {}  # host -> app id -> whether it is deployed, its target

    def get(self, host: str) -> T | None:
        """What answers at a host: of a deployed app, or else of the newest ephemeral one."""
        claims = self._targets.get(host)
        return max(claims.values(), key=lambda claim: claim[0])[1] if claims else None

    def assign(self, app_id: str, targets: dict[str, T], *, ephemeral: bool) -> None:
        """From now on the app answers at these hosts, and at no others."""
        self.remove(app_id)
        for host, target in targets.items():
            claims = self._targets.setdefault(host, {})
            self._targets[host] = {app_id: (not ephemeral, target), **claims}

    def remove(self, app_id: str) -> None:
        """The app answers nowhere."""
        for host, claims in list(self._targets.items()):
            claims.pop(app_id, None)
            if not claims:
                del self._targets[host]
