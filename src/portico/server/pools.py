"""One version of a class with parameters: a pool for each set of their values.

Whoever sends requests chooses the values, so the number of pools has a limit. Past it, the pool that was used least
recently goes, if it has no inputs; when all have some, the request is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from portico.ingress.ports import Lease, Refusal, Waiter
from portico.model import parameters
from portico.model.errors import InvalidError, ResourceExhaustedError
from portico.model.limits import DEFAULT_LIMITS
from portico.model.spec import ClassSpec, FunctionSpec
from portico.server.supervisor import Counts, Supervisor

LIMIT: Final = 64  # pools of one class; as many again may be on their way out

TOO_MANY = Refusal(
    429,
    f"modal-http: more than {LIMIT} sets of parameters of this class are in use",
    retry_after=1,
    code="exhausted",
)


class Pools:
    """Does for a class with parameters what a `Supervisor` does for a function.

    make: a supervisor for the canonical text of a set of values; None: for a container that only loads the class.
    """

    def __init__(
        self,
        function: FunctionSpec,
        make: Callable[[str | None], Supervisor],
        queue_limit: int = DEFAULT_LIMITS.queue,
    ) -> None:
        assert function.cls is not None, "a class"
        self.function = function
        self._cls: ClassSpec = function.cls
        self._make = make
        self._queue_limit = queue_limit
        self._pools: OrderedDict[str, Supervisor] = OrderedDict()  # by text; the one used last is at the end
        self._leaving: list[Supervisor] = []
        self._default = default_text(self._cls)

    def __repr__(self) -> str:
        return f"<Pools {self.function.name} {len(self._pools)} pools, {len(self._leaving)} leaving>"

    # -- for endpoints --------------------------------------------------------------------------------------------
    def lease(self, waiter: Waiter, input_id: str) -> Lease | Refusal | None:
        """See `Supervisor.lease`."""
        try:
            text = text_of(self._cls, waiter.target)
        except InvalidError as error:
            return wrong_parameters(self.function, error)
        pool = self._pools.get(text) or self._open(text)
        if isinstance(pool, Refusal):
            return pool
        self._pools.move_to_end(text)
        return pool.lease(waiter, input_id)

    def pool(self, query: bytes) -> Supervisor:
        """That of these values; InvalidError when they are wrong, ResourceExhaustedError when there is no place."""
        text = text_of(self._cls, b"?" + query, alone=True)
        pool = self._pools.get(text) or self._open(text)
        if isinstance(pool, Refusal):
            raise ResourceExhaustedError(pool.text.removeprefix("modal-http: "))
        return pool

    def leave(self, waiter: Waiter) -> bool:
        """See `Supervisor.leave`."""
        pool = self._pools.get(text_of(self._cls, waiter.target))
        return pool is not None and pool.leave(waiter)

    @property
    def counts(self) -> Counts:
        """All pools together."""
        every = [pool.counts for pool in self._all()]
        return Counts(*(sum(getattr(counts, name) for counts in every) for name in Counts.__slots__))

    @property
    def in_use(self) -> bool:
        """Whether any pool has containers, or inputs that wait for one."""
        return any(pool.in_use for pool in self._pools.values())

    def has_room(self, others: int) -> bool:
        """See `Supervisor.has_room`; for all pools together."""
        return self.counts.queued + others < self._queue_limit

    def rouse(self) -> None:
        """Start a first container of the default values, if all parameters have some."""
        if (pool := self._default_pool()) is not None:
            pool.rouse()

    def keep_minimum(self) -> None:
        """Start what `min_containers` asks for: of the default values, and for each pool that there is."""
        if self.function.autoscaler.min_containers:
            self._default_pool()
        for pool in self._pools.values():
            pool.keep_minimum()

    async def prove(self) -> None:
        """Return when one container is ready; where the values are not known yet, one that only loads the class."""
        if (pool := self._default_pool()) is not None:
            await pool.prove()
            return
        trial = self._make(None)
        self._leaving.append(trial)
        try:
            await trial.prove()
        finally:
            trial.drain()

    def drain(self) -> list[tuple[Waiter, str]]:
        """See `Supervisor.drain`."""
        return [waiting for pool in self._all() for waiting in pool.drain()]

    def finish(self, grace: float) -> None:
        """See `Supervisor.finish`."""
        for pool in self._all():
            pool.finish(grace)

    async def gone(self) -> None:
        """Wait, after `drain`, until no container is left."""
        for pool in list(self._all()):
            await pool.gone()

    # -- inside ---------------------------------------------------------------------------------------------------
    def _all(self) -> Iterator[Supervisor]:
        yield from self._pools.values()
        yield from self._leaving

    def _default_pool(self) -> Supervisor | None:
        if self._default is None:
            return None
        pool = self._pools.get(self._default) or self._open(self._default)
        return None if isinstance(pool, Refusal) else pool

    def _open(self, text: str) -> Supervisor | Refusal:
        if len(self._pools) >= LIMIT and not self._make_room():
            return TOO_MANY
        pool = self._pools[text] = self._make(text)
        return pool

    def _make_room(self) -> bool:
        """Let a pool without inputs go, one without containers if there is one; whether that could be."""
        self._leaving = [pool for pool in self._leaving if pool.in_use]
        empty = next((text for text, pool in self._pools.items() if not pool.in_use), None)
        if empty is None and len(self._leaving) < LIMIT:
            empty = next((text for text, pool in self._pools.items() if _is_idle(pool)), None)
        if empty is None:
            return False
        pool = self._pools.pop(empty)
        pool.drain()
        self._leaving.append(pool)
        return True


def default_text(cls: ClassSpec) -> str | None:
    """The text of the values that a class has by itself; None when one of its parameters has to be given."""
    try:
        return parameters.canonical(cls.parameters, b"")
    except InvalidError:
        return None


def text_of(cls: ClassSpec, target: bytes, *, alone: bool = False) -> str:
    """The text of the values in a request's query; InvalidError when they are wrong."""
    return parameters.canonical(cls.parameters, target.partition(b"?")[2].partition(b"#")[0], alone=alone)


def wrong_parameters(function: FunctionSpec, error: InvalidError) -> Refusal:
    """What whoever gave wrong values is told."""
    return Refusal(400, f"modal-http: {function.name}: {error.message}", code="invalid")


def _is_idle(pool: Supervisor) -> bool:
    counts = pool.counts
    return not counts.running and not counts.queued
