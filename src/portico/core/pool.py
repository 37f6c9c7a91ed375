"""The pool of one function: containers times slots, and one queue in front of them.

Laws:
- A slot is busy from the moment it is assigned, not from the moment its input starts.
- The queue is first in, first out; an input waits only while no slot is free.
- Inputs fill the busiest container that has less than its target, so that idle ones can go; among equals, the one used
  last. Once all have their target, the least busy one that has room takes more.
- `running + free == slots` for every container that is not retired; a slot is given back exactly once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

C = TypeVar("C")  # what the shell knows a container by
W = TypeVar("W")  # what the shell knows a waiting input by


class QueueFullError(Exception):
    """The queue has as many inputs as it may have."""


class Member(Generic[C, W]):
    """One container in the pool."""

    __slots__ = ("container", "idle_since", "leases", "retired", "slots")

    def __init__(self, container: C, slots: int, now: float) -> None:
        self.container = container
        self.slots = slots
        self.leases: dict[str, Lease[C, W]] = {}
        self.idle_since = now
        self.retired = False

    @property
    def running(self) -> int:
        """How many of its slots are busy."""
        return len(self.leases)

    def __repr__(self) -> str:
        state = "retired " if self.retired else ""
        return f"<Member {self.container!r} {state}{self.running}/{self.slots}>"


class Lease(Generic[C, W]):
    """A slot of one container, held by one input from its assignment until it is given back."""

    __slots__ = ("awaited", "ended", "input_id", "member", "overdue", "since", "waiter")

    def __init__(self, member: Member[C, W], waiter: W, input_id: str, now: float) -> None:
        self.member = member
        self.waiter = waiter
        self.input_id = input_id
        self.since = now
        self.overdue = False  # it has run for longer than an input may
        self.ended = False  # the container has said that the input is over
        self.awaited = False  # the slot is to be given back when the container says so


class Pool(Generic[C, W]):
    """All decisions about slots; whoever calls it acts on what it returns."""

    def __init__(
        self,
        slots: int,
        queue_limit: int,
        make_lease: Callable[[Member[C, W], W, str, float], Lease[C, W]] = Lease,
        *,
        target: int | None = None,
    ) -> None:
        self.slots = slots
        self.queue_limit = queue_limit
        self.members: dict[Member[C, W], None] = {}
        self._make_lease = make_lease
        self._queue: OrderedDict[W, tuple[str, float]] = OrderedDict()
        # members that have room, by how many inputs they run; `_levels` has bit n set where `_room[n]` is not empty
        self._room: list[dict[Member[C, W], None]] = [{} for _ in range(slots)]
        self._levels = 0
        self._below_target = (1 << (slots if target is None else target)) - 1
        self.running = 0  # inputs in members that get more
        self.leaving = 0  # inputs in retired ones: they ask for no capacity

    def __repr__(self) -> str:
        return f"<Pool {len(self.members)} containers, {self.running} running, {len(self._queue)} queued>"

    @property
    def queued(self) -> int:
        """How many inputs wait."""
        return len(self._queue)

    def acquire(self, waiter: W, input_id: str, now: float) -> Lease[C, W] | None:
        """A slot at once, or None: `waiter` is in the queue. QueueFullError when it cannot be."""
        if self._levels:
            return self._assign(waiter, input_id, now)
        if len(self._queue) >= self.queue_limit:
            raise QueueFullError
        self._queue[waiter] = (input_id, now)
        return None

    def leave(self, waiter: W) -> bool:
        """Take `waiter` out of the queue; whether it was there."""
        return self._queue.pop(waiter, None) is not None

    def release(self, lease: Lease[C, W], now: float) -> tuple[W, Lease[C, W]] | None:
        """Give the slot back; whom it goes to next. A second time changes nothing."""
        member = lease.member
        if member.leases.get(lease.input_id) is not lease:
            return None
        level = len(member.leases)
        del member.leases[lease.input_id]
        if member.retired:
            self.leaving -= 1
            return None
        self.running -= 1
        if level < self.slots:
            self._leave_level(member, level)
        self._enter_level(member, level - 1)
        if level == 1:
            member.idle_since = now
        return self._next(now)

    def add(self, container: C, now: float) -> tuple[Member[C, W], list[tuple[W, Lease[C, W]]]]:
        """A container became ready: its membership, and who gets its slots."""
        member: Member[C, W] = Member(container, self.slots, now)
        self.members[member] = None
        self._enter_level(member, 0)
        grants = []
        while grant := self._next(now):
            grants.append(grant)
        return member, grants

    def retire(self, member: Member[C, W]) -> None:
        """Give it no more inputs; those that it has go on."""
        if not member.retired:
            if len(member.leases) < self.slots:
                self._leave_level(member, len(member.leases))
            member.retired = True
            self.running -= len(member.leases)
            self.leaving += len(member.leases)

    def remove(self, member: Member[C, W]) -> list[Lease[C, W]]:
        """It is gone; the leases that went with it."""
        self.retire(member)
        del self.members[member]
        lost = list(member.leases.values())
        member.leases.clear()
        self.leaving -= len(lost)
        return lost

    def idle(self) -> Iterator[Member[C, W]]:
        """Members that run nothing, the one that has been idle longest first."""
        return iter(self._room[0]) if self.slots else iter(())

    def overdue(self, since_before: float) -> tuple[list[Lease[C, W]], float | None]:
        """The leases that have become overdue, marked as such; and since when the oldest of the others runs."""
        late: list[Lease[C, W]] = []
        oldest: float | None = None
        for member in self.members:
            for lease in member.leases.values():
                if lease.overdue:
                    continue
                if lease.since <= since_before:
                    lease.overdue = True
                    late.append(lease)
                elif oldest is None or lease.since < oldest:
                    oldest = lease.since
        return late, oldest

    def oldest_wait(self) -> float | None:
        """When the input at the head of the queue joined it."""
        return next(iter(self._queue.values()))[1] if self._queue else None

    def expire(self, joined_before: float) -> list[W]:
        """Take out of the queue, and return, those who joined it before then."""
        late = []
        while self._queue and next(iter(self._queue.values()))[1] <= joined_before:
            late.append(self._queue.popitem(last=False)[0])
        return late

    def drain_queue(self) -> list[tuple[W, str]]:
        """Empty the queue; who was in it with which input, in order."""
        waiters = [(waiter, input_id) for waiter, (input_id, _) in self._queue.items()]
        self._queue.clear()
        return waiters

    def _next(self, now: float) -> tuple[W, Lease[C, W]] | None:
        if not self._levels or not self._queue:
            return None
        waiter, (input_id, _) = self._queue.popitem(last=False)
        return waiter, self._assign(waiter, input_id, now)

    def _assign(self, waiter: W, input_id: str, now: float) -> Lease[C, W]:
        below = self._levels & self._below_target
        level = (below or self._levels & -self._levels).bit_length() - 1
        members = self._room[level]
        member, _ = members.popitem()
        if not members:
            self._levels &= ~(1 << level)
        lease = self._make_lease(member, waiter, input_id, now)
        member.leases[input_id] = lease
        self.running += 1
        if level + 1 < self.slots:
            self._enter_level(member, level + 1)
        return lease

    def _enter_level(self, member: Member[C, W], level: int) -> None:
        self._room[level][member] = None
        self._levels |= 1 << level

    def _leave_level(self, member: Member[C, W], level: int) -> None:
        members = self._room[level]
        del members[member]
        if not members:
            self._levels &= ~(1 << level)
