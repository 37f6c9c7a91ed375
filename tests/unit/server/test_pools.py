"""A class with parameters: a pool for each set of their values, and not more of them than there may be."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from portico.engines.fake import FakeEngine
from portico.ingress.ports import Lease, Refusal
from portico.model.errors import StartError
from portico.model.naming import door_of
from portico.model.policy import Scope
from portico.model.ports import BuiltImage, ContainerStart, StartFailure
from portico.model.spec import (
    Autoscaler,
    ClassSpec,
    EntrySpec,
    FunctionSpec,
    MethodSpec,
    ParameterKind,
    ParameterSpec,
    WebKind,
    WebSpec,
)
from portico.server.endpoint import FunctionEndpoint, MethodEndpoint
from portico.server.pools import LIMIT, Pools
from portico.server.supervisor import Supervisor


class Input:
    """A waiter that records what it hears."""

    wants_desk = False

    def __init__(self, target: str) -> None:
        self.target = target.encode()
        self.door = "?"
        self.lease: Lease | None = None
        self.refusal: Refusal | None = None

    def granted(self, lease: Lease) -> None:
        self.lease = lease

    def refused(self, refusal: Refusal) -> None:
        self.refusal = refusal

    def timed_out(self) -> None:
        pass

    def moved(self, endpoint: object) -> None:
        pass


def function(*parameters: ParameterSpec, methods: tuple[str, ...] = ("f", "g"), **more: object) -> FunctionSpec:
    """A class with these parameters."""
    cls = ClassSpec(methods=tuple(MethodSpec(name=name) for name in methods), parameters=parameters)
    return FunctionSpec(name="Model", module="m", qualname="Model", cls=cls, **more)  # type: ignore[arg-type]


SIZE = ParameterSpec(name="size", kind=ParameterKind.INT)
WITH_DEFAULT = ParameterSpec(name="size", kind=ParameterKind.INT, default="3")


class Bench:
    """Pools on a fake engine that waits for the test."""

    def __init__(self, folder: Path, spec: FunctionSpec) -> None:
        self.engine = FakeEngine(folder, manual=True)
        self.folder = folder
        self._numbers = itertools.count()
        self.pools = self.new(spec)
        self.endpoint = FunctionEndpoint(self.pools, Scope(), "ap-1")
        self.method = self.at("f", called=False)

    def at(self, method: str, *, called: bool) -> MethodEndpoint:
        part = next(part for part in self.pools.function.parts if part.name == f"Model.{method}")
        return MethodEndpoint(self.endpoint, part, called=called)

    def new(self, spec: FunctionSpec) -> Pools:
        return Pools(spec, lambda text: self._supervisor(spec, text))

    def _supervisor(self, spec: FunctionSpec, text: str | None) -> Supervisor:
        def start() -> ContainerStart:
            return ContainerStart(
                container_id=f"ct-{next(self._numbers):016x}",
                app_id="ap-1",
                app_name="app",
                version=1,
                ephemeral=False,
                environment="main",
                entry=EntrySpec(module="m"),
                function=spec,
                image=BuiltImage(key="k", python=Path("/usr/bin/python3")),
                bundle_dir=self.folder,
                parameters=text,
            )

        return Supervisor(spec, start, self.engine, lambda *_: None, asyncio.get_running_loop())

    def ask(self, target: str, method: MethodEndpoint | None = None) -> Input:
        """One more input."""
        asked = Input(target)
        answer = (method or self.method).lease(asked, f"in-{id(asked)}")
        if isinstance(answer, Refusal):
            asked.refused(answer)
        elif answer is not None:
            asked.granted(answer)
        return asked

    async def served(self, target: str) -> Input:
        """An input that has a slot."""
        asked = self.ask(target)
        if asked.lease is None and asked.refusal is None:
            await self.engine.containers[-1].become_ready()
        return asked

    @property
    def parameters(self) -> list[str | None]:
        """Those of all containers that were started."""
        return [container.start.parameters for container in self.engine.containers]


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    """A class whose only parameter has to be given."""
    return Bench(tmp_path, function(SIZE))


async def test_each_set_of_values_has_containers_of_its_own(bench: Bench) -> None:
    """However it is written; the rest of the query makes no difference."""
    first, other = await bench.served("/?size=1"), await bench.served("/?size=2")
    assert first.lease is not None
    first.lease.release()
    again = bench.ask("/a/b?x=1&size=%31&y=2")
    assert bench.parameters == ["size=1", "size=2"]
    assert again.lease is not None
    assert again.lease.address == first.lease.address
    assert other.lease is not None
    assert other.lease.address != first.lease.address


async def test_methods_share_containers(bench: Bench) -> None:
    """Each has a door of its own in them."""
    g = bench.at("g", called=True)
    asked = await bench.served("/?size=1")
    waits = bench.ask("/?size=1", g)
    assert (asked.door, waits.door) == (door_of("f"), door_of("g"))
    assert waits.lease is None
    assert asked.lease is not None
    asked.lease.release()
    assert waits.lease is not None
    assert waits.lease.address == asked.lease.address


@pytest.mark.parametrize("target", ["/", "/?", "/?size=a", "/?size=1&size=2"])
async def test_wrong_values_are_refused_and_start_nothing(bench: Bench, target: str) -> None:
    """The answer names the parameter."""
    refusal = bench.ask(target).refusal
    assert refusal is not None
    assert (refusal.status, refusal.code) == (400, "invalid")
    assert "'size'" in refusal.text
    assert not bench.engine.containers


async def test_a_call_has_no_other_parameters(bench: Bench) -> None:
    """What is more would go unheard."""
    refusal = bench.ask("/?size=1&colour=red", bench.at("f", called=True)).refusal
    assert refusal is not None
    assert "no parameter 'colour'" in refusal.text


async def test_the_number_of_pools_is_bounded(bench: Bench) -> None:
    """When all have inputs the next is refused at once; when one has none, that one goes."""
    running = [await bench.served(f"/?size={n}") for n in range(LIMIT)]
    refusal = bench.ask("/?size=1000").refusal
    assert refusal is not None
    assert (refusal.status, refusal.retry_after) == (429, 1)
    assert len(bench.engine.containers) == LIMIT
    assert running[5].lease is not None
    running[5].lease.release()
    asked = await bench.served("/?size=1000")
    assert asked.lease is not None
    assert bench.engine.containers[5].stopped is not None
    assert bench.ask("/?size=5").refusal is not None


async def test_the_pool_used_last_stays(bench: Bench) -> None:
    """Of those without inputs, the one goes that was not used for longest."""
    for n in (*range(LIMIT), 0):
        asked = await bench.served(f"/?size={n}")
        assert asked.lease is not None
        asked.lease.release()
    await bench.served("/?size=1000")
    assert [n for n, container in enumerate(bench.engine.containers) if container.stopped is not None] == [1]


async def test_what_goes_is_bounded_too(bench: Bench) -> None:
    """Containers that do not end hold up those that would come in their place."""
    for n in range(2 * LIMIT):
        asked = await bench.served(f"/?size={n}")
        assert asked.lease is not None
        asked.lease.release()
        bench.engine.containers[-1].stop = lambda grace: None  # type: ignore[method-assign]  # it takes its time
    assert bench.ask("/?size=1000").refusal is not None
    assert len(bench.engine.containers) == 2 * LIMIT
    bench.engine.containers[0].exit("exit code 0")
    assert bench.ask("/?size=1000").refusal is None


async def test_a_waiter_that_leaves_is_forgotten(bench: Bench) -> None:
    """Its pool's queue is empty again."""
    asked = bench.ask("/?size=1")
    assert bench.pools.counts.queued == 1
    bench.method.leave(asked)
    assert bench.pools.counts.queued == 0


async def test_default_values_are_proved_and_kept(tmp_path: Path) -> None:
    """Where all have one, the first container is of those."""
    bench = Bench(tmp_path, function(WITH_DEFAULT, autoscaler=Autoscaler(min_containers=1)))
    bench.pools.keep_minimum()
    proof = asyncio.ensure_future(bench.pools.prove())
    await asyncio.sleep(0)
    await bench.engine.containers[0].become_ready()
    await proof
    assert bench.parameters == ["size=3"]
    assert bench.ask("/").lease is not None


async def test_unknown_values_are_proved_by_loading_the_class(bench: Bench) -> None:
    """A container without values starts, and goes at once."""
    proof = asyncio.ensure_future(bench.pools.prove())
    await asyncio.sleep(0)
    await bench.engine.containers[0].become_ready()
    await proof
    assert bench.parameters == [None]
    assert bench.engine.containers[0].stopped is not None
    failing = asyncio.ensure_future(bench.pools.prove())
    await asyncio.sleep(0)
    bench.engine.containers[1].fail(StartFailure("ImportError"))
    with pytest.raises(StartError, match="ImportError"):
        await failing


async def test_the_next_version_takes_over_those_who_wait(bench: Bench) -> None:
    """Each in the pool of its values; those of a method that there is no more are told so."""
    f = bench.ask("/?size=1")
    g = bench.ask("/?size=2", bench.at("g", called=True))
    new = bench.new(function(WITH_DEFAULT, methods=("f",)))
    before = bench.endpoint.switch(new)
    await asyncio.wait_for(before.gone(), 10)
    assert g.refusal is not None
    assert g.refusal.status == 404
    assert bench.parameters == ["size=1", "size=2", "size=1"]
    await bench.engine.containers[2].become_ready()
    assert f.lease is not None


async def test_a_program_has_no_doors(tmp_path: Path) -> None:
    """The inputs of a `web_server` go to where its program listens."""
    cls = ClassSpec(
        methods=(MethodSpec(name="f", web=WebSpec(kind=WebKind.WEB_SERVER, port=8000)),), parameters=(SIZE,)
    )
    bench = Bench(tmp_path, FunctionSpec(name="Model", module="m", qualname="Model", cls=cls))
    asked = await bench.served("/?size=1")
    assert (asked.door, asked.lease is not None and asked.lease.is_foreign) == ("", True)
