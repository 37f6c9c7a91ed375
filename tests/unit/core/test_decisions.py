"""Scaling, back-off, container life, deadlines and routes: decisions without a clock."""

import pytest

from portico.core.backoff import Backoff
from portico.core.lifecycle import ContainerEvent, ContainerState, LifecycleError, after
from portico.core.pool import Pool
from portico.core.scaling import covered, desired, startable, surplus
from portico.core.wheel import Wheel
from portico.model.spec import Autoscaler


@pytest.mark.parametrize(
    ("running", "queued", "target", "scaler", "wanted"),
    [
        (0, 0, 1, Autoscaler(), 0),
        (1, 1, 1, Autoscaler(), 2),
        (3, 2, 2, Autoscaler(), 3),
        (0, 100, 1, Autoscaler(max_containers=4), 4),
        (0, 0, 1, Autoscaler(min_containers=2), 2),
        (1, 0, 1, Autoscaler(buffer_containers=2), 3),
        (0, 0, 1, Autoscaler(buffer_containers=2), 0),
    ],
)
def test_as_many_containers_as_the_demand_asks_for(
    running: int, queued: int, target: int, scaler: Autoscaler, wanted: int
) -> None:
    """Enough for all inputs, the buffer while there are any, within the bounds."""
    assert desired(running, queued, target, scaler) == wanted


@pytest.mark.parametrize(
    ("containers", "target", "scaler", "inputs"),
    [
        (2, 3, Autoscaler(), 6),
        (2, 3, Autoscaler(buffer_containers=1), 3),
        (1, 3, Autoscaler(buffer_containers=2), 0),
        (2, 3, Autoscaler(max_containers=2), float("inf")),
    ],
)
def test_so_many_inputs_ask_for_no_further_container(
    containers: int, target: int, scaler: Autoscaler, inputs: float
) -> None:
    """One more does, unless there may be none."""
    assert covered(containers, target, scaler) == inputs


@pytest.mark.parametrize(
    ("missing", "begun", "starts"),
    [
        (2, [], (2, None)),
        (9, [], (4, 11)),
        (9, [9.5, 9.8], (2, 10.5)),
        (9, [9.2, 9.5, 9.8, 9.9], (0, 10.2)),
        (9, [1.0, 2.0, 9.8], (3, 10.8)),
    ],
)
def test_few_containers_start_side_by_side(missing: int, begun: list[float], starts: tuple[int, float | None]) -> None:
    """The others when one of them is ready, or takes so long that it is not the processor that it waits for."""
    assert startable(missing, begun, at_once=4, patience=1, now=10) == starts


def test_containers_idle_for_the_whole_window_go_and_the_next_look_is_known() -> None:
    """The one that has been idle longest goes first."""
    pool: Pool[str, str] = Pool(slots=1, queue_limit=1)
    first, _ = pool.add("a", now=0)
    pool.add("b", now=5)
    assert surplus(pool.idle(), present=2, wanted=0, window=10, now=12) == ([first], 15)


def test_no_container_goes_that_is_wanted() -> None:
    """The minimum stays, however idle."""
    pool: Pool[str, str] = Pool(slots=1, queue_limit=1)
    pool.add("a", now=0)
    assert surplus(pool.idle(), present=1, wanted=1, window=10, now=100) == ([], None)


def test_the_wait_after_failures_doubles_up_to_its_bound() -> None:
    """Half a second, one, two, …, thirty."""
    backoff = Backoff()
    waits = []
    for _ in range(9):
        backoff.failed(now=100)
        waits.append(backoff.remaining(now=100))
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_old_failures_are_forgotten() -> None:
    """A failure long after the last one is a first one."""
    backoff = Backoff()
    for _ in range(5):
        backoff.failed(now=0)
    backoff.failed(now=1000)
    assert backoff.remaining(now=1000) == 0.5


def test_a_container_cannot_become_ready_twice() -> None:
    """An absent entry of the table raises."""
    with pytest.raises(LifecycleError):
        after(ContainerState.READY, ContainerEvent.READY)


def test_a_container_told_to_go_while_it_starts_does_not_come_back() -> None:
    """Ready comes too late."""
    state = after(ContainerState.STARTING, ContainerEvent.RETIRE)
    assert after(state, ContainerEvent.READY) is ContainerState.RETIRING


class Item:
    """Something with a deadline."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline


def test_the_wheel_gives_what_is_late_and_keeps_what_has_moved() -> None:
    """An item moves its deadline without telling the wheel."""
    wheel: Wheel[Item] = Wheel()
    late, moved = Item(1.5), Item(1.5)
    wheel.put(late, now=0)
    wheel.put(moved, now=0)
    moved.deadline = 7
    assert wheel.turn(now=2) == [late]
    assert wheel.turn(now=8) == [moved]
    assert len(wheel) == 0
