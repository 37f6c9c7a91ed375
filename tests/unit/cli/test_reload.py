"""Rounds of live reload: when requests wait, what is sent, and what noise is worth."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from portico.cli.reload import Reloader, Served
from portico.cli.terminal import Terminal
from portico.client.upload import Uploader
from portico.model import errors
from portico.model.spec import AppSpec, EntrySpec
from portico.wire.control import Deployed
from portico.wire.reading import ReadReply, ReadRequest


class Stream:
    """A reload's events."""

    def __init__(self, events: list[object]) -> None:
        self._events = events

    def __enter__(self):
        return iter(self._events)

    def __exit__(self, *_: object) -> None:
        pass


class Client:
    """The control client's part, and a record of what it was asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: errors.Error | None = None
        self.while_reloading: Callable[[], object] = lambda: None

    def hold(self, app_id: str) -> None:
        self.calls.append("hold")

    def release(self, app_id: str) -> None:
        self.calls.append("release")

    def missing_blobs(self, digests: list[str]) -> list[str]:
        return digests

    def put_blob(self, digest: str, content: object, size: int) -> None:
        self.calls.append("put")

    def reload(self, app_id: str, request: object) -> Stream:
        self.calls.append("reload")
        self.while_reloading()
        if self.fail:
            raise self.fail
        return Stream([Deployed(app_id=app_id, app="seed", version=2, endpoints=[])])


class Reader:
    """Answers what it is told to, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self.reply: Callable[[], ReadReply] = ReadReply

    def ask(self, request: ReadRequest) -> None:
        self.count += 1

    def answer(self, timeout: float | None = None) -> ReadReply:
        return self.reply()

    def supersede(self, request: ReadRequest) -> None:
        self.count += 1


class Bench:
    """A reloader with its surroundings."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "seed.py"
        self.file.write_text("one")
        self.client, self.reader = Client(), Reader()
        self.err = io.StringIO()
        self.deployed: list[Deployed] = []
        self.reader.reply = lambda: self.reply()
        uploader = Uploader(self.client)  # type: ignore[arg-type]
        first = self.reply()
        self.reloader = Reloader(
            client=self.client,  # type: ignore[arg-type]
            reader=self.reader,  # type: ignore[arg-type]
            uploader=uploader,
            app_id="ap-1",
            request=ReadRequest(ref="seed.py", cwd=str(folder)),
            served=Served.of(first, uploader.bundle(first.sources)),
            terminal=Terminal(io.StringIO(), self.err, {}),
            on_deployed=self.deployed.append,
        )

    def reply(self, name: str = "seed") -> ReadReply:
        spec = AppSpec(name=name, entry=EntrySpec(module="seed", path="seed.py"))
        return ReadReply(spec=spec, sources={"seed.py": str(self.file)}, watch=[str(self.file.parent)])

    def round(self, *paths: str) -> None:
        self.reloader.round(paths or (str(self.file),))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_changed_code_is_replaced(bench):
    """Requests wait, the change is sent, and the new version is told of."""
    bench.file.write_text("two")
    bench.round()
    assert bench.client.calls == ["hold", "put", "reload"]
    assert [event.version for event in bench.deployed] == [2]


def test_nothing_changed(bench):
    """A save without a change only lets the requests go on."""
    bench.round()
    assert bench.client.calls == ["hold", "release"]
    assert bench.err.getvalue() == ""


def test_a_new_spec_alone_is_a_change(bench):
    """What is read may depend on more than the files that travel."""
    bench.reader.reply = lambda: bench.reply("other")
    bench.round()
    assert bench.client.calls[-1] == "reload"


def test_failure_to_read(bench):
    """The last good version answers again, and what is at fault is watched."""
    bench.reader.reply = lambda: ReadReply(error="oh", error_file="/elsewhere/x.py", watch=["/elsewhere"])
    bench.round()
    assert bench.client.calls == ["hold", "release"]
    assert "the last good version stays up" in bench.err.getvalue()
    assert {"/elsewhere", "/elsewhere/x.py", str(bench.file)} <= bench.reloader.watched


def test_failure_to_start(bench):
    """A server that refuses the new version is told to let the requests go on."""
    bench.client.fail = errors.StartError("square did not start", detail="Traceback")
    bench.file.write_text("two")
    bench.round()
    assert bench.client.calls[-2:] == ["reload", "release"]
    assert "Traceback" in bench.err.getvalue()
    assert bench.reloader.behind()


def test_a_failure_of_code_that_was_saved_again_meanwhile(bench):
    """Nobody wants to hear of it: the next round is about the newer code."""
    bench.client.fail = errors.StartError("square did not start", detail="Traceback")
    bench.client.while_reloading = lambda: bench.file.write_text("three")
    bench.file.write_text("two")
    bench.round()
    assert bench.client.calls[-2:] == ["reload", "release"]
    assert "square did not start" not in bench.err.getvalue()
    bench.client.fail = None
    bench.round()
    assert bench.client.calls[-1] == "reload"
    assert bench.reloader.behind() == []


def test_a_server_that_is_gone(bench):
    """It is not this thread that says so."""
    bench.client.fail = errors.ConnectionError("gone")
    bench.file.write_text("two")
    bench.round()
    assert "Error" not in bench.err.getvalue()
    assert bench.client.calls[-1] == "reload"


def test_other_files_are_read_before_requests_wait(bench):
    """A file that is no source may change the app, but is not likely to."""
    bench.round("/project/requirements.txt")
    assert bench.client.calls == []
    assert bench.reader.count == 1


def test_noise_is_ignored_in_the_end(bench):
    """A log or a database in the project costs three readings, not one for each line."""
    for _ in range(10):
        bench.round("/project/app.log")
    assert bench.reader.count == 3


def test_sources_are_never_noise(bench):
    """However often a source was saved without a change, the next change counts."""
    for _ in range(10):
        bench.round()
    bench.file.write_text("two")
    bench.round()
    assert bench.client.calls[-1] == "reload"


def test_a_change_while_the_file_is_read(bench):
    """The reading begins anew; at other times there is nothing to do."""
    bench.reader.reply = lambda: bench.reloader.reread() or bench.reply()
    bench.round()
    assert bench.reader.count == 2
    bench.reloader.reread()
    assert bench.reader.count == 2


def test_behind(bench):
    """The files that are others than those that are served, or gone."""
    assert bench.reloader.behind() == []
    bench.file.write_text("two")
    assert bench.reloader.behind() == [str(bench.file)]
    bench.file.unlink()
    assert bench.reloader.behind() == [str(bench.file)]
