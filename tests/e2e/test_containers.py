"""What a function finds in its container, and what its container does with one input after the other."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from tests.e2e.calls import Call, ask_at_once, lines
from tests.e2e.conftest import Machine, wait_until

PROBE = '''
import asyncio
import os
import subprocess
import sys
import threading
import time

import modal
from fastapi import BackgroundTasks
from fastapi.responses import StreamingResponse

app = modal.App("probe")


def wait_for(path):
    """Until the test makes the file."""
    while not os.path.exists(path):
        time.sleep(0.005)


def write(journal, line):
    with open(journal, "a") as file:
        file.write(f"{line}\\n")


@app.function()
@modal.fastapi_endpoint()
def fails():
    return {}["no such key"]


@app.function()
@modal.fastapi_endpoint()
async def fails_late():
    async def pieces():
        yield b"one"
        raise RuntimeError("the second piece is missing")

    return StreamingResponse(pieces())


@app.function()
@modal.fastapi_endpoint()
def prints(word: str):
    print("sync says", word)
    print("sync complains of", word, file=sys.stderr)


@app.function()
@modal.fastapi_endpoint()
async def prints_async(word: str):
    print("async says", word)


@app.function()
@modal.fastapi_endpoint()
def surroundings():
    return {"env": dict(os.environ), "is_local": modal.is_local(), "cwd": os.getcwd()}


@app.function()
@modal.fastapi_endpoint()
def sync_handler():
    return threading.current_thread() is threading.main_thread()


@app.function()
@modal.fastapi_endpoint()
async def async_handler():
    return threading.current_thread() is threading.main_thread()


@app.function(max_containers=3)
@modal.fastapi_endpoint()
def alone(journal: str):
    write(journal, f"enter {os.getpid()}")
    time.sleep(0.01)
    write(journal, f"exit {os.getpid()}")


@app.function()
@modal.concurrent(max_inputs=4)
@modal.fastapi_endpoint()
def together(journal: str, gate: str):
    write(journal, os.getpid())
    wait_for(gate)
    return os.getpid()


@app.function()
@modal.concurrent(max_inputs=4)
@modal.fastapi_endpoint()
async def together_async(journal: str, gate: str):
    write(journal, os.getpid())
    while not os.path.exists(gate):
        await asyncio.sleep(0.005)
    return os.getpid()


@app.function()
@modal.fastapi_endpoint()
def background(gate: str, tasks: BackgroundTasks):
    tasks.add_task(wait_for, gate)
    return os.getpid()


@app.function()
@modal.fastapi_endpoint()
async def stream(gate: str):
    async def pieces():
        yield b"one"
        while not os.path.exists(gate):
            await asyncio.sleep(0.005)
        yield b"two"

    return StreamingResponse(pieces())


@app.function()
@modal.fastapi_endpoint()
def stream_sync(gate: str):
    def pieces():
        yield b"one"
        wait_for(gate)
        yield b"two"

    return StreamingResponse(pieces())


@app.function(max_containers=1)
@modal.fastapi_endpoint()
async def left(journal: str, forever: bool = False):
    write(journal, "enter")
    try:
        while forever:
            await asyncio.sleep(60)
    finally:
        write(journal, "exit")


@app.function(max_containers=1)
@modal.fastapi_endpoint()
def left_sync(journal: str, gate: str = "/"):
    write(journal, "enter")
    wait_for(gate)
    write(journal, "exit")


@app.function(max_containers=1)
@modal.fastapi_endpoint()
async def left_stream(journal: str, forever: bool = False):
    async def pieces():
        write(journal, "enter")
        try:
            yield b"one"
            while forever:
                await asyncio.sleep(0.005)
                yield b"more"
        finally:
            write(journal, "exit")

    return StreamingResponse(pieces())


@app.function(max_containers=1)
@modal.fastapi_endpoint()
def left_stream_sync(forever: bool = False):
    def pieces():
        yield b"one"
        while forever:
            time.sleep(0.005)
            yield b"more"

    return StreamingResponse(pieces())


@app.function(scaledown_window=2)
@modal.fastapi_endpoint()
def children(session: bool):
    started = [subprocess.Popen(["sleep", "1000"], start_new_session=session) for _ in range(3)]
    return {"container": os.getpid(), "children": [child.pid for child in started]}
'''


@pytest.fixture(scope="module")
def urls(shared: Machine) -> dict[str, str]:
    """The probe app's URLs."""
    shared.write("probe.py", PROBE)
    return shared.deploy("probe.py")


def logged(machine: Machine, word: str) -> list[dict]:
    """The lines of the app's log, once this word is in it."""
    found: list[dict] = []

    def has_word() -> bool:
        done = machine.run("app", "logs", "probe", "--json", "--tail", "1000")
        found[:] = [json.loads(line) for line in done.stdout.splitlines()]
        return any(word in line["line"] for line in found)

    wait_until(has_word, f"{word!r} is in the logs")
    return found


# -- what is said -----------------------------------------------------------------------------------------------------
def test_a_function_that_raises_answers_500_and_its_traceback_is_logged_with_the_request_id(
    shared: Machine, urls: dict[str, str]
) -> None:
    """The id that the client has leads to the cause."""
    answer = shared.request(urls["fails"])
    assert answer.status == 500
    said = [line["line"] for line in logged(shared, answer.headers["x-request-id"])]
    start = next(place for place, line in enumerate(said) if answer.headers["x-request-id"] in line)
    assert "GET / raised KeyError: 'no such key'" in said[start]
    assert said[start + 1].startswith("Traceback")
    assert any("probe.py" in line for line in said[start + 2 : start + 8])
    assert not any("site-packages" in line and "portico" in line for line in said)


def test_an_error_in_the_middle_of_a_response_cuts_it_and_is_logged(shared: Machine, urls: dict[str, str]) -> None:
    """What is cut must not look whole."""
    call = Call(shared, urls["fails_late"])
    raw = call.rest()
    assert b"200 OK" in raw
    assert not raw.endswith(b"0\r\n\r\n")
    logged(shared, "the second piece is missing")


def test_what_functions_print_arrives_in_the_logs(shared: Machine, urls: dict[str, str]) -> None:
    """With its source, sync and async."""
    shared.request(f"{urls['prints']}/?word=heron")
    shared.request(f"{urls['prints_async']}/?word=wren")
    logged(shared, "complains of heron")
    said = {(line["function"], line["source"], line["line"]) for line in logged(shared, "async says wren")}
    assert ("prints", "stdout", "sync says heron") in said
    assert ("prints", "stderr", "sync complains of heron") in said
    assert ("prints_async", "stdout", "async says wren") in said


# -- what is there ----------------------------------------------------------------------------------------------------
def test_a_container_knows_that_it_is_one(shared: Machine, urls: dict[str, str]) -> None:
    """In Modal's words and in ours."""
    found = shared.request(urls["surroundings"]).json
    assert isinstance(found, dict)
    assert found["is_local"] is False
    for prefix in ("MODAL", "PORTICO"):
        assert found["env"][f"{prefix}_IS_REMOTE"] == "1"
        assert found["env"][f"{prefix}_TASK_ID"].startswith("ct-")
        assert found["env"][f"{prefix}_APP_NAME"] == "probe"
        assert found["env"][f"{prefix}_FUNCTION_NAME"] == "surroundings"
        assert found["env"][f"{prefix}_APP_ID"] == shared.app("probe")["id"]


def test_the_servers_environment_does_not_leak_into_containers(machine: Machine) -> None:
    """Neither its secrets nor its own settings; a container is told only where its server lives."""
    machine.env |= {"AWS_SECRET_ACCESS_KEY": "hidden", "PYTHONPATH": str(machine.folder), "SOME_SETTING": "1"}
    machine.write("probe.py", PROBE)
    found = machine.request(machine.deploy("probe.py")["surroundings"]).json
    assert isinstance(found, dict)
    assert not found["env"].keys() & {
        "AWS_SECRET_ACCESS_KEY",
        "PYTHONPATH",
        "SOME_SETTING",
        "PORTICO_DOMAIN",
        "NO_COLOR",
    }
    assert not found["env"].keys() & {"PORTICO_LISTEN", "PORTICO_WORKSPACE", "PYTHONDONTWRITEBYTECODE"}


def test_sync_functions_run_in_a_thread_and_async_ones_on_the_loop(shared: Machine, urls: dict[str, str]) -> None:
    """As FastAPI runs them."""
    assert shared.request(urls["sync_handler"]).json is False
    assert shared.request(urls["async_handler"]).json is True


# -- one input, several inputs ----------------------------------------------------------------------------------------
def test_without_concurrent_a_container_has_one_input_at_a_time(
    shared: Machine, urls: dict[str, str], tmp_path: Path
) -> None:
    """Enter and exit alternate in each process."""
    journal = tmp_path / "journal"
    answers = ask_at_once(shared, [f"{urls['alone']}/?journal={journal}"] * 30)
    assert {answer.status for answer in answers} == {200}
    inside: set[str] = set()
    for verb, pid in (line.split() for line in lines(journal)):
        if verb == "enter":
            assert pid not in inside
            inside.add(pid)
        else:
            inside.remove(pid)
    assert not inside
    assert len(lines(journal)) == 60


@pytest.mark.parametrize("function", ["together", "together_async"])
def test_concurrent_lets_so_many_inputs_into_one_container(
    shared: Machine, urls: dict[str, str], tmp_path: Path, function: str
) -> None:
    """The one that is too many gets a container of its own."""
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    calls = [Call(shared, f"{urls[function]}/?journal={journal}&gate={gate}") for _ in range(5)]
    wait_until(lambda: len(lines(journal)) == 5, "all five are inside")
    gate.touch()
    answers = [call.answer() for call in calls]
    assert {answer.status for answer in answers} == {200}
    pids = lines(journal)
    assert sorted(pids.count(pid) for pid in set(pids)) == [1, 4]


def test_a_background_task_still_occupies_the_slot(shared: Machine, urls: dict[str, str], tmp_path: Path) -> None:
    """The next request goes to a second container; when the task has ended, the first one takes inputs again."""
    gate = tmp_path / "gate"
    first = shared.request(f"{urls['background']}/?gate={gate}").json
    second = shared.request(f"{urls['background']}/?gate={gate}").json
    assert first != second
    assert function_info(shared, "background")["running"] == 2
    gate.touch()
    wait_until(lambda: function_info(shared, "background")["running"] == 0, "the tasks have ended")
    third = shared.request(f"{urls['background']}/?gate={gate}").json
    assert third in (first, second)


@pytest.mark.parametrize("function", ["stream", "stream_sync"])
def test_pieces_of_a_streamed_response_arrive_when_they_are_yielded(
    shared: Machine, urls: dict[str, str], tmp_path: Path, function: str
) -> None:
    """The second one is not made before the first one is here."""
    gate = tmp_path / "gate"
    call = Call(shared, f"{urls[function]}/?gate={gate}")
    call.until(b"one")
    gate.touch()
    assert call.answer().text == "onetwo"


# -- clients that leave -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("function", ["left", "left_stream"])
def test_a_client_that_leaves_ends_an_async_input(
    shared: Machine, urls: dict[str, str], tmp_path: Path, function: str
) -> None:
    """Its clean-up runs, and the slot is free for the next one."""
    journal = tmp_path / "journal"
    call = Call(shared, f"{urls[function]}/?journal={journal}&forever=true")
    wait_until(lambda: lines(journal) == ["enter"], "it is inside")
    call.leave()
    assert shared.request(f"{urls[function]}/?journal={journal}").status == 200
    assert lines(journal) == ["enter", "exit", "enter", "exit"]


def test_a_client_that_leaves_an_endless_stream_of_a_sync_function_ends_it(
    shared: Machine, urls: dict[str, str]
) -> None:
    """At its next piece, and the slot is free."""
    call = Call(shared, f"{urls['left_stream_sync']}/?forever=true")
    call.until(b"more")
    call.leave()
    assert shared.request(urls["left_stream_sync"]).text == "one"


def test_a_client_that_leaves_a_sync_function_frees_the_slot_when_the_function_ends(
    shared: Machine, urls: dict[str, str], tmp_path: Path
) -> None:
    """A thread cannot be ended; until it has, nobody else comes in."""
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    call = Call(shared, f"{urls['left_sync']}/?journal={journal}&gate={gate}")
    wait_until(lambda: lines(journal) == ["enter"], "it is inside")
    call.leave()
    following = Call(shared, f"{urls['left_sync']}/?journal={journal}")
    wait_until(lambda: function_info(shared, "left_sync")["queued"] == 1, "the next one waits")
    assert lines(journal) == ["enter"]
    gate.touch()
    assert following.answer().status == 200
    assert lines(journal) == ["enter", "exit", "enter", "exit"]


# -- processes of the function ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("session", [False, True])
def test_what_a_function_has_started_goes_with_its_container(
    shared: Machine, urls: dict[str, str], session: bool
) -> None:
    """Also processes in sessions of their own."""
    found = shared.request(f"{urls['children']}/?session={session}").json
    assert isinstance(found, dict)
    assert all(psutil.pid_exists(pid) for pid in found["children"])
    wait_until(lambda: not psutil.pid_exists(found["container"]), "the container is gone")
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in found["children"]), "and its children")


def test_what_a_function_has_started_goes_with_the_server(machine: Machine) -> None:
    """Also when the server is killed."""
    server = machine.up()
    machine.write("probe.py", PROBE)
    found = machine.request(f"{machine.deploy('probe.py')['children']}/?session=true").json
    assert isinstance(found, dict)
    server.popen.kill()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in found["children"]), "its children are gone")


def function_info(machine: Machine, name: str) -> dict:
    """What `app info` says of a function of the probe app."""
    return next(function for function in machine.app("probe")["functions"] if function["name"] == name)
