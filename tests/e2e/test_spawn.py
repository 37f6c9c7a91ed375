"""Calls that are spawned: stored, run by themselves, and asked for from anywhere."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.calls import lines
from tests.e2e.conftest import PATIENCE, Machine, Process, wait_until

APP = """
import asyncio, os, time
from pathlib import Path
import modal

app = modal.App("jobs")

class Odd(Exception):
    pass

def note(journal, text):
    with open(journal, "a") as file:
        file.write(f"{text}\\n")

@app.function(scaledown_window=2)
@modal.concurrent(max_inputs=20)
def double(x, *, plus=0):
    return x * 2 + plus

@app.function(scaledown_window=2)
def misbehave(how):
    if how == "odd":
        raise Odd("no egg")
    if how == "die":
        os._exit(7)

@app.function(scaledown_window=2, timeout=1)
async def slow():
    await asyncio.sleep(20)

@app.function(scaledown_window=2, max_containers=1)
def held(journal, name, gate):
    note(journal, name)
    while not Path(gate).exists():
        time.sleep(0.01)
    return name

@app.function(scaledown_window=2, max_containers=1)
async def aheld(journal):
    note(journal, "began")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        note(journal, "cancelled")
        raise

@app.function(scaledown_window=2, max_containers=1, retries=modal.Retries(max_retries=2, initial_delay=0.0))
def tried(journal, gate, successes_after=0):
    tries = 1 + (len(Path(journal).read_text().splitlines()) if Path(journal).exists() else 0)
    note(journal, f"try {tries}")
    if gate == "odd" and tries <= successes_after:
        raise Odd(f"no egg in try {tries}")
    while gate and gate != "odd" and tries == 1:
        time.sleep(0.01)
    return tries

def lose(journal):
    tries = 1 + (len(Path(journal).read_text().splitlines()) if Path(journal).exists() else 0)
    note(journal, f"try {tries}")
    if tries < 3:
        os._exit(7)
    return tries

@app.function(scaledown_window=2, max_containers=1, retries=modal.Retries(max_retries=2, initial_delay=0.0))
def lost(journal):
    return lose(journal)

@app.function(scaledown_window=2)
def count(n):
    yield from range(n)

@app.function(scaledown_window=2)
def parent(x):
    return double.spawn(x).object_id

@app.function(scaledown_window=2)
@modal.fastapi_endpoint()
async def submit(x: int):
    return {"call": (await double.spawn.aio(x)).object_id}

@app.function(scaledown_window=2)
@modal.fastapi_endpoint()
async def poll(call: str):
    from fastapi.responses import JSONResponse
    try:
        return {"result": await modal.FunctionCall.from_id(call).get.aio(timeout=0)}
    except TimeoutError:
        return JSONResponse({}, status_code=202)
"""

SCRIPT = """
import asyncio, json, sys
import portico as modal
from portico import exception
FunctionCall = modal.FunctionCall
def f(name, app="jobs"):
    return modal.Function.from_name(app, name)
def attempt(call):
    try:
        return call()
    except BaseException as error:
        return [type(error).__name__, str(error)]
"""


@pytest.fixture(scope="module")
def laptop(shared: Machine) -> Machine:
    """A server with the app deployed on it."""
    shared.write("jobs.py", APP)
    shared.urls = shared.deploy("jobs.py")  # type: ignore[attr-defined]
    return shared


def says(machine: Machine, expression: str, before: str = "") -> object:
    """What an expression in a script comes to."""
    path = machine.write("elsewhere/script.py", f"{SCRIPT}\n{before}\nprint(json.dumps({expression}))")
    done = subprocess.run(
        [sys.executable, str(path)], env=machine.env, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def spawn(machine: Machine, call: str) -> str:
    """Spawn this call from a script; its id."""
    call_id = says(machine, f"{call}.object_id")
    assert isinstance(call_id, str)
    return call_id


def result(machine: Machine, call_id: str, timeout: float = PATIENCE / 2) -> object:
    """Its result, asked for by another script; or the error's name and text."""
    return says(machine, f"attempt(lambda: FunctionCall.from_id({call_id!r}).get(timeout={timeout}))")


# -- spawn and get --------------------------------------------------------------------------------------------------
def test_a_spawned_call_gives_its_result_to_whoever_has_its_id(laptop: Machine) -> None:
    """Here, and in another process."""
    call_id, value = says(laptop, "[c.object_id, c.get()]", "c = f('double').spawn(4, plus=1)")  # type: ignore[misc]
    assert (call_id[:3], value) == ("fc-", 9)
    assert result(laptop, call_id) == 9


def test_spawn_from_functions_and_endpoints(laptop: Machine) -> None:
    """And polling from another endpoint: 202 until it is there."""
    call_id = says(laptop, "f('parent').remote(5)")
    assert result(laptop, str(call_id)) == 10
    urls = laptop.urls  # type: ignore[attr-defined]
    submitted = laptop.request(urls["submit"] + "/?x=21").json
    poll = f"{urls['poll']}/?call={submitted['call']}"  # type: ignore[index]
    wait_until(lambda: laptop.request(poll).status == 200, "the job is done")
    assert laptop.request(poll).json == {"result": 42}


def test_everything_has_an_asynchronous_form(laptop: Machine) -> None:
    """spawn, get, gather, cancel, spawn_map."""
    before = """
async def main():
    one, two = [await f("double").spawn.aio(x) for x in (1, 2)]
    assert await FunctionCall.gather.aio(one, two) == [2, 4]
    await one.cancel.aio()
    await f("double").spawn_map.aio(range(3))
    return await one.get.aio()
"""
    assert says(laptop, "asyncio.run(main())", before) == 2


def test_gather_gives_the_results_in_order(laptop: Machine) -> None:
    """Or the first exception."""
    assert says(laptop, "FunctionCall.gather(*[f('double').spawn(i) for i in range(20)])") == [2 * i for i in range(20)]
    failing = "attempt(lambda: FunctionCall.gather(f('double').spawn(1), f('misbehave').spawn('odd')))"
    assert says(laptop, failing)[0] == "ExecutionError"  # type: ignore[index]


def test_a_result_that_is_not_there_is_a_timeout(laptop: Machine, tmp_path: Path) -> None:
    """Python's own TimeoutError, at once with timeout=0."""
    call_id = spawn(laptop, f"f('held').spawn({str(tmp_path / 'j')!r}, 'a', {str(tmp_path / 'gate')!r})")
    before = f"""
c = FunctionCall.from_id({call_id!r})
seen = []
for seconds in (0, 0.05):
    try:
        c.get(timeout=seconds)
    except TimeoutError as error:
        seen.append(isinstance(error, exception.TimeoutError))
"""
    assert says(laptop, "seen", before) == [True, True]
    (tmp_path / "gate").touch()
    assert result(laptop, call_id) == "a"


def test_large_values_pass_through_the_store(laptop: Machine) -> None:
    """30 MB there, 60 MB back; they leave no file behind when they are gone."""
    assert says(laptop, "len(f('double').spawn(bytes(30_000_000), plus=b'').get())") == 60_000_000


@pytest.mark.parametrize(
    ("call", "name", "text"),
    [
        ("f('misbehave').spawn('odd').get()", "ExecutionError", "raised Odd"),
        ("f('misbehave').spawn('die').get()", "RemoteError", "the container ended before it answered"),
        ("f('slow').spawn().get()", "FunctionTimeoutError", "timed out"),
        ("f('double').spawn(sys.stdin)", "SerializationError", "An argument of double cannot be sent"),
        ("f('double').spawn().get()", "TypeError", "missing 1 required positional argument"),
        ("f('count').spawn(1)", "InvalidError", "A generator function cannot be called with `.spawn(...)`."),
        ("f('submit').spawn(1)", "InvalidError", "A webhook function cannot be invoked"),
        ("f('nope').spawn()", "NotFoundError", "no function 'nope' in the app 'jobs'"),
        ("f('double').spawn_map([sys.stdin])", "SerializationError", "An argument of double"),
        ("FunctionCall.from_id('fc-' + '7' * 26).get()", "NotFoundError", "There is no call 'fc-7777"),
        ("FunctionCall.from_id('fc-' + '0' * 26).get()", "OutputExpiredError", "kept for 7 days"),
        ("FunctionCall.from_id('nonsense')", "InvalidError", "It begins with 'fc-'"),
        ("f('double').spawn(1).get(index=1)", "InvalidError", "one result"),
    ],
)
def test_what_goes_wrong_is_said(laptop: Machine, call: str, name: str, text: str) -> None:
    """Each failure has its own error."""
    before = "exception.Error.__str__ = lambda e: ' '.join(filter(None, (e.message, e.hint)))"
    said = says(laptop, f"attempt(lambda: {call})", before)
    assert said[0] == name  # type: ignore[index]
    assert text in said[1]  # type: ignore[index]


def test_an_exception_comes_back_with_its_remote_frames(laptop: Machine) -> None:
    """By its own type, where it is known."""
    before = f"""
import traceback
sys.path.insert(0, {str(laptop.folder)!r})
from portico.sdk import alias
alias.install()
import jobs
try:
    f("misbehave").spawn("odd").get()
except jobs.Odd:
    shown = traceback.format_exc()
"""
    assert 'raise Odd("no egg")' in str(says(laptop, "shown", before))


def test_spawned_calls_begin_in_their_order(laptop: Machine, tmp_path: Path) -> None:
    """One container, one at a time."""
    journal, gate = str(tmp_path / "j"), tmp_path / "gate"
    gate.touch()
    assert says(laptop, f"f('held').spawn_map([{journal!r}] * 40, range(40), [{str(gate)!r}] * 40)") is None
    wait_until(lambda: len(lines(tmp_path / "j")) == 40, "all have run")
    spawned = f"[f('held').spawn({journal!r}, f'again {{i}}', {str(gate)!r}) for i in range(40)][-1].get()"
    assert says(laptop, spawned) == "again 39"
    assert lines(tmp_path / "j")[40:] == [f"again {i}" for i in range(40)]


def test_more_calls_than_may_wait_otherwise(laptop: Machine) -> None:
    """The queue of spawned calls is in the store: 3,000 for one function are no problem."""
    before = """
f("double").spawn_map(range(3000))
last = f("double").spawn(3000)
"""
    assert says(laptop, "last.get()", before) == 6000


# -- cancel ---------------------------------------------------------------------------------------------------------
def test_a_queued_call_can_be_cancelled(laptop: Machine, tmp_path: Path) -> None:
    """It never runs; those behind it do."""
    journal, gate = str(tmp_path / "j"), str(tmp_path / "gate")
    before = f"""
import pathlib, time
first, second, third = [f("held").spawn({journal!r}, name, {gate!r}) for name in ("first", "second", "third")]
while not pathlib.Path({journal!r}).exists():
    time.sleep(0.01)
second.cancel()
said = attempt(second.get)
pathlib.Path({gate!r}).touch()
"""
    said, *values = says(laptop, "[said, first.get(), third.get()]", before)  # type: ignore[misc]
    assert (said[0], values) == ("CallCancelledError", ["first", "third"])
    assert lines(tmp_path / "j") == ["first", "third"]


def test_a_running_call_can_be_cancelled(laptop: Machine, tmp_path: Path) -> None:
    """An async function hears of it; a second cancel, and one after the end, change nothing."""
    call_id = spawn(laptop, f"f('aheld').spawn({str(tmp_path / 'j')!r})")
    wait_until(lambda: lines(tmp_path / "j") == ["began"], "it runs")
    says(laptop, f"[FunctionCall.from_id({call_id!r}).cancel() for _ in range(2)]")
    wait_until(lambda: lines(tmp_path / "j") == ["began", "cancelled"], "it has heard")
    assert result(laptop, call_id)[0] == "CallCancelledError"  # type: ignore[index]
    assert says(laptop, "[c.get(), c.cancel(), c.get()]", "c = f('double').spawn(1)") == [2, None, 2]


def test_a_call_can_be_cancelled_with_its_container(laptop: Machine, tmp_path: Path) -> None:
    """A sync function ends, too; the next one gets a new container."""
    journal, gate = str(tmp_path / "j"), str(tmp_path / "gate")
    call_id = spawn(laptop, f"f('held').spawn({journal!r}, 'first', {gate!r})")
    wait_until(lambda: lines(tmp_path / "j") == ["first"], "it runs")
    says(laptop, f"FunctionCall.from_id({call_id!r}).cancel(terminate_containers=True)")
    (tmp_path / "gate").touch()
    assert result(laptop, spawn(laptop, f"f('held').spawn({journal!r}, 'second', {gate!r})")) == "second"
    assert result(laptop, call_id)[0] == "CallCancelledError"  # type: ignore[index]


# -- retries --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "call",
    [
        "f('tried').spawn(j, 'odd', 2).get()",
        "f('tried').remote(j, 'odd', 2)",
        "asyncio.run(f('tried').remote.aio(j, 'odd', 2))",
        "list(f('tried').map([j], ['odd'], [2]))[0]",
        "list(f('tried').starmap([(j, 'odd', 2)]))[0]",
        "f('lost').spawn(j).get()",
        "f('lost').remote(j)",
        "list(f('lost').map([j]))[0]",
    ],
)
def test_a_call_that_fails_is_tried_again(laptop: Machine, tmp_path: Path, call: str) -> None:
    """What it raises and a lost container are failures; with two retries the third attempt counts."""
    assert says(laptop, call, f"j = {str(tmp_path / 'j')!r}") == 3
    assert lines(tmp_path / "j") == ["try 1", "try 2", "try 3"]


@pytest.mark.parametrize("call", ["f('tried').spawn(j, 'odd', 9).get()", "f('tried').remote(j, 'odd', 9)"])
def test_retries_come_to_an_end(laptop: Machine, tmp_path: Path, call: str) -> None:
    """Then the last failure is what it came to."""
    said = says(laptop, f"attempt(lambda: {call})", f"j = {str(tmp_path / 'j')!r}")
    assert "Odd" in said[1]  # type: ignore[index]
    assert lines(tmp_path / "j") == ["try 1", "try 2", "try 3"]


# -- apps that change, and end --------------------------------------------------------------------------------------
def test_what_waits_runs_on_the_next_version(machine: Machine, tmp_path: Path) -> None:
    """A deploy takes over the queue; a function that it no longer has says so."""
    machine.up()
    machine.write("jobs.py", APP)
    machine.deploy("jobs.py")
    journal, gate = str(tmp_path / "j"), str(tmp_path / "gate")
    held = spawn(machine, f"f('held').spawn({journal!r}, 'old', {gate!r})")
    wait_until(lambda: lines(tmp_path / "j") == ["old"], "the old version runs one")
    waiting = spawn(machine, f"f('held').spawn({journal!r}, 'new', {gate!r})")
    machine.write("jobs.py", APP.replace("return name", "return name * 2"))
    machine.deploy("jobs.py")
    assert result(machine, waiting, timeout=0.1)[0] == "NotReadyError"  # type: ignore[index]
    (tmp_path / "gate").touch()
    assert (result(machine, held), result(machine, waiting)) == ("old", "newnew")


def test_a_stopped_app_runs_no_calls(machine: Machine, tmp_path: Path) -> None:
    """Those that wait end with an error, those that run may end; new ones find no app. Results stay."""
    machine.up()
    machine.write("jobs.py", APP)
    machine.deploy("jobs.py")
    done = spawn(machine, "f('double').spawn(2)")
    assert result(machine, done) == 4
    journal, gate = str(tmp_path / "j"), str(tmp_path / "gate")
    running = spawn(machine, f"f('held').spawn({journal!r}, 'runs', {gate!r})")
    wait_until(lambda: lines(tmp_path / "j") == ["runs"], "it runs")
    waiting = spawn(machine, f"f('held').spawn({journal!r}, 'waits', {gate!r})")
    machine.run("app", "stop", "jobs", "--yes")
    assert result(machine, waiting) == ["RemoteError", f"{waiting}: the app was stopped before the call ran"]
    (tmp_path / "gate").touch()
    assert (result(machine, running), result(machine, done)) == ("runs", 4)
    assert says(machine, "attempt(lambda: f('double').spawn(1))")[0] == "NotFoundError"  # type: ignore[index]


# -- durability -----------------------------------------------------------------------------------------------------
def killed(machine: Machine, server: Process) -> None:
    """End the server as a power cut would."""
    server.popen.send_signal(signal.SIGKILL)
    server.popen.wait()


@pytest.fixture
def desk(machine: Machine) -> tuple[Machine, Process]:
    """A machine of its own with the app deployed, and its server."""
    server = machine.up()
    machine.write("jobs.py", APP)
    machine.deploy("jobs.py")
    return machine, server


def test_calls_survive_the_end_of_the_server(desk: tuple[Machine, Process], tmp_path: Path) -> None:
    """Killed with one call done, one running, two waiting: the result stays, the running one is not run twice, those
    that waited run."""
    machine, server = desk
    journal, gate = str(tmp_path / "j"), str(tmp_path / "gate")
    done = spawn(machine, "f('double').spawn(b'x' * 100_000, plus=b'')")
    assert says(machine, f"len(FunctionCall.from_id({done!r}).get())") == 200_000
    running = spawn(machine, f"f('held').spawn({journal!r}, 'running', {gate!r})")
    wait_until(lambda: lines(tmp_path / "j") == ["running"], "it runs")
    waiting = [spawn(machine, f"f('held').spawn({journal!r}, {name!r}, {gate!r})") for name in ("one", "two")]
    killed(machine, server)
    (tmp_path / "gate").touch()
    machine.up()
    assert says(machine, f"len(FunctionCall.from_id({done!r}).get())") == 200_000
    assert result(machine, running) == ["InternalFailure", f"{running}: the server was restarted while the call ran"]
    assert [result(machine, call) for call in waiting] == ["one", "two"]
    assert lines(tmp_path / "j") == ["running", "one", "two"]


def test_a_call_with_retries_runs_again_after_the_end_of_the_server(
    desk: tuple[Machine, Process], tmp_path: Path
) -> None:
    """Its first attempt counts as a failure."""
    machine, server = desk
    call_id = spawn(machine, f"f('tried').spawn({str(tmp_path / 'j')!r}, 'stay')")
    wait_until(lambda: lines(tmp_path / "j") == ["try 1"], "it runs")
    killed(machine, server)
    machine.up()
    assert result(machine, call_id) == 2
    assert lines(tmp_path / "j") == ["try 1", "try 2"]


def test_a_server_that_ends_in_good_order_keeps_what_waits(desk: tuple[Machine, Process], tmp_path: Path) -> None:
    """It ends no call because its app ends with it."""
    machine, server = desk
    journal, gate = str(tmp_path / "j"), str(tmp_path / "gate")
    spawn(machine, f"f('held').spawn({journal!r}, 'running', {gate!r})")
    wait_until(lambda: lines(tmp_path / "j") == ["running"], "it runs")
    waiting = spawn(machine, f"f('held').spawn({journal!r}, 'waiting', {gate!r})")
    (machine.folder / "later").touch()
    server.popen.send_signal(signal.SIGTERM)
    server.popen.wait(PATIENCE)
    (tmp_path / "gate").touch()
    machine.up()
    assert result(machine, waiting) == "waiting"


def test_no_accepted_call_is_lost_or_run_twice(desk: tuple[Machine, Process], tmp_path: Path) -> None:
    """The server is killed while calls are spawned and run; whoever has an id gets an answer, and none ran twice."""
    machine, server = desk
    journal = tmp_path / "j"
    (tmp_path / "gate").touch()
    before = f"""
ids = []
try:
    for i in range(10_000):
        ids.append(f("held").spawn({str(journal)!r}, i, {str(tmp_path / "gate")!r}).object_id)
        print(i, flush=True)
except exception.Error:
    pass
open({str(tmp_path / "ids")!r}, "w").write(json.dumps(ids))
"""
    path = machine.write("elsewhere/spawner.py", SCRIPT + before)
    spawner = Process([sys.executable, str(path)], machine.env, machine.folder)
    spawner.until("^60$")
    wait_until(lambda: len(lines(journal)) > 10, "some have run")
    killed(machine, server)
    assert spawner.popen.wait(PATIENCE) == 0
    machine.up()
    ids = json.loads((tmp_path / "ids").read_text())
    outcomes = says(
        machine,
        "outcomes",
        f"outcomes = [attempt(lambda: FunctionCall.from_id(i).get(timeout=20)) for i in {ids}]",
    )
    assert isinstance(outcomes, list)
    lost = [outcome for outcome in outcomes if not isinstance(outcome, int)]
    assert [outcome[0] for outcome in lost] == ["InternalFailure"] * len(lost)
    assert len(lost) <= 1  # one container, one at a time
    ran = lines(journal)
    assert len(ran) == len(set(ran))
    assert {str(outcome) for outcome in outcomes if isinstance(outcome, int)} <= set(ran)


# -- how a function is scaled ---------------------------------------------------------------------------------------
def test_a_function_can_be_scaled_from_a_script(desk: tuple[Machine, Process]) -> None:
    """At once; what is not given stays; a deploy resets it."""
    machine, _ = desk
    before = "g = f('double')\nfrom dataclasses import asdict"
    updated = "[asdict(g.update_autoscaler(min_containers=2)), asdict(g.update_autoscaler(buffer_containers=1))]"
    first, second = says(machine, updated, before)  # type: ignore[misc]
    assert first == {"min_containers": 2, "max_containers": None, "buffer_containers": 0, "scaledown_window": 2}
    assert second == first | {"buffer_containers": 1}

    def runners() -> object:
        return says(machine, "asdict(g.get_current_stats())", before)

    wait_until(
        lambda: runners() == {"backlog": 0, "num_total_runners": 2, "num_running_inputs": 0, "input_headroom": 40},
        "two containers are up",
    )
    with_max = says(machine, "asdict(g.autoscaler.update(min_containers=None, max_containers=1))", before)
    assert with_max == {"min_containers": 0, "max_containers": 1, "buffer_containers": 1, "scaledown_window": 2}
    wait_until(lambda: runners()["num_total_runners"] <= 1, "one has gone")  # type: ignore[index]
    said = says(machine, "attempt(lambda: g.update_autoscaler(min_containers=3))", before)
    assert said[1] == "`min_containers` (3) cannot be greater than `max_containers` (1)."  # type: ignore[index]
    machine.write("jobs.py", APP + "\n")
    machine.deploy("jobs.py")
    assert says(machine, "asdict(asyncio.run(g.autoscaler.settings.aio()))", before) == first | {"min_containers": 0}


def test_an_endpoint_can_be_scaled_too(laptop: Machine) -> None:
    """It takes no calls, but its containers are counted like others."""
    said = says(laptop, "f('poll').update_autoscaler(scaledown_window=3).scaledown_window")
    assert said == 3
