"""Demand becomes containers, capacity becomes grants: the supervisor on the engine's double."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from portico.engines.fake import FakeEngine
from portico.ingress.ports import Lease, Refusal
from portico.model.errors import StartError
from portico.model.limits import DEFAULT_LIMITS, Limits
from portico.model.policy import Scope
from portico.model.ports import BuiltImage, ContainerStart, StartFailure
from portico.model.spec import Autoscaler, Concurrency, EntrySpec, FunctionSpec
from portico.server.endpoint import FunctionEndpoint
from portico.server.supervisor import KILLED_IN_A_ROW, STARTS_AT_ONCE, Supervisor


class Input:
    """A waiter that records what it hears."""

    wants_desk = False

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.refusal: Refusal | None = None
        self.late = False
        self.answered = asyncio.Event()

    def granted(self, lease: Lease) -> None:
        self.lease = lease
        self.answered.set()

    def refused(self, refusal: Refusal) -> None:
        self.refusal = refusal
        self.answered.set()

    def timed_out(self) -> None:
        assert self.lease is not None
        self.late = True
        self.lease.cancel()

    def moved(self, endpoint: object) -> None:
        pass


class Bench:
    """A supervisor of one function on a fake engine that waits for the test."""

    def __init__(self, folder: Path, function: FunctionSpec | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        self.engine = FakeEngine(folder, manual=True)
        self.notes: list[str] = []
        self.function = function or FunctionSpec(name="f", module="m", qualname="f")
        self._numbers = itertools.count()
        self.folder = folder
        self.limits = limits
        self.supervisor = self.new()

    def new(self) -> Supervisor:
        loop = asyncio.get_running_loop()
        return Supervisor(
            self.function, self._make_start, self.engine, lambda _, text: self.notes.append(text), loop, self.limits
        )

    def _make_start(self) -> ContainerStart:
        return ContainerStart(
            container_id=f"ct-{next(self._numbers):016x}",
            app_id="ap-1",
            app_name="app",
            version=1,
            ephemeral=False,
            environment="main",
            entry=EntrySpec(module="m"),
            function=self.function,
            image=BuiltImage(key="k", python=Path("/usr/bin/python3")),
            bundle_dir=self.folder,
        )

    def ask(self) -> Input:
        """One more input."""
        asked = Input()
        answer = self.supervisor.lease(asked, f"in-{id(asked)}")
        if isinstance(answer, Refusal):
            asked.refused(answer)
        elif answer is not None:
            asked.granted(answer)
        return asked

    async def ready(self, number: int) -> None:
        await self.engine.containers[number].become_ready()


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    """With a function that takes one input at a time."""
    return Bench(tmp_path)


def scaled(**autoscaler: float) -> FunctionSpec:
    """A function with these autoscaler settings."""
    return FunctionSpec(name="f", module="m", qualname="f", autoscaler=Autoscaler(**autoscaler))  # type: ignore[arg-type]


async def test_a_request_without_a_container_starts_one_and_gets_it(bench: Bench) -> None:
    """From zero."""
    asked = bench.ask()
    assert len(bench.engine.containers) == 1
    await bench.ready(0)
    assert asked.lease is not None
    assert asked.lease.address == bench.engine.containers[0].address


async def test_request_number_two_starts_a_second_container(bench: Bench) -> None:
    """The first is busy with one input."""
    bench.ask()
    await bench.ready(0)
    second = bench.ask()
    assert len(bench.engine.containers) == 2
    await bench.ready(1)
    assert second.lease is not None


async def test_no_more_containers_start_than_max_containers(tmp_path: Path) -> None:
    """The rest waits in line."""
    bench = Bench(tmp_path, scaled(max_containers=2))
    inputs = [bench.ask() for _ in range(5)]
    assert len(bench.engine.containers) == 2
    await bench.ready(0)
    await bench.ready(1)
    assert [asked.lease is not None for asked in inputs] == [True, True, False, False, False]
    assert inputs[0].lease is not None
    inputs[0].lease.release()
    assert inputs[2].lease is not None


async def test_a_container_with_many_slots_takes_many_inputs(tmp_path: Path) -> None:
    """As many as max_inputs."""
    function = FunctionSpec(name="f", module="m", qualname="f", concurrency=Concurrency(max_inputs=3))
    bench = Bench(tmp_path, function)
    inputs = [bench.ask() for _ in range(3)]
    assert len(bench.engine.containers) == 1
    await bench.ready(0)
    assert all(asked.lease is not None for asked in inputs)


async def test_every_start_is_asked_for_in_the_turn_of_the_loop_in_which_the_demand_comes(bench: Bench) -> None:
    """From zero, and when all are busy: nothing is polled."""
    engine = bench.engine
    started = [len(engine.containers)]
    for number in range(2):
        bench.ask()
        started.append(len(engine.containers))
        await bench.ready(number)
    assert started == [0, 1, 2]


async def test_target_inputs_start_a_container_before_the_others_are_full(tmp_path: Path) -> None:
    """And inputs go where there are fewest, once all have their target."""
    function = FunctionSpec(name="f", module="m", qualname="f", concurrency=Concurrency(max_inputs=4, target_inputs=2))
    bench = Bench(tmp_path, function)
    inputs = [bench.ask() for _ in range(2)]
    await bench.ready(0)
    assert len(bench.engine.containers) == 1
    inputs.append(bench.ask())
    assert inputs[2].lease is not None
    assert len(bench.engine.containers) == 2
    await bench.ready(1)
    inputs += [bench.ask() for _ in range(3)]
    assert [asked.lease.address for asked in inputs if asked.lease] == [
        bench.engine.containers[number].address for number in (0, 0, 0, 1, 1, 1)
    ]


async def test_a_buffer_is_made_up_for_at_once(tmp_path: Path) -> None:
    """An input that takes the spare container has another one started."""
    bench = Bench(tmp_path, scaled(buffer_containers=1))
    bench.ask()
    for number in range(2):
        await bench.ready(number)
    assert len(bench.engine.containers) == 2
    assert bench.ask().lease is not None
    assert len(bench.engine.containers) == 3


async def test_few_containers_start_side_by_side(tmp_path: Path) -> None:
    """A crowd starts no crowd; each one that is ready lets the next one start."""
    bench = Bench(tmp_path)
    inputs = [bench.ask() for _ in range(50)]
    assert len(bench.engine.containers) == STARTS_AT_ONCE
    await bench.ready(0)
    assert len(bench.engine.containers) == STARTS_AT_ONCE + 1
    assert inputs[0].lease is not None


async def test_a_slow_start_keeps_no_other_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes long waits for something else than the processor."""
    monkeypatch.setattr("portico.server.supervisor.START_PATIENCE", 0.01)
    bench = Bench(tmp_path)
    for _ in range(STARTS_AT_ONCE + 1):
        bench.ask()
    while len(bench.engine.containers) < STARTS_AT_ONCE + 1:
        await asyncio.sleep(0.001)


async def test_a_function_without_max_containers_has_the_servers_bound(tmp_path: Path) -> None:
    """Only more min_containers are more."""
    bench = Bench(tmp_path, limits=Limits(containers=2))
    for _ in range(5):
        bench.ask()
    assert len(bench.engine.containers) == 2
    many = Bench(tmp_path, scaled(min_containers=3), Limits(containers=2))
    many.supervisor.keep_minimum()
    assert len(many.engine.containers) == 3


async def test_a_container_that_still_ends_counts_for_max_containers(tmp_path: Path) -> None:
    """The next one starts when it is gone."""
    bench = Bench(tmp_path, scaled(max_containers=1, scaledown_window=0.001))
    asked = bench.ask()
    await bench.ready(0)
    first = bench.engine.containers[0]
    first.stop = lambda grace: None  # type: ignore[method-assign]  # it takes its time
    assert asked.lease is not None
    asked.lease.release()
    while bench.supervisor.counts.ready:
        await asyncio.sleep(0.001)
    following = bench.ask()
    assert len(bench.engine.containers) == 1
    first.exit("exit code 0")
    assert len(bench.engine.containers) == 2
    await bench.ready(1)
    assert following.lease is not None


async def test_a_broken_container_that_does_not_end_its_input_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the next one may start."""
    monkeypatch.setattr("portico.server.supervisor.CANCEL_GRACE", 0.01)
    bench = Bench(tmp_path, scaled(max_containers=1))
    asked = bench.ask()
    await bench.ready(0)
    container = bench.engine.containers[0]
    container.finish = lambda input_id: None  # type: ignore[method-assign]
    assert asked.lease is not None
    asked.lease.broken()
    following = bench.ask()
    while not container.gone:
        await asyncio.sleep(0.001)
    await bench.ready(1)
    assert following.lease is not None


async def test_past_the_queue_limit_inputs_are_refused_at_once(tmp_path: Path) -> None:
    """429, with the time to come again; running inputs are not counted, and one that leaves makes room."""
    bench = Bench(tmp_path, scaled(max_containers=1), Limits(queue=2))
    bench.ask()
    await bench.ready(0)
    waiting = [bench.ask() for _ in range(2)]
    refused = bench.ask().refusal
    assert refused is not None
    assert (refused.status, refused.retry_after) == (429, 1)
    bench.supervisor.leave(waiting[0])
    assert bench.ask().refusal is None


async def test_an_input_that_waits_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, with the time to come again."""
    monkeypatch.setattr("portico.server.supervisor.QUEUE_WAIT", 0.01)
    bench = Bench(tmp_path, scaled(max_containers=1))
    bench.ask()
    await bench.ready(0)
    waiting = bench.ask()
    await waiting.answered.wait()
    assert waiting.refusal is not None
    assert (waiting.refusal.status, waiting.refusal.retry_after) == (503, 1)


async def test_an_idle_container_goes_after_the_window(tmp_path: Path) -> None:
    """Down to zero."""
    bench = Bench(tmp_path, scaled(scaledown_window=0.01))
    asked = bench.ask()
    await bench.ready(0)
    assert asked.lease is not None
    asked.lease.release()
    while bench.engine.living:
        await asyncio.sleep(0.001)
    assert bench.engine.containers[0].stopped is not None


async def test_min_containers_are_started_and_stay(tmp_path: Path) -> None:
    """And are replaced when they die."""
    bench = Bench(tmp_path, scaled(min_containers=1, scaledown_window=0.01))
    bench.supervisor.keep_minimum()
    await bench.ready(0)
    await asyncio.sleep(0.03)
    assert len(bench.engine.living) == 1
    bench.engine.containers[0].exit("signal 9 (SIGKILL)")
    assert len(bench.engine.containers) == 2


async def test_waiting_requests_are_refused_with_the_cause_when_no_container_can_start(bench: Bench) -> None:
    """503 with its first line, and when to come again."""
    asked = bench.ask()
    bench.engine.containers[0].fail(StartFailure("ModuleNotFoundError: No module named 'nope'", "trace"))
    assert asked.refusal is not None
    assert asked.refusal.status == 503
    assert "No module named 'nope'" in asked.refusal.text
    assert asked.refusal.retry_after == 1
    assert "trace" in bench.notes[0]


async def test_starts_back_off_after_a_failure(bench: Bench) -> None:
    """The next request is answered at once, and starts nothing."""
    bench.ask()
    bench.engine.containers[0].fail(StartFailure("no"))
    again = bench.ask()
    assert again.refusal is not None
    assert len(bench.engine.containers) == 1


async def test_a_start_that_somebody_kills_is_tried_again_at_once(bench: Bench) -> None:
    """Whoever waits for it is not refused."""
    asked = bench.ask()
    bench.engine.containers[0].fail(StartFailure("signal 9 (SIGKILL)", killed=True))
    assert asked.refusal is None
    await bench.ready(1)
    assert asked.lease is not None


async def test_starts_that_are_killed_together_count_as_one(tmp_path: Path) -> None:
    """Their template was, say."""
    bench = Bench(tmp_path)
    asked = [bench.ask() for _ in range(STARTS_AT_ONCE)]
    for container in list(bench.engine.containers):
        container.fail(StartFailure("signal 9 (SIGKILL)", killed=True))
    assert len(bench.engine.containers) > STARTS_AT_ONCE
    assert not any(one.refusal for one in asked)


async def test_starts_that_are_killed_again_and_again_are_failures(bench: Bench) -> None:
    """A function that, say, takes all memory while it starts."""
    asked = bench.ask()
    for number in range(KILLED_IN_A_ROW):
        bench.engine.containers[number].fail(StartFailure("signal 9 (SIGKILL)", killed=True))
        assert asked.refusal is None
    bench.engine.containers[KILLED_IN_A_ROW].fail(StartFailure("signal 9 (SIGKILL)", killed=True))
    assert asked.refusal is not None
    assert "SIGKILL" in asked.refusal.text


async def test_a_start_that_fails_beside_a_working_container_refuses_nobody(bench: Bench) -> None:
    """Those who wait get the working one's slots."""
    first = bench.ask()
    await bench.ready(0)
    second = bench.ask()
    bench.engine.containers[1].fail(StartFailure("no"))
    assert second.refusal is None
    assert first.lease is not None
    first.lease.release()
    assert second.lease is not None


async def test_a_container_that_dies_is_replaced_when_requests_wait(tmp_path: Path) -> None:
    """The one that waits is not forgotten."""
    bench = Bench(tmp_path, scaled(max_containers=1))
    bench.ask()
    await bench.ready(0)
    waiting = bench.ask()
    bench.engine.containers[0].exit("signal 9 (SIGKILL)")
    assert len(bench.engine.containers) == 2
    await bench.ready(1)
    assert waiting.lease is not None


async def test_a_held_slot_is_free_when_the_container_says_so(tmp_path: Path) -> None:
    """Whichever comes first, the response's end or the container's word."""
    bench = Bench(tmp_path, scaled(max_containers=1))
    first = bench.ask()
    await bench.ready(0)
    second, third = bench.ask(), bench.ask()
    assert first.lease is not None
    first.lease.hold()
    assert second.lease is None
    bench.engine.containers[0].finish(f"in-{id(first)}")
    assert second.lease is not None
    bench.engine.containers[0].finish(f"in-{id(second)}")
    assert third.lease is None
    second.lease.hold()
    assert third.lease is not None


async def test_a_cancelled_input_keeps_its_slot_until_it_has_ended(tmp_path: Path) -> None:
    """The container is asked to end it."""
    bench = Bench(tmp_path, scaled(max_containers=1))
    first = bench.ask()
    await bench.ready(0)
    second = bench.ask()
    assert first.lease is not None
    first.lease.cancel()
    assert second.lease is None
    assert bench.engine.containers[0].cancelled == [f"in-{id(first)}"]
    await second.answered.wait()
    assert second.lease is not None


async def test_an_input_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """Its slot is free when the container says so."""
    bench = Bench(tmp_path, FunctionSpec(name="f", module="m", qualname="f", timeout=0))
    asked = bench.ask()
    await bench.ready(0)
    while not asked.late:
        await asyncio.sleep(0.001)
    assert bench.engine.containers[0].cancelled == [f"in-{id(asked)}"]
    while bench.supervisor.counts.running:
        await asyncio.sleep(0.001)
    assert "took longer" in bench.notes[0]


async def test_an_input_that_outlives_its_answer_is_ended_when_its_time_is_up(tmp_path: Path) -> None:
    """Nobody waits for it any more, but its container is told."""
    bench = Bench(tmp_path, FunctionSpec(name="f", module="m", qualname="f", timeout=0))
    asked = bench.ask()
    await bench.ready(0)
    assert asked.lease is not None
    asked.lease.hold()
    while bench.supervisor.counts.running:
        await asyncio.sleep(0.001)
    assert bench.engine.containers[0].cancelled == [f"in-{id(asked)}"]
    assert not asked.late


async def test_an_input_that_waited_long_for_its_container_has_its_whole_time(tmp_path: Path) -> None:
    """The time counts from the start of the input, and counts for those who waited."""
    bench = Bench(tmp_path, FunctionSpec(name="f", module="m", qualname="f", timeout=0))
    asked = bench.ask()
    await asyncio.sleep(0.02)
    assert not asked.late
    await bench.ready(0)
    while not asked.late:
        await asyncio.sleep(0.001)


async def test_a_container_that_does_not_end_a_late_input_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And replaced for the next one."""
    monkeypatch.setattr("portico.server.supervisor.CANCEL_GRACE", 0.01)
    bench = Bench(tmp_path, FunctionSpec(name="f", module="m", qualname="f", timeout=0))
    bench.ask()
    container = bench.engine.containers[0]
    container.finish = lambda input_id: None  # type: ignore[method-assign]
    await bench.ready(0)
    while not container.gone:
        await asyncio.sleep(0.001)
    assert container.killed


async def test_a_broken_container_gets_no_more_inputs(bench: Bench) -> None:
    """A new one is started for the next."""
    first = bench.ask()
    await bench.ready(0)
    assert first.lease is not None
    first.lease.broken()
    bench.ask()
    assert len(bench.engine.containers) == 2


async def test_a_proof_fails_with_the_traceback(bench: Bench) -> None:
    """So does the deploy."""
    proof = asyncio.ensure_future(bench.supervisor.prove())
    await asyncio.sleep(0)
    bench.engine.containers[0].fail(StartFailure("ValueError: x", "Traceback: …"))
    with pytest.raises(StartError, match="ValueError: x") as caught:
        await proof
    assert caught.value.detail == "Traceback: …"


async def test_a_proof_whose_container_somebody_kills_gets_another(bench: Bench) -> None:
    """The deploy succeeds."""
    proof = asyncio.ensure_future(bench.supervisor.prove())
    await asyncio.sleep(0)
    bench.engine.containers[0].fail(StartFailure("signal 9 (SIGKILL)", killed=True))
    await bench.ready(1)
    await proof


async def test_a_drained_version_ends_when_its_inputs_have(bench: Bench) -> None:
    """Not before."""
    asked = bench.ask()
    await bench.ready(0)
    bench.supervisor.drain()
    gone = asyncio.ensure_future(bench.supervisor.gone())
    await asyncio.sleep(0)
    assert not gone.done()
    assert bench.engine.containers[0].stopped is None
    assert asked.lease is not None
    asked.lease.release()
    await gone


async def test_a_quickly_dying_container_is_a_failing_start(bench: Bench) -> None:
    """The second time in a row, requests are told instead of kept waiting."""
    for number in range(2):
        bench.supervisor.rouse()
        await bench.ready(number)
        bench.engine.containers[number].exit("signal 11 (SIGSEGV)")
    refused = bench.ask()
    assert refused.refusal is not None
    assert "SIGSEGV" in refused.refusal.text


async def test_containers_that_somebody_kills_soon_are_no_failing_starts_at_first(bench: Bench) -> None:
    """Only the fourth time in a row."""
    for number in range(4):
        asked = bench.ask()
        assert asked.refusal is None
        assert bench.supervisor.leave(asked)
        await bench.ready(number)
        bench.engine.containers[number].was_killed = True
        bench.engine.containers[number].exit("signal 9 (SIGKILL)")
    assert bench.ask().refusal is not None


async def test_containers_that_die_of_their_inputs_are_no_failing_starts(bench: Bench) -> None:
    """However quickly, and however often: the next input gets a new one at once."""
    for number in range(4):
        asked = bench.ask()
        await bench.ready(number)
        assert asked.lease is not None
        bench.engine.containers[number].exit("exit code 7")
    assert bench.ask().refusal is None
    assert len(bench.engine.containers) == 5


async def test_a_container_that_dies_after_it_has_served_is_no_failing_start(bench: Bench) -> None:
    """However often."""
    for number in range(3):
        asked = bench.ask()
        await bench.ready(number)
        assert asked.lease is not None
        asked.lease.release()
        bench.engine.containers[number].exit("signal 9 (SIGKILL)")
    assert bench.ask().refusal is None


async def test_a_container_that_breaks_its_connections_before_it_is_gone_has_died_too(bench: Bench) -> None:
    """Which end is heard of first, changes nothing."""
    for number in range(2):
        asked = bench.ask()
        await bench.ready(number)
        assert asked.lease is not None
        asked.lease.broken()
        bench.engine.containers[number].exit("exit code 3")
    assert "exit code 3" in bench.notes[0]
    assert bench.ask().refusal is None


@pytest.mark.parametrize("verb", ["release", "hold", "cancel", "broken"])
async def test_a_lease_may_end_after_its_container_has(bench: Bench, verb: str) -> None:
    """The last bytes of a connection can come after the news of the process's end."""
    asked = bench.ask()
    await bench.ready(0)
    bench.engine.containers[0].exit("exit code 0")
    assert asked.lease is not None
    getattr(asked.lease, verb)()
    assert bench.supervisor.pool.running == bench.supervisor.pool.leaving == 0


async def test_starts_that_fail_side_by_side_are_one_failure(bench: Bench) -> None:
    """A crowd does not put off the next try."""
    for _ in range(8):
        bench.ask()
    for container in bench.engine.living:
        container.fail(StartFailure("no"))
    refused = bench.ask().refusal
    assert refused is not None
    assert refused.retry_after == 1


async def test_while_an_endpoint_is_held_inputs_wait_for_the_next_version(bench: Bench) -> None:
    """And go to it in order."""
    endpoint = FunctionEndpoint(bench.supervisor, Scope(), "ap-1")
    endpoint.hold()
    asked = Input()
    assert endpoint.lease(asked, "in-1") is None
    assert not bench.engine.containers
    following = bench.new()
    endpoint.switch(following)
    await bench.ready(0)
    assert asked.lease is not None
    assert following.pool.running == 1


async def test_a_held_endpoint_keeps_no_more_inputs_than_a_queue(bench: Bench) -> None:
    """The bound is the same."""
    bench.supervisor.pool.queue_limit = 1
    endpoint = FunctionEndpoint(bench.supervisor, Scope(), "ap-1")
    endpoint.hold()
    assert endpoint.lease(Input(), "in-1") is None
    refusal = endpoint.lease(Input(), "in-2")
    assert isinstance(refusal, Refusal)
    assert refusal.status == 429


async def test_those_who_wait_for_an_old_version_move_to_the_new_one(bench: Bench) -> None:
    """Nothing is lost in a deploy."""
    endpoint = FunctionEndpoint(bench.supervisor, Scope(), "ap-1")
    asked = bench.ask()
    endpoint.switch(bench.new())
    await bench.ready(1)
    assert asked.lease is not None


async def test_a_stopped_endpoint_refuses_those_who_wait(bench: Bench) -> None:
    """At once."""
    endpoint = FunctionEndpoint(bench.supervisor, Scope(), "ap-1")
    asked = bench.ask()
    endpoint.stop(Refusal(404, "stopped"))
    assert asked.refusal is not None
