"""What every engine must do: containers as processes, and the double that other tests use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from engine_cases import Gate, Recorder, Sink, a_start, an_image, get, start, write_app

from portico.engines.fake import FakeEngine, FakeRequest, FakeResponse
from portico.engines.process import ProcessEngine
from portico.model.ports import Container, Engine, StartFailure


@dataclass
class Case:
    """An engine with an app. `hello` answers, `slow` waits at a gate, `broken` in module `bad` cannot start."""

    engine: Engine
    bundle: Path

    def start(self, function: str, **more: object) -> tuple[Container, Recorder]:
        return start(self.engine, self.bundle, function, **more)

    async def ready(self, function: str) -> tuple[Container, Recorder]:
        container, recorder = self.start(function)
        await recorder.until("ready")
        return container, recorder


async def as_the_app(request: FakeRequest) -> FakeResponse:
    """What the app's functions do, for the double."""
    _, _, gate = request.target.partition("gate=")
    if gate:
        return FakeResponse(await asyncio.to_thread(_read, gate))
    return FakeResponse(b'"hello"')


def _read(gate: str) -> bytes:
    with open(gate, "rb") as file:
        return b'"%s"' % file.read()


@pytest.fixture(params=["process", "fake"])
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    bundle = write_app(tmp_path)
    (bundle / "bad.py").write_text("raise RuntimeError('no luck')\n")
    engine: ProcessEngine | FakeEngine
    if request.param == "process":
        engine = ProcessEngine(tmp_path, Sink())
    else:
        engine = FakeEngine(tmp_path, as_the_app)
        engine.failing["broken"] = StartFailure("RuntimeError: no luck", "a traceback")
    yield Case(engine, bundle)
    await engine.close()


async def test_a_started_container_becomes_ready_and_answers_at_its_address(case: Case) -> None:
    """start() returns a container at once; after `ready` it serves HTTP on its Unix socket."""
    container, recorder = case.start("hello")
    assert recorder.seen == []
    await recorder.until("ready")
    answer = await get(container.address)
    assert (answer.status, answer.body) == (200, '"hello"')


async def test_a_start_that_fails_is_reported_with_its_cause_and_then_its_end(case: Case) -> None:
    """`failed` has the cause's first line and the detail; `exited` follows, and nothing else comes."""
    _, recorder = case.start("broken", module="bad")
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert failure.cause == "RuntimeError: no luck"
    assert failure.detail
    await recorder.until("exited")
    assert recorder.names == ["failed", "exited"]


async def test_a_killed_container_is_gone(case: Case) -> None:
    """kill() ends with `exited`, which names the signal, and the address is free again."""
    container, recorder = await case.ready("hello")
    container.kill()
    assert await recorder.until("exited") == "signal 9 (SIGKILL)"
    assert not Path(container.address).exists()


async def test_a_container_that_is_killed_before_it_is_ready_never_becomes_ready(case: Case) -> None:
    """kill() right after start() ends with `exited` alone: what was asked for is no failure."""
    container, recorder = case.start("hello")
    container.kill()
    await recorder.until("exited")
    assert recorder.names == ["exited"]


async def test_an_idle_container_stops_at_once(case: Case) -> None:
    """stop() of a container without inputs ends it in good order."""
    container, recorder = await case.ready("hello")
    container.stop(20.0)
    assert await recorder.until("exited") == "exit code 0"
    assert not Path(container.address).exists()


async def test_stop_waits_for_the_running_input(case: Case, tmp_path: Path) -> None:
    """A container that is told to stop finishes its input first, and the client gets the whole answer."""
    container, recorder = await case.ready("slow")
    gate = Gate(tmp_path)
    request = asyncio.create_task(get(container.address, f"/?gate={gate.path}"))
    await gate.reached()
    container.stop(20.0)
    gate.open("finished")
    answer = await request
    assert (answer.status, answer.body) == (200, '"finished"')
    assert await recorder.until("exited") == "exit code 0"


async def test_stop_kills_when_the_grace_is_over(case: Case, tmp_path: Path) -> None:
    """An input that outlasts the grace does not keep its container."""
    container, recorder = await case.ready("slow")
    gate = Gate(tmp_path)
    request = asyncio.create_task(get(container.address, f"/?gate={gate.path}"))
    await gate.reached()
    container.stop(0.05)
    assert await recorder.until("exited") == "signal 9 (SIGKILL)"
    gate.open()
    with pytest.raises((EOFError, ConnectionError)):
        await request


async def test_cancelling_an_input_that_a_container_does_not_have_is_answered(case: Case) -> None:
    """cancel() is always answered by `finished`."""
    container, recorder = await case.ready("hello")
    container.cancel("in-unknown")
    assert await recorder.until("finished") == "in-unknown"


async def test_close_ends_every_container(case: Case) -> None:
    """After close() nothing runs, and each container has reported its end."""
    recorders = [(await case.ready("hello"))[1], case.start("hello")[1]]
    await case.engine.close()
    assert [recorder.names[-1] for recorder in recorders] == ["exited", "exited"]


async def test_a_closed_engine_fails_what_it_is_asked_to_start(case: Case) -> None:
    """After close() a start is refused like any other failure, as events."""
    await case.engine.close()
    _, recorder = case.start("hello")
    await recorder.until("exited")
    assert recorder.names == ["failed", "exited"]


async def test_a_warmed_image_starts_containers(case: Case) -> None:
    """warm() returns when the image is ready to be forked."""
    await case.engine.warm(an_image())
    _, recorder = await case.ready("hello")
    assert recorder.names == ["ready"]


async def test_a_container_of_a_dismissed_snapshot_goes_on(case: Case) -> None:
    """No start asks for that snapshot any more; what has been started ends when it is told to."""
    recorder = Recorder()
    container = case.engine.start(replace(a_start(case.bundle, "hello"), snapshot="it"), recorder)
    await recorder.until("ready")
    case.engine.dismiss("it")
    case.engine.dismiss("one that never was")
    assert (await get(container.address)).body == '"hello"'
    container.stop(20.0)
    await recorder.until("exited")
