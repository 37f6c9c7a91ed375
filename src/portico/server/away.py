"""Functions that live in another ingress process, as the first one sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from portico.core import rendezvous
from portico.core.tokens import ProxyToken
from portico.ingress.ports import Waiter
from portico.model.policy import Policies
from portico.model.spec import FunctionSpec

if TYPE_CHECKING:
    from portico.server.dataplane import Release
    from portico.server.seat import Seat
    from portico.server.supervisor import Counts


@dataclass(frozen=True, slots=True)
class Share:
    """The functions of one ingress process among so many. The first one is 0."""

    process: int = 0
    count: int = 1

    def owner(self, release: Release, function: str) -> int:
        """In which process a function, or a class, lives: for as long as its app does."""
        if self.count == 1:
            return 0
        return rendezvous.owner(f"{release.environment}/{release.app_name}/{function}", self.count)

    def has(self, release: Release, function: str) -> bool:
        """Whether it lives here."""
        return self.owner(release, function) == self.process


class OtherShards(Protocol):
    """The other ingress processes, as the first one's data path needs them. All of them hear of every app."""

    async def prove(self, release: Release, on_ready: Callable[[str], None]) -> None:
        """Have a version's functions ready, there; StartError when one cannot be."""

    def install(self, release: Release) -> None:
        """This version answers from now on."""

    def discard(self, release: Release) -> None:
        """It does not come."""

    def tell(self, verb: str, app_id: str) -> None:
        """hold, release, rouse or stop an app."""

    def set_policies(self, policies: Policies) -> None:
        """They hold from now on."""

    def put_token(self, token: ProxyToken, rate_limit: float | None) -> None:
        """It is valid from now on."""

    def remove_tokens(self, ids: list[str] | None) -> None:
        """They are valid no longer; None: none is."""

    async def used_tokens(self) -> list[dict[str, float]]:
        """When each proxy token was last used, there."""

    async def cut(self, app_id: str) -> None:
        """End what runs of an app; return when it has gone."""

    async def settle(self) -> None:
        """Return when all that was said before is done there."""

    async def refuse(self) -> None:
        """Have no connection accepted, nor sent here, any more."""

    async def finish(self, grace: float) -> None:
        """End all there; running requests have so many seconds."""

    async def counts(self, app_id: str) -> dict[str, Counts]:
        """How an app's functions there do."""


class Keeper(Protocol):
    """Who asks a function for what it does where it lives, and brings stored calls there."""

    async def about(self, endpoint: AwayEndpoint, what: str, parameters: bytes) -> dict[str, Any]:
        """See `api.services.FunctionService`."""

    async def update(
        self, endpoint: AwayEndpoint, settings: dict[str, float | None], parameters: bytes
    ) -> dict[str, Any]:
        """See `api.services.FunctionService`."""

    def seat(self, seat: Seat, endpoint: AwayEndpoint, input_id: str) -> None:
        """Have it queue up there."""

    def leave(self, waiter: Waiter) -> None:
        """It waits no longer, if it does at all."""


class AwayEndpoint:
    """A function, a class or a method that lives in another process. whole: the function, or a method's class."""

    def __init__(self, process: int, function: FunctionSpec, whole: FunctionSpec, app_id: str, keeper: Keeper):
        self.process = process
        self.function = function
        self.whole = whole
        self.app_id = app_id
        self.keeper = keeper

    def __repr__(self) -> str:
        return f"<AwayEndpoint {self.function.name} in process {self.process}>"

    def lease(self, waiter: Waiter, input_id: str) -> None:
        """Whoever asks has to go there."""
        waiter.elsewhere(self.process)

    def leave(self, waiter: Waiter) -> None:
        """Only seats wait."""
        self.keeper.leave(waiter)

    def seat(self, waiter: Waiter, input_id: str) -> None:
        """A stored call does not go there itself: it has a lease brought from there."""
        self.keeper.seat(cast("Seat", waiter), self, input_id)


class Elsewhere:
    """What leads to another process, whatever it is there."""

    def __init__(self, process: int) -> None:
        self._process = process

    def lease(self, waiter: Waiter, input_id: str) -> None:
        """Whoever asks has to go there."""
        waiter.elsewhere(self._process)

    def leave(self, waiter: Waiter) -> None:
        """Nobody waits here."""
