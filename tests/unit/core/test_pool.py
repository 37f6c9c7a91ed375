"""The pool's decisions: slots, the queue, and who goes first."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from portico.core.pool import Lease, Pool, QueueFullError


def test_an_input_gets_a_free_slot_at_once() -> None:
    """A slot is busy from the moment it is assigned."""
    pool: Pool[str, str] = Pool(slots=1, queue_limit=10)
    member, _ = pool.add("a", now=0)
    lease = pool.acquire("w1", "i1", now=1)
    assert lease is not None
    assert lease.member is member
    assert (member.running, pool.running) == (1, 1)


def test_an_input_without_a_slot_waits() -> None:
    """The second input finds the only slot busy."""
    pool: Pool[str, str] = Pool(slots=1, queue_limit=10)
    pool.add("a", now=0)
    pool.acquire("w1", "i1", now=1)
    assert pool.acquire("w2", "i2", now=1) is None
    assert pool.queued == 1


def test_a_slot_that_is_given_back_goes_to_the_head_of_the_queue() -> None:
    """First in, first out."""
    pool: Pool[str, str] = Pool(slots=1, queue_limit=10)
    pool.add("a", now=0)
    lease = pool.acquire("w1", "i1", now=1)
    pool.acquire("w2", "i2", now=1)
    pool.acquire("w3", "i3", now=1)
    assert lease is not None
    grant = pool.release(lease, now=2)
    assert grant is not None
    assert (grant[0], grant[1].input_id) == ("w2", "i2")


def test_a_slot_is_given_back_only_once() -> None:
    """A second release changes nothing."""
    pool: Pool[str, str] = Pool(slots=1, queue_limit=10)
    pool.add("a", now=0)
    lease = pool.acquire("w1", "i1", now=1)
    assert lease is not None
    pool.release(lease, now=2)
    assert pool.release(lease, now=3) is None
    assert pool.running == 0


def test_the_busiest_container_with_room_is_filled_first() -> None:
    """So that idle ones can go."""
    pool: Pool[str, str] = Pool(slots=3, queue_limit=10)
    pool.add("a", now=0)
    pool.add("b", now=0)
    names = [lease.member.container for n in range(4) if (lease := pool.acquire(f"w{n}", f"i{n}", now=1))]
    assert names == ["b", "b", "b", "a"]


def test_a_full_queue_refuses() -> None:
    """The bound is exact."""
    pool: Pool[str, str] = Pool(slots=1, queue_limit=1)
    pool.acquire("w1", "i1", now=0)
    with pytest.raises(QueueFullError):
        pool.acquire("w2", "i2", now=0)


def test_a_retired_container_gets_no_more_inputs() -> None:
    """Its running input goes on, its slot goes to nobody."""
    pool: Pool[str, str] = Pool(slots=1, queue_limit=10)
    member, _ = pool.add("a", now=0)
    lease = pool.acquire("w1", "i1", now=1)
    pool.acquire("w2", "i2", now=1)
    pool.retire(member)
    assert lease is not None
    assert pool.release(lease, now=2) is None
    assert pool.queued == 1


def test_who_waits_too_long_is_taken_out() -> None:
    """Exactly those who joined before the moment given."""
    pool: Pool[str, str] = Pool(slots=1, queue_limit=10)
    for n in range(3):
        pool.acquire(f"w{n}", f"i{n}", now=n)
    assert pool.expire(joined_before=1) == ["w0", "w1"]
    assert pool.oldest_wait() == 2


def test_inputs_that_run_for_too_long_are_found_once() -> None:
    """With the start of the oldest that is still in time."""
    pool: Pool[str, str] = Pool(slots=3, queue_limit=1)
    pool.add("a", now=0)
    for now in (1, 5, 7):
        pool.acquire(f"w{now}", f"i{now}", now=now)
    late, oldest = pool.overdue(since_before=5)
    assert ([lease.waiter for lease in late], oldest) == (["w1", "w5"], 7)
    assert pool.overdue(since_before=5) == ([], 7)


class PoolMachine(RuleBasedStateMachine):
    """Any order of events keeps the laws that the module states."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: Pool[int, int] = Pool(slots=2, queue_limit=5)
        self.leases: dict[int, Lease[int, int]] = {}
        self.waiting: list[int] = []
        self.members: dict = {}
        self.count = 0

    def take(self, grants: list[tuple[int, Lease[int, int]]]) -> None:
        """Grants go to the head of the queue, in order."""
        for waiter, lease in grants:
            assert waiter == self.waiting.pop(0)
            self.leases[waiter] = lease

    @rule()
    def arrive(self) -> None:
        self.count += 1
        try:
            lease = self.pool.acquire(self.count, str(self.count), now=self.count)
        except QueueFullError:
            assert len(self.waiting) == 5
            return
        if lease is None:
            self.waiting.append(self.count)
        else:
            assert not self.waiting
            self.leases[self.count] = lease

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(sorted(self.leases)))
        grant = self.pool.release(self.leases.pop(waiter), now=self.count)
        self.take([grant] if grant else [])

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.waiting))
        assert self.pool.leave(waiter)
        self.waiting.remove(waiter)

    @rule()
    def add(self) -> None:
        self.count += 1
        member, grants = self.pool.add(self.count, now=self.count)
        self.members[self.count] = member
        self.take(grants)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), gone=st.booleans())
    def retire(self, data: st.DataObject, gone: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.members)))
        member = self.members[name]
        if not gone:
            self.pool.retire(member)
            return
        del self.members[name]
        lost = self.pool.remove(member)
        self.leases = {waiter: lease for waiter, lease in self.leases.items() if lease not in lost}

    @invariant()
    def counts_agree(self) -> None:
        active = [member for member in self.pool.members if not member.retired]
        assert self.pool.running == sum(member.running for member in active)
        assert self.pool.running + self.pool.leaving == len(self.leases)
        assert self.pool.queued == len(self.waiting)
        room = [m for m in self.pool.members if not m.retired and m.running < m.slots]
        assert not (room and self.waiting)
        assert all(m.running <= m.slots for m in self.pool.members)


TestPoolMachine = PoolMachine.TestCase
