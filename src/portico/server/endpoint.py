"""What a label leads to: the same object for as long as the app lives, while versions of the function come and go."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import replace

from portico.ingress.pages import INVALID_CALL
from portico.ingress.ports import Endpoint, Lease, Refusal, Route, Waiter
from portico.model.errors import InvalidError
from portico.model.naming import door_of
from portico.model.policy import Scope
from portico.model.spec import FunctionSpec
from portico.server.away import AwayEndpoint
from portico.server.pools import Pools, text_of, wrong_parameters
from portico.server.supervisor import QUEUE_FULL, Counts, Supervisor


class FunctionEndpoint:
    """A function's endpoint. While it is held, inputs wait for the next version. place: what policies know it by."""

    def __init__(self, supervisor: Supervisor | Pools, place: Scope, app_id: str, desk: Passage | None = None) -> None:
        """`desk` takes the requests that are to be stored; those to methods of a class go there by themselves."""
        self.supervisor = supervisor
        self.place = place
        self._doors = _doors(supervisor.function)
        self.app_id = app_id
        self._desk = desk
        self._held: OrderedDict[Waiter, str] | None = None

    def __repr__(self) -> str:
        held = "" if self._held is None else f" holding {len(self._held)}"
        return f"<FunctionEndpoint {self.supervisor!r}{held}>"

    @property
    def function(self) -> FunctionSpec:
        """What is called or has a URL."""
        return self.supervisor.function

    @property
    def whole(self) -> FunctionSpec:
        """Itself: it is no part of a class."""
        return self.supervisor.function

    @property
    def is_protected(self) -> bool:
        """Whether the code asks for proxy auth."""
        web = self.function.web
        return web is not None and web.requires_proxy_auth

    @property
    def counts(self) -> Counts:
        """How it is doing; those who wait for the next version are queued like others."""
        counts = self.supervisor.counts
        return replace(counts, queued=counts.queued + len(self._held or ()))

    def lease(self, waiter: Waiter, input_id: str) -> Lease | Refusal | None:
        """A slot of the current version, or a place in a queue."""
        if self._doors and waiter.door not in self._doors:
            return INVALID_CALL  # it has waited for a version that has this method no more
        if waiter.wants_desk and self._desk is not None:
            return self._desk.lease(waiter, input_id)
        if self._held is not None:
            if not self.supervisor.has_room(len(self._held)):
                return QUEUE_FULL
            self._held[waiter] = input_id
            return None
        return self.supervisor.lease(waiter, input_id)

    def leave(self, waiter: Waiter) -> None:
        """The waiter waits no longer."""
        if self._held is None or self._held.pop(waiter, None) is None:
            self.supervisor.leave(waiter)

    def hold(self) -> None:
        """New inputs wait until `switch` or `release`; running ones go on."""
        if self._held is None:
            self._held = OrderedDict()

    def release(self) -> None:
        """Those who wait, and all that come, go to the current version."""
        held, self._held = self._held, None
        for waiter, input_id in (held or {}).items():
            admit(self, waiter, input_id)

    @property
    def is_held(self) -> bool:
        """Whether inputs wait for the next version."""
        return self._held is not None

    def cut(self) -> Supervisor | Pools:
        """The current version gets no more inputs, and those that wait for it wait for the next one; what drains."""
        self.hold()
        assert self._held is not None
        self._held.update(self.supervisor.drain())
        return self.supervisor

    def switch(self, supervisor: Supervisor | Pools) -> Supervisor | Pools:
        """The next version takes over, with all who wait; returns the one before, which drains."""
        before, self.supervisor = self.supervisor, supervisor
        self._doors = _doors(supervisor.function)
        for waiter, input_id in before.drain():
            admit(self, waiter, input_id)
        self.release()
        return before

    def stop(self, refusal: Refusal) -> Supervisor | Pools:
        """The app has ended: those who wait are refused."""
        held, self._held = self._held, None
        for waiter, _ in [*(held or {}).items(), *self.supervisor.drain()]:
            waiter.refused(refusal)
        return self.supervisor


class MethodEndpoint:
    """A method of a class: its inputs go where all of the class go, and there to a socket of its own.

    desk: takes the requests that are to be stored. called: it is called by our own clients, whose queries have nothing
    but the class's parameters.
    """

    def __init__(self, cls: FunctionEndpoint, part: FunctionSpec, *, called: bool, desk: Passage | None = None) -> None:
        self.function = part
        self._cls = cls
        self._method = part.name.rpartition(".")[2]
        self._door = _door(cls.supervisor.function, self._method)
        self._called = called
        self._desk = desk

    @property
    def supervisor(self) -> Supervisor | Pools:
        """The class's."""
        return self._cls.supervisor

    @property
    def whole(self) -> FunctionSpec:
        """The class."""
        return self.supervisor.function

    @property
    def app_id(self) -> str:
        """Whose it is."""
        return self._cls.app_id

    @property
    def counts(self) -> Counts:
        """How the class is doing."""
        return self._cls.counts

    @property
    def place(self) -> Scope:
        """What policies know it by."""
        return replace(self._cls.place, function=f"{self._cls.place.function}.{self._method}")

    @property
    def is_protected(self) -> bool:
        """Whether the code asks for proxy auth."""
        return self.function.web is not None and self.function.web.requires_proxy_auth

    def lease(self, waiter: Waiter, input_id: str) -> Lease | Refusal | None:
        """A slot of the class's, or a place in its queue."""
        if waiter.wants_desk and self._desk is not None:
            return self._desk.lease(waiter, input_id)
        function = self._cls.supervisor.function
        if self._called and function.cls is not None:
            try:
                text_of(function.cls, waiter.target, alone=True)
            except InvalidError as error:
                return wrong_parameters(function, error)
        waiter.door = self._door
        return self._cls.lease(waiter, input_id)

    def leave(self, waiter: Waiter) -> None:
        """The waiter waits no longer."""
        self._cls.leave(waiter)


class Unavailable:
    """An endpoint that refuses everything: its app could not be brought up."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    def lease(self, waiter: Waiter, input_id: str) -> Refusal:
        """The refusal."""
        return self._refusal

    def leave(self, waiter: Waiter) -> None:
        """Nobody waits here."""


class NotCalled(Unavailable):
    """What is scaled and looked at as others are, but takes no calls: a class itself, or what has a URL."""

    def __init__(self, function: FunctionEndpoint | MethodEndpoint | AwayEndpoint, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.function = function


class Gate:
    """Where inputs wait until the server has brought its apps up and knows where their host leads."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Waiter, str] = OrderedDict()

    def lease(self, waiter: Waiter, input_id: str) -> None:
        """Wait."""
        self._waiting[waiter] = input_id

    def leave(self, waiter: Waiter) -> None:
        """Wait no longer."""
        self._waiting.pop(waiter, None)

    def open(self, target: Route | Refusal) -> None:
        """Their host leads here."""
        waiting, self._waiting = self._waiting, OrderedDict()
        for waiter in waiting:
            waiter.moved(target)


class Passage:
    """A way to a server of our own that has no slots to count: the control API behind the bare domain."""

    def __init__(self, address: str) -> None:
        self._lease = _PassageLease(address)

    def lease(self, waiter: Waiter, input_id: str) -> Lease:
        """Always, at once."""
        return self._lease

    def leave(self, waiter: Waiter) -> None:
        """Nobody waits here."""


class _PassageLease:
    def __init__(self, address: str) -> None:
        self.address = address
        self.is_foreign = False
        self.overran = False
        self.takes_connections = False
        self.stopping = False
        self.queued = 0

    def release(self) -> None:
        """Nothing was held."""

    def hand_over(self, descriptor: int, head: bytes) -> None:
        """It takes none."""
        os.close(descriptor)

    hold = cancel = broken = release


def _doors(function: FunctionSpec) -> frozenset[str]:
    return frozenset(_door(function, method.name) for method in function.cls.methods) if function.cls else frozenset()


def _door(function: FunctionSpec, method: str) -> str:
    """A program listens where it likes."""
    return "" if function.program is not None else door_of(method)


def admit(endpoint: Endpoint, waiter: Waiter, input_id: str) -> None:
    """Let a waiter ask again."""
    answer = endpoint.lease(waiter, input_id)
    if isinstance(answer, Refusal):
        waiter.refused(answer)
    elif answer is not None:
        waiter.granted(answer)
