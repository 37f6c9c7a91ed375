"""A stored call's place in a pool's queue: on the ingress's loop it waits like any input; the control plane hears."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from portico.ingress.ports import Endpoint, Lease, Refusal, Route
from portico.server.away import AwayEndpoint
from portico.server.supervisor import SlotLease


class Seat:
    """One attempt's place. `seated` has its lease, or why there is none; both belong to the control plane's loop."""

    wants_desk = False

    def __init__(self, control: asyncio.AbstractEventLoop, target: bytes, on_timeout: Callable[[int], None]) -> None:
        self.target = target
        self.seated: asyncio.Future[Lease | Refusal] = control.create_future()
        self._control = control
        self._on_timeout = on_timeout
        self.door = ""
        self._endpoint: Endpoint | None = None
        self._input_id = ""
        self._lease: Lease | None = None
        self._left = False

    # -- on the ingress's loop ------------------------------------------------------------------------------------
    def ask(self, endpoint: Endpoint, input_id: str) -> None:
        """Queue up."""
        self._endpoint, self._input_id = endpoint, input_id
        answer = endpoint.lease(self, input_id)
        if isinstance(answer, Refusal):
            self.refused(answer)
        elif answer is not None:
            self.granted(answer)

    def leave(self) -> None:
        """Nobody wants it any more; a lease that is on its way is given back."""
        self._left = True
        if self._endpoint is not None:
            self._endpoint.leave(self)

    def granted(self, lease: Lease) -> None:
        """See `ingress.ports.Waiter`."""
        if self._left:
            lease.release()
        else:
            self._lease = lease
            self._tell(lease)

    def refused(self, refusal: Refusal) -> None:
        """See `ingress.ports.Waiter`."""
        self._tell(refusal)

    def timed_out(self, queued: int | None = None) -> None:
        """See `ingress.ports.Waiter`. queued: how many wait where the lease was brought from."""
        assert self._lease is not None
        self._control.call_soon_threadsafe(self._on_timeout, self._lease.queued if queued is None else queued)

    def moved(self, target: Route | Refusal) -> None:
        """See `ingress.ports.Waiter`."""
        if isinstance(target, Refusal):
            self.refused(target)
        else:
            self.ask(target.endpoint, self._input_id)

    def elsewhere(self, process: int) -> None:
        """See `ingress.ports.Waiter`: its lease is brought from there."""
        cast("AwayEndpoint", self._endpoint).seat(self, self._input_id)

    def _tell(self, answer: Lease | Refusal) -> None:
        self._control.call_soon_threadsafe(self._sit, answer)

    # -- on the control plane's loop ------------------------------------------------------------------------------
    def _sit(self, answer: Lease | Refusal) -> None:
        if not self.seated.done():
            self.seated.set_result(answer)


def kill(lease: Lease) -> None:
    """End the container of this lease, and all that runs in it."""
    cast("SlotLease", lease).kill()
