"""One version of one function: its pool, and the containers that demand asks for.

Demand is signalled at once when an input finds no slot, capacity at once when a slot is given back or a container
becomes ready. There is one timer per function, for whatever is due next.

`max_containers` counts every container of this version that is there: also those that start, and those that end.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, cast

from portico.core.backoff import Backoff, Streak
from portico.core.lifecycle import ContainerEvent, ContainerState, after
from portico.core.pool import Lease, Member, Pool, QueueFullError
from portico.core.scaling import covered, desired, startable, surplus
from portico.ingress.ports import Refusal, Waiter
from portico.model.errors import Error, StartError
from portico.model.limits import DEFAULT_LIMITS, Limits
from portico.model.ports import Container, ContainerStart, Engine, StartFailure
from portico.model.spec import Autoscaler, FunctionSpec

log = logging.getLogger("portico.supervisor")

QUEUE_WAIT: Final = 300.0  # seconds that an input may wait
STARTS_AT_ONCE: Final = 2 * (os.cpu_count() or 1)  # containers of one function that start side by side
START_PATIENCE: Final = 1.0  # seconds after which a start no longer counts for that
STOP_GRACE: Final = 30.0  # seconds for a container to run its exit handlers

QUEUE_FULL = Refusal(
    429, "modal-http: too many requests are waiting for this function", retry_after=1, code="exhausted"
)
QUEUE_TIMEOUT = Refusal(503, "modal-http: no container became free in time", retry_after=1, code="function_timeout")
SHUTTING_DOWN = Refusal(503, "modal-http: the server is shutting down", retry_after=5)

CANCEL_GRACE: Final = 5.0  # seconds for an input that ran out of time to end; then its container is killed
CUT_GRACE: Final = 5.0  # seconds for what has drained too long to end by itself
KILLED_IN_A_ROW: Final = 3  # that others ended as they started or soon after; one more counts as one that cannot live
QUICK_DEATH: Final = 5.0  # seconds after which a container that dies is not taken for one that cannot live
NEVER: Final = float("inf")

StartMaker = Callable[[], ContainerStart]  # what to start next, with a new container id
Notify = Callable[[str, str], None]  # takes a container's id and a text for the app's log


class Worker:
    """One container of this function, as the supervisor sees it."""

    __slots__ = ("began", "container", "member", "ready_at", "served", "state", "stopping", "supervisor")

    def __init__(self, supervisor: Supervisor, container: Container, now: float) -> None:
        self.supervisor = supervisor
        self.began = now
        self.container = container
        self.member: Member[Worker, Waiter] | None = None
        self.state = ContainerState.STARTING
        self.ready_at = 0.0
        self.served = False  # an input has ended in it as it should
        self.stopping = False  # it was asked to end: its end is no surprise

    def __repr__(self) -> str:
        return f"<{self.container.id} {self.state.value}>"


class SlotLease(Lease["Worker", Waiter]):
    """A lease as the ingress uses it."""

    __slots__ = ()

    @property
    def address(self) -> str:
        """Where the container serves HTTP."""
        return self.member.container.container.address

    @property
    def is_foreign(self) -> bool:
        """Whether a program of the user's own does."""
        return self.member.container.supervisor.is_foreign

    @property
    def overran(self) -> bool:
        """Whether the container took more memory than it may."""
        return self.member.container.container.overran

    @property
    def stopping(self) -> bool:
        """Whether the container was told to end."""
        return self.member.container.stopping

    @property
    def queued(self) -> int:
        """How many others wait for a slot."""
        return self.member.container.supervisor.pool.queued

    def release(self) -> None:
        """The input has ended."""
        self.member.container.supervisor.give_back(self)

    @property
    def takes_connections(self) -> bool:
        """Whether the container may be handed the client's connection."""
        return self.member.container.container.takes_connections

    def hand_over(self, descriptor: int, head: bytes) -> None:
        """The input goes on in the container alone, on the client's connection."""
        self.member.container.container.hand_over(self.input_id, descriptor, head)
        self.hold()

    def hold(self) -> None:
        """The input goes on after its response."""
        self.awaited = True
        if self.ended:
            self.release()

    def cancel(self) -> None:
        """Nobody waits for the input."""
        self.hold()
        if not self.ended:
            self.member.container.container.cancel(self.input_id)

    def broken(self) -> None:
        """The container does not answer as it should."""
        worker = self.member.container
        self.cancel()
        worker.supervisor.distrust(worker, self)

    def kill(self) -> None:
        """End the container."""
        self.member.container.container.kill()


@dataclass(frozen=True, slots=True)
class Counts:
    """How a function is doing."""

    starting: int
    ready: int
    running: int
    queued: int


class Supervisor:
    """Keeps as many containers as the demand asks for; hands out their slots."""

    def __init__(
        self,
        function: FunctionSpec,
        make_start: StartMaker,
        engine: Engine,
        notify: Notify,
        loop: asyncio.AbstractEventLoop,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.function = function
        self._make_start = make_start
        self._engine = engine
        self._notify = notify
        self._loop = loop
        self.is_foreign = function.program is not None
        self._limits = limits
        self.wish = self.function.autoscaler
        self.autoscaler = _bounded(self.wish, limits)
        slots = function.slots
        self._target = min(function.concurrency.target, slots)
        self.pool: Pool[Worker, Waiter] = Pool(slots, limits.queue, SlotLease, target=self._target)
        self._covered = 0.0  # inputs for which there are, or will be, enough containers
        self._workers: dict[str, Worker] = {}
        self._backoff = Backoff()
        self._last_failure: StartFailure | None = None
        self._quick_deaths = Streak()
        self._killed_starts = Streak()
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = NEVER
        self._look_at = NEVER  # when to look for inputs that have run out of time
        self._overdue: list[tuple[float, Lease[Worker, Waiter]]] = []  # and when their containers are killed
        self._closed = False
        self._drained_by = NEVER  # when a replaced version has gone on for long enough
        self._proofs: list[asyncio.Future[None]] = []
        self._gone = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Supervisor {self.function.name} {self.pool!r}>"

    @property
    def counts(self) -> Counts:
        """How it is doing."""
        states = [worker.state for worker in self._workers.values()]
        starting, ready = states.count(ContainerState.STARTING), states.count(ContainerState.READY)
        return Counts(starting, ready, self.pool.running + self.pool.leaving, self.pool.queued)

    # -- for endpoints --------------------------------------------------------------------------------------------
    def lease(self, waiter: Waiter, input_id: str) -> SlotLease | Refusal | None:
        """A slot at once, a refusal, or None: the waiter hears later."""
        now = self._loop.time()
        if refusal := self._failing(now):
            return refusal
        try:
            lease = self.pool.acquire(waiter, input_id, now)
        except QueueFullError:
            return QUEUE_FULL
        if lease is not None:
            self._watch(now)
        if self.pool.running + self.pool.queued > self._covered:
            self._scale(now)
        elif lease is None:
            self._due_by(now + QUEUE_WAIT)
        return cast("SlotLease | None", lease)

    def leave(self, waiter: Waiter) -> bool:
        """The waiter waits no longer; whether it did."""
        return self.pool.leave(waiter)

    @property
    def room(self) -> int:
        """Inputs that could begin at once."""
        members = self.pool.members
        return sum(member.slots - member.running for member in members if not member.retired)

    def rescale(self, autoscaler: Autoscaler) -> None:
        """From now on, until the next version."""
        self.wish = autoscaler
        self.autoscaler = autoscaler = _bounded(autoscaler, self._limits)
        if autoscaler.max_containers is not None:
            # those above the new bound go at once; what runs in them goes on
            members = sorted(self.pool.members, key=lambda member: member.running)
            present = [member for member in members if not member.retired]
            for member in present[: max(0, self.counts.starting + len(present) - autoscaler.max_containers)]:
                self._retire(member.container)
        self._scale(self._loop.time())

    @property
    def in_use(self) -> bool:
        """Whether it has containers, or inputs that wait for one."""
        return bool(self._workers) or self.pool.queued > 0

    def has_room(self, others: int) -> bool:
        """Whether one more input may wait, next to those that wait here and to so many others."""
        return self.pool.queued + others < self.pool.queue_limit

    def rouse(self) -> None:
        """Start a first container, so that the first input finds it."""
        if not self._workers and not self._closed:
            self._start()

    def keep_minimum(self) -> None:
        """Start what `min_containers` asks for."""
        self._scale(self._loop.time())

    async def prove(self) -> None:
        """Return when one container is ready; StartError when the next start fails."""
        if self.counts.ready:
            return
        proof: asyncio.Future[None] = self._loop.create_future()
        self._proofs.append(proof)
        if not self.counts.starting:
            self._start()
        await proof

    def drain(self) -> list[tuple[Waiter, str]]:
        """It is replaced: who waits, with which input, goes elsewhere; containers go when their inputs have ended.

        Those that take too long are cut off, so that no version stays for ever.
        """
        if not self._closed:
            self._closed = True
            self._drained_by = self._loop.time() + (self._limits.drain or self.function.timeout)
            self._due_by(self._drained_by)
        waiters = self.pool.drain_queue()
        for worker in list(self._workers.values()):
            self._retire(worker)
        self._settle_proofs(StartError("The deployment was replaced."))
        self._check_gone()
        return waiters

    def finish(self, grace: float) -> None:
        """After `drain`: what still runs has so many seconds more."""
        for worker in self._workers.values():
            if not worker.stopping:
                worker.stopping = True
                worker.container.stop(grace)

    async def gone(self) -> None:
        """Wait, after `drain`, until no container is left."""
        await self._gone.wait()

    def kill(self) -> None:
        """End its containers now."""
        for worker in list(self._workers.values()):
            worker.stopping = True
            worker.container.kill()

    # -- for leases -----------------------------------------------------------------------------------------------
    def give_back(self, lease: SlotLease) -> None:
        """A slot is free."""
        member = lease.member
        worker = member.container
        worker.served = True
        now = self._loop.time()
        if self.function.single_use_containers:
            self.pool.retire(member)
        grant = self.pool.release(lease, now)
        if grant is not None:
            waiter, following = grant
            self._watch(now)
            waiter.granted(cast(SlotLease, following))
        elif member.retired:
            self._retire(worker)
            self._scale(now)
        elif not member.leases and self._due_at > now + self.autoscaler.scaledown_window:
            self._scale(now)

    def distrust(self, worker: Worker, lease: SlotLease) -> None:
        """This container is not to be trusted: no more inputs for it, and little time to end this one."""
        self._retire(worker)
        now = self._loop.time()
        self._overdue.append((now + CANCEL_GRACE, lease))
        self._due_by(now + CANCEL_GRACE)
        self._scale(now)

    # -- the engine's events --------------------------------------------------------------------------------------
    def ready(self, container: Container) -> None:
        """A container accepts inputs."""
        worker = self._workers[container.id]
        worker.state = after(worker.state, ContainerEvent.READY)
        if worker.state is not ContainerState.READY:
            return
        self._backoff.succeeded()
        self._last_failure = None
        self._killed_starts.end()
        now = worker.ready_at = self._loop.time()
        worker.member, grants = self.pool.add(worker, now)
        self._settle_proofs(None)
        if grants:
            self._watch(now)
        for waiter, lease in grants:
            waiter.granted(cast(SlotLease, lease))
        self._scale(now)

    def failed(self, container: Container, failure: StartFailure) -> None:
        """A container could not become ready."""
        worker = self._workers[container.id]
        starting = worker.state is ContainerState.STARTING
        worker.state = after(worker.state, ContainerEvent.FAILED)
        if not starting:
            return
        if failure.killed and self._killed_starts.add(worker.began, self._loop.time()) <= KILLED_IN_A_ROW:
            log.warning("%s of %s did not start: %s", container.id, self.function.name, failure.cause)
            self._notify(container.id, f"the container did not start: {failure.cause}")
            if self._proofs and not self.counts.starting:
                self._start()
        else:
            self._start_failed(container.id, failure)

    def finished(self, container: Container, input_id: str) -> None:
        """An input has ended in its container."""
        member = self._workers[container.id].member
        lease = member.leases.get(input_id) if member is not None else None
        if lease is not None:
            lease.ended = True
            if lease.awaited:
                self.give_back(cast(SlotLease, lease))

    def exited(self, container: Container, status: str) -> None:
        """A container is gone."""
        worker = self._workers.pop(container.id)
        state, worker.state = worker.state, after(worker.state, ContainerEvent.EXITED)
        had_inputs = worker.member is not None and bool(self.pool.remove(worker.member))
        if state is ContainerState.STARTING:
            self._start_failed(container.id, StartFailure(f"the container ended while it started ({status})"))
        elif worker.member is not None and not worker.stopping:
            self._died(worker, status, had_inputs=had_inputs)
        if self._closed:
            self._check_gone()
        else:
            self._scale(self._loop.time())

    # -- inside ---------------------------------------------------------------------------------------------------
    def _failing(self, now: float) -> Refusal | None:
        """A refusal while no container runs and the last start failed: waiting would only hide the cause."""
        failure = self._last_failure
        if failure is None or self.pool.members or self._closed:
            return None
        wait = self._backoff.remaining(now)
        if wait <= 0:
            return None
        return _start_refusal(failure, wait)

    def _start(self) -> None:
        try:
            start = self._make_start()
        except Error as error:  # one of its secrets is not there any more
            # later: whoever asked for the container does not expect to be refused before it has been told to wait
            self._loop.call_soon(self._cannot_start, StartFailure(error.message, error.hint or ""))
            return
        container = self._engine.start(start, self)
        self._workers[container.id] = Worker(self, container, self._loop.time())

    def _cannot_start(self, failure: StartFailure) -> None:
        self._start_failed("-", failure)
        self._scale(self._loop.time())

    def _start_failed(self, container_id: str, failure: StartFailure) -> None:
        now = self._loop.time()
        log.warning("%s of %s did not start: %s", container_id, self.function.name, failure.cause)
        self._last_failure = failure
        if not self._backoff.remaining(now):  # else it was started beside the one whose failure is counted already
            self._backoff.failed(now)
        if self._proofs:
            message = f"A container of {self.function.name} did not start: {failure.cause}"
            error = StartError(message, detail=failure.detail or None)
            error.container_id = container_id
            self._settle_proofs(error)
        else:
            self._notify(container_id, f"the container did not start: {failure.cause}\n{failure.detail}")
        counts = self.counts
        if not counts.starting and not counts.ready:
            refusal = _start_refusal(failure, self._backoff.remaining(now))
            for waiter, _ in self.pool.drain_queue():
                waiter.refused(refusal)

    def _died(self, worker: Worker, status: str, *, had_inputs: bool) -> None:
        """A container that was ready has gone unexpectedly. One that does so again and again is a failing start, unless
        its inputs may be why: those fail, and the next ones get a new one. Those that die side by side count as one."""
        log.warning("%s of %s ended unexpectedly: %s", worker.container.id, self.function.name, status)
        self._notify(worker.container.id, f"the container ended unexpectedly: {status}")
        now = self._loop.time()
        quick = not worker.served and not had_inputs and now - worker.ready_at < QUICK_DEATH
        if not quick:
            self._quick_deaths.end()
        elif self._quick_deaths.add(worker.began, now) > (KILLED_IN_A_ROW if worker.container.was_killed else 1):
            self._backoff.failed(now)
            self._last_failure = StartFailure(f"the container ends soon after its start ({status})")

    def _settle_proofs(self, error: StartError | None) -> None:
        proofs, self._proofs = self._proofs, []
        for proof in proofs:
            if proof.done():
                continue
            if error is None:
                proof.set_result(None)
            else:
                proof.set_exception(error)

    def _retire(self, worker: Worker) -> None:
        if worker.state is ContainerState.GONE:
            return  # its end was heard of before the end of its connections
        if worker.member is not None:
            self.pool.retire(worker.member)
        worker.state = after(worker.state, ContainerEvent.RETIRE)
        if not worker.stopping and (worker.member is None or not worker.member.leases):
            worker.stopping = True
            worker.container.stop(STOP_GRACE)

    def _scale(self, now: float) -> None:
        """Start what is missing, retire what is idle in excess, and set the timer for what is due next."""
        if self._closed:
            return
        pool = self.pool
        wanted = desired(pool.running, pool.queued, self._target, self.autoscaler)
        counts = self.counts
        present = counts.starting + counts.ready
        due: list[float] = []
        if present < wanted:
            wait = self._backoff.remaining(now)
            if wait > 0:
                due.append(now + wait)
            else:
                due += self._start_missing(wanted - present, now)
        elif counts.ready:
            going, again = surplus(pool.idle(), present, wanted, self.autoscaler.scaledown_window, now)
            for member in going:
                self._retire(member.container)
            present -= len(going)
            if again is not None:
                due.append(again)
        self._covered = covered(max(present, wanted), self._target, self.autoscaler)
        oldest = pool.oldest_wait()
        if oldest is not None:
            due.append(oldest + QUEUE_WAIT)
        due.append(self._look_at)
        due += [deadline for deadline, _ in self._overdue[:1]]
        self._set_timer(min(due))

    def _start_missing(self, missing: int, now: float) -> list[float]:
        """Start as many as may be now; when to look again, if ever."""
        if (most := self.autoscaler.max_containers) is not None:
            missing = min(missing, most - len(self._workers))
        if self._last_failure:
            missing = min(missing, 1)  # one at a time finds out whether starts work again
        begun = [worker.began for worker in self._workers.values() if worker.state is ContainerState.STARTING]
        starts, again = startable(max(0, missing), begun, STARTS_AT_ONCE, START_PATIENCE, now)
        for _ in range(starts):
            self._start()
        return [] if again is None else [again]

    def _due_by(self, due: float) -> None:
        if self._due_at > due:
            self._set_timer(due)

    def _set_timer(self, due: float) -> None:
        if due == self._due_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due == NEVER else self._loop.call_at(due, self._due)
        self._due_at = due

    def _due(self) -> None:
        self._timer, self._due_at = None, NEVER
        now = self._loop.time()
        for waiter in self.pool.expire(now - QUEUE_WAIT):
            waiter.refused(QUEUE_TIMEOUT)
        if now >= self._look_at:
            self._end_overdue(now)
        while self._overdue and self._overdue[0][0] <= now:
            _, lease = self._overdue.pop(0)
            if lease.input_id in lease.member.leases:
                self._notify(lease.member.container.container.id, "an input did not end when its time was up: killed")
                lease.member.container.container.kill()
        if now >= self._drained_by:
            self._drained_by = NEVER
            self.finish(CUT_GRACE)
        if self._closed:
            self._set_timer(min([self._look_at, self._drained_by, *(deadline for deadline, _ in self._overdue[:1])]))
        else:
            self._scale(now)

    def _watch(self, now: float) -> None:
        """An input begins: look at it when its time is up."""
        if self._look_at == NEVER:
            self._look_at = now + self.function.timeout
            self._due_by(self._look_at)

    def _end_overdue(self, now: float) -> None:
        """Answer the inputs whose time is up, and have their containers end them."""
        late, oldest = self.pool.overdue(now - self.function.timeout)
        self._look_at = NEVER if oldest is None else oldest + self.function.timeout
        for lease in late:
            self._overdue.append((now + CANCEL_GRACE, lease))
            self._notify(
                lease.member.container.container.id,
                f"request {lease.input_id} took longer than timeout={self.function.timeout}",
            )
            if lease.awaited:  # nobody waits for an answer, but the input goes on
                cast(SlotLease, lease).cancel()
            else:
                lease.waiter.timed_out()

    def _check_gone(self) -> None:
        if self._closed and not self._workers:
            self._set_timer(NEVER)
            self._gone.set()


def _bounded(autoscaler: Autoscaler, limits: Limits) -> Autoscaler:
    """With the server's own bound where the function has none."""
    if autoscaler.max_containers is not None:
        return autoscaler
    return replace(autoscaler, max_containers=max(limits.containers, autoscaler.min_containers))


def _start_refusal(failure: StartFailure, wait: float) -> Refusal:
    text = f"modal-http: a container could not start: {failure.cause}"
    return Refusal(503, text, retry_after=max(1, round(wait + 0.5)), code="start_failed")
