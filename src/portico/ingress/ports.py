"""What the ingress asks of whoever owns the pools."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Protocol

from portico.ingress.head import RequestHead


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an input gets no container. `retry_after` is in seconds; `code` names an error of the model, for callers.

    lines: more header lines, each with its end.
    """

    status: int
    text: str
    retry_after: int | None = None
    code: str | None = None
    lines: bytes = b""


class Lease(Protocol):
    """A slot of one container, busy from the moment it is assigned. Exactly one of the five verbs ends its use."""

    @property
    def address(self) -> str:
        """Where the container serves HTTP: the path of a Unix socket, or "host:port"."""

    @property
    def is_foreign(self) -> bool:
        """Whether a program of the user's own answers there: it knows nothing of us, and of inputs."""

    @property
    def overran(self) -> bool:
        """Whether the container ends because it took more memory than it may."""

    @property
    def stopping(self) -> bool:
        """Whether the container was told to end."""

    @property
    def takes_connections(self) -> bool:
        """Whether the container may be handed the client's connection of a WebSocket."""

    @property
    def queued(self) -> int:
        """How many inputs of the same function wait, because no slot of it is free."""

    def release(self) -> None:
        """The input has ended: the slot is free."""

    def hold(self) -> None:
        """The response has ended, the input goes on: the slot is free when the container says so."""

    def hand_over(self, descriptor: int, head: bytes) -> None:
        """As `hold`, and the container goes on with the client's connection, to which it first sends `head`.

        The descriptor is the lease's from now on.
        """

    def cancel(self) -> None:
        """Nobody waits for the input any more: end it; the slot is free when the container says so."""

    def broken(self) -> None:
        """The container did not speak HTTP with us: give it no more inputs."""


class Waiter(Protocol):
    """An input that may have to wait for a slot."""

    door: str  # what its endpoint adds to a container's address: one with several parts has a socket for each

    @property
    def target(self) -> bytes:
        """Path and query of the request."""

    @property
    def wants_desk(self) -> bool:
        """Whether it is to be stored and answered later, or asks for the answer to one that was."""

    def granted(self, lease: Lease) -> None:
        """It has one now."""

    def refused(self, refusal: Refusal) -> None:
        """It will not get one."""

    def timed_out(self) -> None:
        """It has run for longer than it may."""

    def moved(self, target: Route | Refusal) -> None:
        """It waits no longer: its host leads here now."""

    def elsewhere(self, process: int) -> None:
        """What it asks for lives in another process; it does not wait here."""


class Endpoint(Protocol):
    """What a host name leads to."""

    def lease(self, waiter: Waiter, input_id: str) -> Lease | Refusal | None:
        """A slot at once, a refusal, or None: `waiter` hears later."""

    def leave(self, waiter: Waiter) -> None:
        """`waiter` waits no longer."""


class Step(Protocol):
    """Something that a request has to pass, before anything is done for it."""

    def __call__(self, head: RequestHead, now: float) -> Refusal | None:
        """A refusal, or None: it passes. `now` is the loop's time."""


@dataclass(frozen=True, slots=True)
class Route:
    """The way to an endpoint.

    max_body: bytes that a request's body may have. redirect_after: seconds without an answer, after which a client is
    sent to the URL of the result; None: never.
    """

    endpoint: Endpoint
    steps: tuple[Step, ...] = ()
    max_body: int = sys.maxsize
    redirect_after: float | None = None


class Directory(Protocol):
    """Knows where each host leads."""

    def find(self, host: str) -> Route | Refusal:
        """`host` is lower-case and has no port."""
