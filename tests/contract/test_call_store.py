"""Stored calls in the database, and their large bodies in files."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from portico.model.calls import Accepted, Body, CallRecord, CallState, Finished, Outcome, Requeued, Started
from portico.model.errors import StateError
from portico.store.bodies import FolderBodies
from portico.store.sql import SqlStore, open_store


def a_call(name: str, function: str = "f", app_id: str = "ap-1") -> CallRecord:
    return CallRecord(
        id=f"fc-{name}",
        app_id=app_id,
        function=function,
        created_at=1.5,
        head=b"POST / HTTP/1.1\r\nhost: x\r\nx: \xff\r\n",
        client="127.0.0.1 1 http",
        body=Body(3, b"abc"),
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = await open_store(tmp_path / "portico.db")
    yield store
    await store.close()


async def test_a_call_comes_back_as_it_was(store: SqlStore) -> None:
    """With its position, and the bytes of its head and body."""
    [accepted] = await store.calls.write([Accepted(a_call("a"))])
    assert await store.calls.call("fc-a") == accepted
    assert (accepted.position, accepted.body) == (1, Body(3, b"abc"))
    assert await store.calls.call("fc-b") is None


async def test_calls_wait_in_the_order_of_their_acceptance(store: SqlStore) -> None:
    """By function, in pages."""
    calls = [a_call(f"{i}", function="fg"[i % 2]) for i in range(10)]
    accepted = await store.calls.write([Accepted(call) for call in calls])
    assert [call.position for call in accepted] == list(range(1, 11))
    page = await store.calls.queued("ap-1", "f", 0, 3)
    assert [call.id for call in page] == ["fc-0", "fc-2", "fc-4"]
    rest = await store.calls.queued("ap-1", "f", page[-1].position, 100)
    assert [call.id for call in rest] == ["fc-6", "fc-8"]
    assert sorted(await store.calls.waiting()) == [("ap-1", "f"), ("ap-1", "g")]


async def test_the_life_of_a_call(store: SqlStore) -> None:
    """Started, queued again, started, ended; many changes are one transaction."""
    await store.calls.write([Accepted(a_call("a")), Accepted(a_call("b"))])
    await store.calls.write([Started("fc-a", 1), Started("fc-b", 1)])
    assert [call.id for call in await store.calls.started()] == ["fc-a", "fc-b"]
    assert await store.calls.queued("ap-1", "f", 0, 10) == []
    outcome = Outcome(status=200, lines=b"a: b\r\n", body=Body(20_000, file="fc-b.response"))
    await store.calls.write([Requeued("fc-a", 1, 9.5), Finished("fc-b", 8.0, outcome)])
    [again] = await store.calls.queued("ap-1", "f", 0, 10)
    assert (again.id, again.state, again.attempts, again.not_before) == ("fc-a", CallState.QUEUED, 1, 9.5)
    done = await store.calls.call("fc-b")
    assert done is not None
    assert (done.state, done.finished_at, done.outcome) == (CallState.DONE, 8.0, outcome)
    await store.calls.write([Started("fc-a", 2)])
    [call] = await store.calls.started()
    assert (call.attempts, call.not_before) == (2, None)


async def test_old_results_are_removed(store: SqlStore) -> None:
    """The oldest first, so many at a time; what has not ended stays."""
    await store.calls.write([Accepted(a_call(name)) for name in "abcd"])
    ended = [Finished(f"fc-{name}", float(at), Outcome(status=200)) for at, name in enumerate("cab")]
    await store.calls.write(ended)
    assert await store.calls.expire(before=2.0, limit=1) == ["fc-c"]
    assert await store.calls.expire(before=2.0, limit=10) == ["fc-a"]
    assert await store.calls.expire(before=2.0, limit=10) == []
    assert [await store.calls.call(f"fc-{name}") is not None for name in "abcd"] == [False, True, False, True]


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def test_a_large_body_is_a_file_of_this_user_only(tmp_path: Path) -> None:
    """Whole, in order, and gone with its call."""
    bodies = FolderBodies(tmp_path)
    data = [bytes([i]) * 700_000 for i in range(5)]
    assert await bodies.write("fc-a.request", pieces(*data)) == 3_500_000
    await bodies.write("fc-b.response", pieces(b"other"))
    assert b"".join([piece async for piece in bodies.read("fc-a.request")]) == b"".join(data)
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in (tmp_path / "calls").iterdir()}
    assert modes == {"fc-a.request": "0o600", "fc-b.response": "0o600"}
    await bodies.remove(["fc-a"])
    with pytest.raises(StateError, match="cannot be read"):
        [piece async for piece in bodies.read("fc-a.request")]
    assert [piece async for piece in bodies.read("fc-b.response")] == [b"other"]


async def test_a_body_that_does_not_come_whole_is_not_there(tmp_path: Path) -> None:
    """Nothing of it is left."""

    async def breaks() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise ConnectionResetError

    bodies = FolderBodies(tmp_path)
    with pytest.raises(StateError):
        await bodies.write("fc-a.request", breaks())
    assert list((tmp_path / "calls").iterdir()) == []


async def test_what_belongs_to_no_call_is_swept_up(tmp_path: Path) -> None:
    """As after a crash between the file and its record."""
    bodies = FolderBodies(tmp_path)
    for name in ("fc-a.request", "fc-b.request", "fc-b.response"):
        await bodies.write(name, pieces(b"x"))
    (tmp_path / "calls" / ".making-1").touch()

    async def is_kept(call_id: str) -> bool:
        return call_id == "fc-b"

    await bodies.sweep(is_kept, before=0.0)
    assert len(list((tmp_path / "calls").iterdir())) == 4
    await bodies.sweep(is_kept, before=time.time() + 60)
    assert sorted(file.name for file in (tmp_path / "calls").iterdir()) == ["fc-b.request", "fc-b.response"]
