"""Plain functions in containers that take one input at a time: what they find around them is what threads have."""

from __future__ import annotations

import pytest

from tests.e2e.calls import Call
from tests.e2e.conftest import Machine, wait_until

APP = """
import asyncio
import contextvars
import os
import sqlite3
import threading
import time
import modal

app = modal.App("plain")
variable = contextvars.ContextVar("variable", default=0)
local = threading.local()
main = threading.main_thread()


def note(text):
    with open({journal!r}, "a") as journal:
        print(text, file=journal)


@app.function()
def double(x):
    return 2 * x


@app.function()
def loops():
    async def own():
        return 1
    return own()  # a coroutine, for the container's loop


def dependency():
    return threading.get_ident()


def look():
    found = dict(name=threading.current_thread().name, ident=threading.get_ident(), pid=os.getpid())
    for ask in (asyncio.get_running_loop, asyncio.current_task, asyncio.get_event_loop):
        try:
            found[ask.__name__] = bool(ask())
        except RuntimeError:
            found[ask.__name__] = None
    found["variable"] = variable.get()
    variable.set(1)
    local.calls = found["calls"] = getattr(local, "calls", 0) + 1
    return found


from fastapi import BackgroundTasks, Depends
from fastapi.responses import FileResponse, StreamingResponse


@app.function(timeout=20)
@modal.fastapi_endpoint()
def endpoint(background: BackgroundTasks, what: str = "look", ident=Depends(dependency)):
    if what == "look":
        return dict(look(), same=ident == threading.get_ident())
    if what == "loop":
        async def own():
            await asyncio.sleep(0.001)
            return "own"
        return asyncio.run(own())
    if what == "home":
        import anyio.from_thread
        async def at_home():
            await asyncio.sleep(0.001)
            return threading.current_thread() is main
        return anyio.from_thread.run(at_home)
    if what == "remote":
        return double.remote(21)
    if what == "exit":
        raise SystemExit(1)
    if what == "async stream":
        async def pieces():
            try:
                yield f"{{threading.current_thread() is main}}"
                await asyncio.sleep(60)
            finally:
                note("stream closed")
        return StreamingResponse(pieces())
    if what == "stream":
        return StreamingResponse(iter(["a", "b", "c"]))
    if what == "file":
        return FileResponse(__file__)
    if what == "background":
        def work():
            note(f"background {{threading.current_thread() is main}}")
        async def async_work():
            note(f"async background {{threading.current_thread() is main}}")
        background.add_task(work)
        background.add_task(async_work)
        return "later"
    if what == "sleep":
        note("asleep")
        time.sleep(1)
        note("awake")
    return os.getpid()


@app.cls()
class Counter:
    @modal.enter()
    async def begin(self):
        self.ticks = 0
        self.task = asyncio.create_task(self.tick())

    async def tick(self):
        while True:
            self.ticks += 1
            await asyncio.sleep(0.001)

    @modal.fastapi_endpoint()
    def count(self):
        before = self.ticks
        deadline = time.monotonic() + 10
        while self.ticks < before + 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        return self.ticks - before >= 3
"""


@pytest.fixture(scope="module")
def journal(shared: Machine) -> list[str]:
    """The lines that the app has noted."""
    return [str(shared.folder / "journal")]


@pytest.fixture(scope="module")
def urls(shared: Machine, journal: list[str]) -> dict[str, str]:
    """The app's URLs."""
    shared.write("plain.py", APP.format(journal=journal[0]))
    return shared.deploy("plain.py")


def noted(journal: list[str]) -> str:
    try:
        with open(journal[0]) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def test_a_plain_function_runs_as_in_a_thread(shared: Machine, urls: dict[str, str]) -> None:
    """Always the same one, without a loop, in a context of its own; its dependencies, too."""
    found = [shared.request(urls["endpoint"]).json for _ in range(3)]
    for number, look in enumerate(found, 1):
        assert isinstance(look, dict)
        assert look.pop("calls") == number
        assert look == {
            "name": "AnyIO worker thread",
            "ident": look["ident"],
            "pid": look["pid"],
            "get_running_loop": None,
            "current_task": None,
            "get_event_loop": None,
            "variable": 0,
            "same": True,
        }
    assert len({(look["pid"], look["ident"]) for look in found}) == 1


@pytest.mark.parametrize(("what", "answer"), [("loop", "own"), ("home", True), ("remote", 42)])
def test_a_plain_function_may_block(shared: Machine, urls: dict[str, str], what: str, answer: object) -> None:
    """For a loop of its own, for the container's, and for another function."""
    assert shared.request(f"{urls['endpoint']}/?what={what}").json == answer


def test_the_loop_of_a_class_goes_on_while_its_methods_block(shared: Machine, urls: dict[str, str]) -> None:
    """What `enter` has begun there does not stand still."""
    assert shared.request(urls["Counter.count"]).json is True


def test_what_is_more_than_a_body_is_sent_from_the_main_thread(shared: Machine, urls: dict[str, str]) -> None:
    """Streams of both kinds, and files."""
    assert shared.request(f"{urls['endpoint']}/?what=stream").text == "abc"
    assert b"FileResponse(__file__)" in shared.request(f"{urls['endpoint']}/?what=file").body


def test_a_stream_is_closed_before_its_slot_is_free(shared: Machine, urls: dict[str, str], journal: list[str]) -> None:
    """When its client leaves: what is async in it runs where all that is does."""
    call = Call(shared, f"{urls['endpoint']}/?what=async%20stream")
    call.until(b"True")
    call.leave()
    wait_until(lambda: "stream closed" in noted(journal), "the generator is closed")


def test_background_tasks_of_both_kinds_run(shared: Machine, urls: dict[str, str], journal: list[str]) -> None:
    """Plain ones in a thread, async ones on the main thread."""
    assert shared.request(f"{urls['endpoint']}/?what=background").json == "later"
    wait_until(lambda: "\nasync background True" in f"\n{noted(journal)}", "the second task has run")
    assert "background False" in noted(journal)


def test_an_exit_is_an_answer(shared: Machine, urls: dict[str, str]) -> None:
    """It ends the input, not the container."""
    before = shared.request(urls["endpoint"]).json
    assert isinstance(before, dict)
    assert shared.request(f"{urls['endpoint']}/?what=exit").status == 500
    after = shared.request(urls["endpoint"]).json
    assert isinstance(after, dict)
    assert before["pid"] == after["pid"]


def test_a_function_whose_client_left_goes_on_to_its_end(
    shared: Machine, urls: dict[str, str], journal: list[str]
) -> None:
    """Nothing ends a thread; its container takes the next input after that."""
    pid = shared.request(f"{urls['endpoint']}/?what=pid").json
    call = Call(shared, f"{urls['endpoint']}/?what=sleep")
    wait_until(lambda: "asleep" in noted(journal), "it has begun")
    call.leave()
    wait_until(lambda: "awake" in noted(journal), "it has ended")
    wait_until(lambda: shared.request(f"{urls['endpoint']}/?what=pid").json == pid, "the same container answers")
