"""What calls take, and wait for: slots, memory, the queue; and what is left of them when their caller goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.calls import Call, lines, peak
from tests.e2e.conftest import PATIENCE, Machine, wait_until

MIB = 1024 * 1024

APP = """
import asyncio, os, threading, time
from pathlib import Path
import modal

app = modal.App("bounds")
barrier = threading.Barrier(8)

def note(journal, text):
    with open(journal, "a") as file:
        file.write(f"{text}\\n")

class Spy:
    "Says who rebuilds it from its pickle; what is rebuilt is None."
    def __init__(self, journal):
        self.journal = journal
    def __reduce__(self):
        return exec, (f"import os; open({self.journal!r}, 'a').write(f'{{os.getpid()}}\\\\n')",)

@app.function(scaledown_window=2)
def same(x):
    return x

@app.function(scaledown_window=2)
def spied(journal, x=None):
    return Spy(journal)

@app.function(scaledown_window=2, max_containers=1)
def alone(journal, name):
    note(journal, f"begin {name}")
    time.sleep(0.005)
    note(journal, f"end {name}")

@app.function(scaledown_window=2, max_containers=1)
async def aalone(journal, name):
    note(journal, f"begin {name}")
    await asyncio.sleep(0.005)
    note(journal, f"end {name}")

@app.function(scaledown_window=2, max_containers=1)
@modal.concurrent(max_inputs=8)
def meet(i):
    barrier.wait(30)
    return threading.get_ident()

@app.function(scaledown_window=2, max_containers=1)
def held(gate):
    while not os.path.exists(gate):
        time.sleep(0.005)
    return "held"

@app.function(scaledown_window=2)
def asks(journal, gate):
    note(journal, "asks")
    return held.remote(gate)

@app.function(scaledown_window=2)
async def nap(journal, seconds):
    try:
        note(journal, f"begin {seconds}")
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note(journal, "cancelled")
        raise

@app.function(scaledown_window=2)
async def drips(journal):
    try:
        while True:
            yield "again"
            await asyncio.sleep(0.01)
    finally:
        note(journal, "closed")

@app.function(scaledown_window=2)
def segment(i, gate):
    while i and not os.path.exists(gate):
        time.sleep(0.005)
    return f"segment {i};"

@app.function(scaledown_window=2)
def dies():
    yield "begun"
    os._exit(1)

@app.function(scaledown_window=2)
@modal.fastapi_endpoint()
def mapped(gate: str):
    from fastapi.responses import StreamingResponse
    return StreamingResponse(segment.map(range(3), [gate] * 3))

@app.function(scaledown_window=2)
@modal.fastapi_endpoint()
def broken():
    from fastapi.responses import StreamingResponse
    return StreamingResponse(dies.remote_gen())
"""

SCRIPT = """
import asyncio, json, sys
from concurrent.futures import ThreadPoolExecutor
import portico as modal
from portico import exception
def f(name):
    return modal.Function.from_name("bounds", name)
"""


@pytest.fixture(scope="module")
def laptop(shared: Machine) -> Machine:
    """A server with the app deployed on it."""
    shared.write("bounds.py", APP)
    shared.urls = shared.deploy("bounds.py")  # type: ignore[attr-defined]
    return shared


def script(machine: Machine, text: str) -> str:
    """What a plain script of the user's prints."""
    path = machine.write("elsewhere/script.py", SCRIPT + text)
    done = subprocess.run(
        [sys.executable, str(path)], env=machine.env, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- slots ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["alone", "aalone"])
def test_a_container_takes_one_call_at_a_time(laptop: Machine, tmp_path: Path, name: str) -> None:
    """Exactly, without @modal.concurrent: called, mapped and spawned side by side."""
    journal = tmp_path / "journal"
    text = f"""
spawned = [f({name!r}).spawn({str(journal)!r}, f"spawned {{i}}") for i in range(5)]
with ThreadPoolExecutor(5) as threads:
    list(threads.map(lambda i: f({name!r}).remote({str(journal)!r}, f"called {{i}}"), range(5)))
f({name!r}).for_each([{str(journal)!r}] * 10, range(10))
[call.get() for call in spawned]
"""
    script(laptop, text)
    assert [line.partition(" ")[0] for line in lines(journal)] == ["begin", "end"] * 20


def test_sync_calls_have_as_many_threads_as_max_inputs(laptop: Machine) -> None:
    """Eight wait for each other in one container."""
    assert script(laptop, "print(len(set(f('meet').map(range(8)))))") == "8\n"


def test_a_full_queue_refuses_a_call_and_slows_a_map(machine: Machine, tmp_path: Path) -> None:
    """The call raises ResourceExhaustedError at once; the map sends again what was not taken, and nothing else."""
    machine.start("up", "--queue-limit", "1").until("listens on")
    machine.write("bounds.py", APP)
    machine.deploy("bounds.py")
    gate, journal = tmp_path / "gate", tmp_path / "journal"
    text = f"""
from pathlib import Path
from concurrent.futures import FIRST_COMPLETED, wait
with ThreadPoolExecutor(8) as threads:
    calls = [threads.submit(f("held").remote, {str(gate)!r}) for _ in range(3)]
    [first] = wait(calls, return_when=FIRST_COMPLETED).done
    refused = type(first.exception()).__name__
    [within] = f("asks").map([{str(journal)!r}], [{str(gate)!r}], return_exceptions=True)
    mapped = threads.submit(list, f("held").map([{str(gate)!r}] * 6))
    Path({str(gate)!r}).touch()
    print(json.dumps([refused, type(within).__name__, [c.result() for c in calls if c is not first], mapped.result()]))
"""
    assert json.loads(script(machine, text)) == [*["ResourceExhaustedError"] * 2, ["held"] * 2, ["held"] * 6]
    assert lines(journal) == ["asks"]


# -- values ---------------------------------------------------------------------------------------------------------
def test_large_values_take_no_memory_of_the_server(laptop: Machine) -> None:
    """250 MB there and back."""
    assert script(laptop, "print(f('same').remote(1))") == "1\n"
    [server] = laptop.servers()
    before = peak(server)
    assert script(laptop, "print(len(f('same').remote(bytes(250_000_000))))") == "250000000\n"
    assert peak(server) - before < 32 * MIB


def test_the_server_rebuilds_no_value(laptop: Machine, tmp_path: Path) -> None:
    """Arguments are rebuilt in the container, results at the caller, whatever the kind of call."""
    journal = tmp_path / "journal"
    text = f"""
import os
class Spy:
    def __reduce__(self):
        return exec, ("import os; open({str(journal)!r}, 'a').write(f'{{os.getpid()}}\\\\n')",)
spied = f("spied")
spied.remote({str(journal)!r}, Spy())
spied.spawn({str(journal)!r}, Spy()).get()
list(spied.map([{str(journal)!r}], [Spy()]))
print(os.getpid())
"""
    caller = int(script(laptop, text))
    who = [int(line) for line in lines(journal)]
    assert who.count(caller) == 3
    assert len(who) == 6
    assert not {server.pid for server in laptop.servers()}.intersection(who)


# -- streams --------------------------------------------------------------------------------------------------------
def test_each_result_of_a_map_reaches_the_client_when_it_is_there(laptop: Machine, tmp_path: Path) -> None:
    """Through an endpoint: the others are still being made."""
    gate = tmp_path / "gate"
    call = Call(laptop, laptop.urls["mapped"] + f"/?gate={gate}")  # type: ignore[attr-defined]
    assert b"segment 1" not in call.until(b"segment 0;")
    gate.touch()
    assert call.answer().text == "segment 0;segment 1;segment 2;"


def test_a_stream_that_breaks_is_never_a_quiet_stop(laptop: Machine) -> None:
    """An endpoint hands on what a function yields, whose container dies: the client's response has no proper end."""
    call = Call(laptop, laptop.urls["broken"])  # type: ignore[attr-defined]
    call.until(b"begun")
    assert not call.rest().endswith(b"0\r\n\r\n")


# -- callers that go ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["await results.aclose()", "sys.exit(0)"])
def test_a_caller_that_goes_closes_a_generator(laptop: Machine, tmp_path: Path, how: str) -> None:
    """In async code: it closes it, or ends."""
    journal = tmp_path / "journal"
    text = f"""
async def main():
    results = f("drips").remote_gen.aio({str(journal)!r})
    async for _ in results:
        break
    {how}
asyncio.run(main())
"""
    script(laptop, text)
    wait_until(lambda: lines(journal) == ["closed"], "it is closed")


@pytest.mark.parametrize("kind", ["map", "map.aio"])
def test_closing_a_map_ends_what_still_runs(laptop: Machine, tmp_path: Path, kind: str) -> None:
    """Nothing goes on for results that nobody wants."""
    journal = tmp_path / "journal"
    results = f'f("nap").{kind}([{str(journal)!r}] * 2, [0, 60], order_outputs=False)'
    wait = f"while 'begin 60' not in open({str(journal)!r}).read(): pass"
    if kind == "map":
        text = f"results = iter({results})\nnext(results)\n{wait}\nresults.close()"
    else:
        text = f"""
async def main():
    results = aiter({results})
    await anext(results)
    {wait}
    await results.aclose()
asyncio.run(main())
"""
    script(laptop, text)
    wait_until(lambda: "cancelled" in lines(journal), "it is cancelled")


def test_every_verb_can_be_awaited(laptop: Machine, tmp_path: Path) -> None:
    """Those of functions, and those of stored calls."""
    gate = tmp_path / "gate"
    gate.touch()
    text = f"""
async def main():
    same = f("same")
    one = await same.spawn.aio(5)
    await same.spawn_map.aio(range(2))
    await same.for_each.aio(range(2))
    found = await modal.FunctionCall.from_id.aio(one.object_id)
    said = [
        await same.remote.aio(1), [x async for x in same.map.aio([2])], [x async for x in same.starmap.aio([(3,)])],
        await found.get.aio(), await modal.FunctionCall.gather.aio(one, found), await found.cancel.aio(),
        (await same.update_autoscaler.aio(buffer_containers=0)).buffer_containers,
        (await same.get_current_stats.aio()).backlog, await same.get_web_url.aio(),
    ]
    async for x in f("drips").remote_gen.aio({str(tmp_path / "journal")!r}):
        said.append(x)
        break
    print(json.dumps(said))
asyncio.run(main())
"""
    assert json.loads(script(laptop, text)) == [1, [2], [3], 5, [5, 5], None, 0, 0, None, "again"]
