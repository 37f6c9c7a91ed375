"""Stored calls with a clock that the test turns, on a real store and the engine's double."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from portico.core.durable import KEPT, make_id
from portico.engines.fake import FakeEngine
from portico.model.calls import Accepted, CallRecord, CallState, Started
from portico.model.errors import NotFoundError, OutputExpiredError
from portico.model.ports import CallStore
from portico.server.dataplane import Bridge, DataPlane, Sockets
from portico.server.durable import DurableCalls
from portico.server.journal import Journal
from portico.store.bodies import FolderBodies
from portico.store.sql import SqlStore, open_store


class Bench:
    """The service without any app, and its clock."""

    def __init__(self, folder: Path, store: SqlStore) -> None:
        self.time = 1_000_000.0
        self.store = store
        self.folder = folder
        self.data = DataPlane("localhost", Sockets.inside(folder), FakeEngine(folder), lambda *_: None)
        bridge = Bridge(asyncio.get_running_loop())
        self.calls = DurableCalls(self.opened, FolderBodies(folder), self.data, bridge, lambda: self.time)

    async def opened(self) -> CallStore:
        return self.store.calls

    async def accept(self, size: int = 1) -> str:
        return await self.calls.accept(("ap-1", "f"), b"POST / HTTP/1.1\r\n", "- 0 http", body(size))


async def body(size: int) -> AsyncIterator[bytes]:
    yield b"x" * size


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = await open_store(tmp_path / "portico.db")
    bench = Bench(tmp_path, store)
    await bench.calls.begin()
    yield bench
    await bench.calls.close()
    await bench.data.close(0)
    await store.close()


async def test_a_call_is_stored_before_its_id_is_known(bench: Bench) -> None:
    """And waits while its app is not up."""
    call = await bench.store.calls.call(await bench.accept())
    assert call is not None
    assert (call.state, call.body.inline, call.created_at) == (CallState.QUEUED, b"x", bench.time)


async def test_a_large_body_is_not_in_the_database(bench: Bench) -> None:
    """It is a file, and the record has its name."""
    call_id = await bench.accept(100_000)
    call = await bench.store.calls.call(call_id)
    assert call is not None
    assert (call.body.size, call.body.inline, call.body.file) == (100_000, b"", f"{call_id}.request")
    assert b"".join([piece async for piece in bench.calls.contents(call.body)]) == b"x" * 100_000


async def test_a_result_is_kept_for_seven_days_and_then_removed(bench: Bench) -> None:
    """With its files; asking for it says that it has expired, not that it never was."""
    call_id = await bench.accept(100_000)
    await bench.calls.cancel(call_id, terminate=False)
    bench.time += KEPT - 1
    await bench.calls.expire()
    assert (await bench.calls.outcome(call_id, 0)).state is CallState.DONE
    bench.time += 2
    await bench.calls.expire()
    with pytest.raises(OutputExpiredError, match="kept for 7 days"):
        await bench.calls.outcome(call_id, 0)
    assert list((bench.folder / "calls").iterdir()) == []


async def test_a_call_that_waits_does_not_expire(bench: Bench) -> None:
    """However long it waits."""
    call_id = await bench.accept()
    bench.time += 2 * KEPT
    await bench.calls.expire()
    assert (await bench.calls.outcome(call_id, 0)).state is CallState.QUEUED


async def test_an_id_that_nobody_was_given(bench: Bench) -> None:
    """It is not found."""
    with pytest.raises(NotFoundError, match="There is no call"):
        await bench.calls.outcome(make_id(bench.time, 1), 0)


async def test_whoever_waits_hears_of_the_end(bench: Bench) -> None:
    """Several of them, at once; one who does not wait so long hears that it is not there."""
    call_id = await bench.accept()
    assert (await bench.calls.outcome(call_id, 0.01)).state is CallState.QUEUED
    waiting = [asyncio.ensure_future(bench.calls.outcome(call_id, None)) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0.05)
    await bench.calls.cancel(call_id, terminate=False)
    outcomes = [(await call).outcome for call in waiting]
    assert [outcome.code for outcome in outcomes if outcome is not None] == ["cancelled"] * 3


async def test_what_was_started_before_a_crash_ends_with_an_error(bench: Bench) -> None:
    """What waited ends, too, when its app lives no longer."""
    for name in ("a", "b"):
        call = CallRecord(
            id=f"fc-{name}", app_id="ap-1", function="f", created_at=1.0, head=b"POST / HTTP/1.1\r\n", client="- 0 http"
        )
        await bench.store.calls.write([Accepted(call)])
    await bench.store.calls.write([Started("fc-a", 1)])
    await bench.calls.begin()
    await bench.calls.booted(set())
    outcomes = [(await bench.calls.outcome(f"fc-{name}", 5.0)).outcome for name in ("a", "b")]
    assert [outcome.code for outcome in outcomes if outcome is not None] == ["internal", "remote"]


async def test_the_changes_of_one_moment_are_one_transaction(bench: Bench) -> None:
    """A hundred calls wait for the disk a few times, not a hundred times."""
    transactions = 0

    class Counting:
        async def write(self, changes: object) -> list[CallRecord]:
            nonlocal transactions
            transactions += 1
            return await bench.store.calls.write(changes)  # type: ignore[arg-type]

    async def opened() -> CallStore:
        return Counting()  # type: ignore[return-value]

    journal = Journal(opened)
    call = CallRecord(id="", app_id="ap-1", function="f", created_at=1.0, head=b"", client="")
    writes = [journal.write(Accepted(replace(call, id=f"fc-{i}"))) for i in range(100)]
    records = await asyncio.gather(*writes)
    assert [record.position for record in records if record is not None] == list(range(1, 101))
    assert transactions <= 2
