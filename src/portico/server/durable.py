"""Stored calls, from their acceptance to the removal of their results. On the control plane's loop.

A call is on disk before its caller hears of it, and marked as started before a container does. So a server that was
killed knows afterwards which ones may have run: those do not run again, unless their function's `retries` allow it.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

from portico.core import durable as decide
from portico.ingress import pages
from portico.ingress.ports import Lease, Refusal
from portico.model.calls import Accepted, Body, CallRecord, CallState, Finished, Outcome, Requeued, Started
from portico.model.errors import NotFoundError, OutputExpiredError
from portico.model.ports import Bodies, CallStore
from portico.server.courier import Delivery, LostError, carry, contents, keep
from portico.server.dataplane import Bridge, DataPlane
from portico.server.journal import Journal
from portico.server.seat import Seat, kill
from portico.wire.calls import CONTENT_TYPE

log = logging.getLogger("portico.durable")

SWEEP: Final = 3600.0  # seconds between removals of old results
_SWEPT: Final = 500  # of them in one transaction
_BREATH: Final = 0.5  # seconds until a call whose container was gone before it came asks for another one


Key = tuple[str, str]  # app id, and the function's name or the line of it, see core/durable.py


def _text(text: str) -> Body:
    data = text.encode()
    return Body(len(data), data)


CANCELLED = Outcome(status=500, body=_text("the call was cancelled"), code="cancelled")
RESTARTED = Outcome(status=500, body=_text("the server was restarted while the call ran"), code="internal")
STOPPED = Outcome(status=404, body=_text("the app was stopped before the call ran"), code="remote")
REMOVED = Outcome(status=404, body=_text("the function is not in the app's new version"), code="remote")
BROKEN = Outcome(status=500, body=_text("the call could not be carried out; see the server's log"), code="internal")


class Job:
    """A call that is in memory."""

    def __init__(self, call: CallRecord) -> None:
        self.call = call
        self.running: asyncio.Task[None] | None = None
        self.lease: Lease | None = None
        self.ending: Outcome | None = None  # what it comes to, because it is ended from outside
        self.terminate = False  # its container goes with it

    def __repr__(self) -> str:
        return f"<Job {self.call.id} of {self.call.function}, {self.call.attempts} attempts>"

    @property
    def key(self) -> Key:
        """Where it waits."""
        return self.call.app_id, self.call.function


class Queue:
    """What waits in one line of a function."""

    def __init__(self) -> None:
        self.line: decide.Line[Job] = decide.Line()
        self.later: list[tuple[float, int, Job]] = []  # retries, by the time at which they are due
        self.timer: asyncio.TimerHandle | None = None
        self.growing: asyncio.TimerHandle | None = None
        self.loading: asyncio.Task[None] | None = None
        self.parked = False  # its app is not up


class DurableCalls:
    """Accepts calls, runs them as their functions have room, keeps what they come to."""

    def __init__(
        self,
        store: Callable[[], Awaitable[CallStore]],
        bodies: Bodies,
        data: DataPlane,
        bridge: Bridge,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._bodies = bodies
        self._data = data
        self._bridge = bridge
        self._now = now
        self._journal = Journal(store)
        self._queues: dict[Key, Queue] = {}
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}  # who waits for which result
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._closing = False
        self._begun = asyncio.Event()
        self._began_at = 0.0  # by the clock of files
        self._interrupted: list[CallRecord] = []  # what an earlier server had started

    def __repr__(self) -> str:
        return f"<DurableCalls {len(self._jobs)} in memory, {len(self._queues)} functions>"

    # -- for the API ----------------------------------------------------------------------------------------------
    async def accept(self, key: Key, head: bytes, client: str, chunks: AsyncIterator[bytes]) -> str:
        """Store a call; its id, once it is on disk."""
        await self._begun.wait()
        call_id = decide.make_id(self._now(), secrets.randbits(80))
        body = await keep(f"{call_id}.request", chunks, self._bodies)
        call = CallRecord(
            id=call_id,
            app_id=key[0],
            function=key[1],
            created_at=self._now(),
            head=head,
            client=client,
            body=body,
        )
        stored = await self._journal.write(Accepted(call))
        assert stored is not None
        job = Job(stored)
        if self._queue(key).line.join(job, stored.position):
            self._jobs[call_id] = job
        self._pump(key)
        return call_id

    def is_long(self, key: Key) -> bool:
        """Whether hundreds of calls wait there."""
        queue = self._queues.get(key)
        return queue is not None and queue.line.more

    async def outcome(self, call_id: str, wait: float | None) -> CallRecord:
        """The call, when it is done, or as it is after so many seconds. NotFoundError, OutputExpiredError."""
        call = await self._known(call_id)
        if call.state is CallState.DONE or wait == 0:
            return call
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(call_id, set()).add(done)
        try:
            call = await self._known(call_id)  # it may have ended before we were heard
            if call.state is not CallState.DONE:
                await asyncio.wait([done], timeout=wait)
                call = await self._known(call_id)
        finally:
            self._waiting[call_id].discard(done)
            if not self._waiting[call_id]:
                del self._waiting[call_id]
        return call

    def contents(self, body: Body) -> AsyncIterator[bytes]:
        """The bytes of a body."""
        return contents(body, self._bodies)

    async def cancel(self, call_id: str, *, terminate: bool) -> None:
        """End a call; one that has ended stays as it is."""
        call = await self._known(call_id)
        queue = self._queues.get((call.app_id, call.function))
        if queue is not None and queue.loading is not None:
            await asyncio.wait([queue.loading])
        call = await self._known(call_id)
        if call.state is CallState.DONE:
            return
        job = self._jobs.get(call_id)
        if job is None:
            await self._finish(call, CANCELLED)
        elif job.running is None:
            job.ending = CANCELLED
            await self._finish(call, CANCELLED)
        else:
            job.terminate = terminate
            self._end(job, CANCELLED)
            await asyncio.wait([job.running])

    # -- for rollouts ---------------------------------------------------------------------------------------------
    def app_live(self, app_id: str) -> None:
        """An app is up, or has a new version: what waits for it may go on."""
        for key in [key for key in self._queues if key[0] == app_id]:
            self._queues[key].parked = False
            self._pump(key)

    def app_ended(self, app_id: str) -> None:
        """An app was stopped, or is no more: what waits for it never runs."""
        if not self._closing:
            self._spawn(self._end_all(app_id))

    async def begin(self) -> None:
        """Look at what an earlier server has left, before any app is up."""
        self._began_at = time.time()
        store = await self._store()
        self._interrupted = await store.started()
        for key in await store.waiting():
            queue = self._queue(key)
            queue.line.more = queue.parked = True
        self._begun.set()

    async def booted(self, deployed: set[str]) -> None:
        """All apps are up that can be; these live. Decide upon what the earlier server has left."""
        for call in self._interrupted:
            await self._job_failed(self._jobs.setdefault(call.id, Job(call)), RESTARTED)
        self._interrupted = []
        for app_id in {app_id for app_id, _ in self._queues} - deployed:
            await self._end_all(app_id)
        store = await self._store()

        async def is_kept(call_id: str) -> bool:
            return await store.call(call_id) is not None

        await self._bodies.sweep(is_kept, self._began_at)
        self._sweep()

    def drain(self) -> None:
        """The server is ending: begin no more, and take no end of an app for the end of its calls."""
        self._closing = True

    async def close(self) -> None:
        """Let go of all. What was started and has not ended, the next server decides upon."""
        self._closing = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for queue in self._queues.values():
            for timer in (queue.timer, queue.growing):
                if timer is not None:
                    timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._journal.flush()

    # -- the queues -----------------------------------------------------------------------------------------------
    def _queue(self, key: Key) -> Queue:
        return self._queues.setdefault(key, Queue())

    def _pump(self, key: Key) -> None:
        """Begin with as many as may be under way."""
        queue = self._queue(key)
        line = queue.line
        if self._closing or queue.parked:
            return
        while job := line.take():
            if job.ending is None:
                job.running = self._spawn(self._run(key, queue, job))
            else:  # it was ended while it waited
                line.under_way -= 1
                line.waiting -= 1
                self._jobs.pop(job.call.id, None)
        if line.runs_short:
            if queue.loading is None:
                queue.loading = self._spawn(self._load(key, queue))
        elif len(line):
            if queue.growing is None:
                queue.growing = asyncio.get_running_loop().call_later(decide.GROWTH, self._grow, key, queue)
        elif line.is_empty and not queue.later:
            del self._queues[key]

    async def _load(self, key: Key, queue: Queue) -> None:
        """Bring the next page in."""
        line = queue.line
        try:
            calls = await (await self._store()).queued(*key, line.begin_page(), decide.PAGE)
            now = self._now()
            jobs = [self._jobs.setdefault(call.id, Job(call)) for call in calls if call.id not in self._jobs]
            ready = [job for job in jobs if (job.call.not_before or 0) <= now]
            line.page(ready, calls[-1].position if calls else line.position, full=len(calls) >= decide.PAGE)
            for job in jobs:
                if job not in ready:
                    self._later(key, job)
        finally:
            queue.loading = None
        self._pump(key)

    def _grow(self, key: Key, queue: Queue) -> None:
        queue.growing = None
        if queue.line.grow():
            self._pump(key)

    def _later(self, key: Key, job: Job) -> None:
        """Its retry is due later."""
        queue = self._queue(key)
        heapq.heappush(queue.later, (job.call.not_before or 0.0, job.call.position, job))
        self._set_timer(key, queue)

    def _set_timer(self, key: Key, queue: Queue) -> None:
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        if queue.later:
            wait = max(0.0, queue.later[0][0] - self._now())
            queue.timer = asyncio.get_running_loop().call_later(wait, self._due, key, queue)

    def _due(self, key: Key, queue: Queue) -> None:
        queue.timer = None
        now = self._now()
        while queue.later and queue.later[0][0] <= now:
            queue.line.again(heapq.heappop(queue.later)[2])
        self._set_timer(key, queue)
        self._pump(key)

    # -- one call -------------------------------------------------------------------------------------------------
    async def _run(self, key: Key, queue: Queue, job: Job) -> None:
        """One attempt."""
        line = queue.line
        target = job.call.head.split(b" ", 2)[1]
        seat = Seat(asyncio.get_running_loop(), target, lambda queued: self._end(job, _timed_out(job.call, queued)))
        waits = True
        try:
            # an id of its own for each attempt: a container may still have to hear of the end of an earlier one
            input_id = f"{job.call.id}-{random.getrandbits(32):08x}"
            self._bridge.post(self._data.seat, seat, key[0], decide.function_of(key[1]), input_id)
            answer = await seat.seated
            line.waiting -= 1
            waits = False
            if isinstance(answer, Refusal):
                await self._refused(key, job, answer)
            else:
                self._pump(key)
                job.lease = answer
                await self._use(job, answer, seat.door, input_id)
        except asyncio.CancelledError:
            if job.lease is None:
                self._bridge.post(seat.leave)
            if job.ending is not None and not self._closing:
                await self._ended(job, job.ending)
        except Exception:
            log.exception("the call %s could not be carried out", job.call.id)
            await self._finish(job.call, BROKEN)
        finally:
            line.under_way -= 1
            line.waiting -= waits
            job.running = job.lease = None
            if job.call.state is CallState.DONE:
                self._jobs.pop(job.call.id, None)
            self._pump(key)

    async def _use(self, job: Job, lease: Lease, door: str, input_id: str) -> None:
        """It has a slot."""
        call = job.call = replace(job.call, state=CallState.STARTED, attempts=job.call.attempts + 1, not_before=None)
        try:
            await self._journal.write(Started(call.id, call.attempts))
        except BaseException:
            self._bridge.post(lease.release)
            raise
        try:
            delivery = await carry(call, input_id, lease, door, self._bodies)
        except LostError as lost:
            # a foreign program says nothing of inputs: it has ended one when its connection has
            self._bridge.post(lease.release if lease.is_foreign else lease.broken)
            if self._closing:
                return
            if lost.untouched:
                await self._again(job, Requeued(call.id, call.attempts - 1, None))
            else:
                await self._job_failed(job, Outcome(status=502, body=_text(_plain(pages.LOST)), code="remote"))
            return
        except BaseException:
            self._bridge.post(lease.release if lease.is_foreign else lease.cancel)
            if job.terminate:
                self._bridge.post(kill, lease)
            raise
        self._bridge.post(lease.hold if delivery.held else lease.release)
        outcome = _outcome(delivery)
        if delivery.failed:
            await self._job_failed(job, outcome)
        else:
            job.call = await self._finish(call, outcome)

    async def _refused(self, key: Key, job: Job, refusal: Refusal) -> None:
        """It got no slot."""
        code = refusal.code
        if self._closing:
            return
        if code in ("exhausted", "function_timeout"):  # other inputs were before it: it goes on waiting
            self._queue(key).line.shrink()
            await asyncio.sleep(refusal.retry_after or 1)
            self._queue(key).line.again(job)
        elif code == "start_failed":
            job.call = replace(job.call, attempts=job.call.attempts + 1)
            await self._job_failed(job, Outcome(status=refusal.status, body=_text(_plain(refusal)), code=code))
        elif refusal is pages.STOPPED:
            job.call = await self._finish(job.call, STOPPED)
        elif refusal is pages.INVALID_CALL:
            job.call = await self._finish(job.call, REMOVED)
        elif code == "invalid":  # the next version of its class has other parameters
            job.call = await self._finish(job.call, Outcome(status=400, body=_text(_plain(refusal)), code=code))
        else:  # its app is not up: it waits for `app_live`
            queue = self._queue(key)
            queue.line.again(job)
            queue.parked = True

    def _end(self, job: Job, outcome: Outcome) -> None:
        """End an attempt from outside."""
        if job.running is not None and job.ending is None:
            job.ending = outcome
            job.running.cancel()

    async def _ended(self, job: Job, outcome: Outcome) -> None:
        """An attempt was ended from outside."""
        job.ending = None
        if outcome is CANCELLED:
            job.call = await self._finish(job.call, outcome)
        else:  # its time was up
            await self._job_failed(job, outcome)

    async def _job_failed(self, job: Job, outcome: Outcome) -> None:
        job.call, change = await self._failed(job.call, outcome)
        if change is not None:
            self._later(job.key, job)
        elif job.running is None:
            self._jobs.pop(job.call.id, None)

    async def _failed(self, call: CallRecord, outcome: Outcome) -> tuple[CallRecord, Requeued | None]:
        """An attempt has failed: it runs again, or this is what it came to."""
        spec = await self._bridge.call(self._data.function, call.app_id, decide.function_of(call.function))
        again = decide.next_attempt(spec.retries if spec is not None else None, call.attempts, self._now())
        if again is None:
            return await self._finish(call, outcome), None
        change = Requeued(call.id, call.attempts, again)
        await self._journal.write(change)
        return replace(call, state=CallState.QUEUED, not_before=again), change

    async def _again(self, job: Job, change: Requeued) -> None:
        """No container has seen it: it is as before."""
        await self._journal.write(change)
        job.call = replace(job.call, state=CallState.QUEUED, attempts=change.attempts, not_before=None)
        await asyncio.sleep(_BREATH)  # containers that die as soon as they are ready must not spin
        self._queue(job.key).line.again(job)

    async def _finish(self, call: CallRecord, outcome: Outcome) -> CallRecord:
        done = replace(call, state=CallState.DONE, finished_at=self._now(), outcome=outcome)
        await self._journal.write(Finished(call.id, self._now(), outcome))
        for waiter in self._waiting.get(call.id, ()):
            if not waiter.done():
                waiter.set_result(None)
        return done

    # -- the rest -------------------------------------------------------------------------------------------------
    async def _known(self, call_id: str) -> CallRecord:
        call = await (await self._store()).call(call_id)
        if call is not None:
            return call
        if decide.is_expired(call_id, self._now()):
            raise OutputExpiredError(f"The result of {call_id} was kept for 7 days, and is gone.")
        raise NotFoundError(f"There is no call {call_id[:64]!r}.")

    async def _end_all(self, app_id: str) -> None:
        """End what waits for an app that is no more."""
        store = await self._store()
        for key in [key for key in await store.waiting() if key[0] == app_id]:
            position = 0
            while calls := await store.queued(*key, position, decide.PAGE):
                position = calls[-1].position
                await asyncio.gather(*(self._end_one(call) for call in calls))

    async def _end_one(self, call: CallRecord) -> None:
        job = self._jobs.get(call.id)
        if job is None or job.running is None:
            if job is not None:
                job.ending = STOPPED
            await self._finish(call, STOPPED)

    def _sweep(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP, self._sweep)
        self._spawn(self.expire())

    async def expire(self) -> None:
        """Remove the results that are too old."""
        store = await self._store()
        while ids := await store.expire(decide.expired_before(self._now()), _SWEPT):
            await self._bodies.remove(ids)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _outcome(delivery: Delivery) -> Outcome:
    return Outcome(status=delivery.status, lines=delivery.lines, body=delivery.body)


def _timed_out(call: CallRecord, queued: int) -> Outcome:
    refusal = pages.timed_out(queued if CONTENT_TYPE in call.head else 0)
    return Outcome(status=refusal.status, body=_text(_plain(refusal)), code=refusal.code)


def _plain(refusal: Refusal) -> str:
    return refusal.text.removeprefix("modal-http: ")
