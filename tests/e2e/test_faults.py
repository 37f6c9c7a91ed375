"""What happens to requests, slots and processes when something dies, and who is told what."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.calls import Call, ask_at_once, lines
from tests.e2e.conftest import Machine, wait_until

MORTAL = """
import asyncio
import os
import signal
import time

import modal
from fastapi.responses import StreamingResponse

app = modal.App("mortal")


@app.function()
@modal.fastapi_endpoint()
def pid():
    return os.getpid()


@app.function()
@modal.fastapi_endpoint(method="POST")
def post():
    return os.getpid()


@app.function(max_containers=1)
@modal.fastapi_endpoint()
async def half(whole: bool = False, length: int | None = None):
    async def pieces():
        yield f"<{os.getpid()}>".encode()
        while not whole:
            await asyncio.sleep(60)

    return StreamingResponse(pieces(), headers={"content-length": str(length)} if length else {})


@app.function(max_containers=1)
@modal.asgi_app()
def reader():
    async def read_all(scope, receive, send):
        if scope["type"] != "http":
            return
        with open(scope["query_string"].decode(), "a") as journal:
            journal.write(f"{os.getpid()}\\n")
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"read"})

    return read_all


@app.function(max_containers=1)
@modal.fastapi_endpoint()
def dies_once(journal: str):
    with open(journal, "a+") as file:
        file.write(f"{os.getpid()}\\n")
        file.seek(0)
        tries = len(file.readlines())
    if tries == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return tries


@app.function(max_containers=1)
@modal.fastapi_endpoint()
def dies():
    os._exit(3)


@app.function()
@modal.fastapi_endpoint()
async def stubborn(journal: str):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(journal, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(1000)


@app.function()
@modal.fastapi_endpoint()
def waits(gate: str):
    while not os.path.exists(gate):
        time.sleep(0.005)
    return os.getpid()
"""

BROKEN = """
import os
import time

import modal

app = modal.App("{name}")

if not modal.is_local():
    with open({journal!r}, "a") as file:
        file.write("start\\n")
    {statement}


@app.function(startup_timeout={patience})
@modal.fastapi_endpoint()
def f():
    return "up"
"""


@pytest.fixture(scope="module")
def urls(shared: Machine) -> dict[str, str]:
    """The mortal app's URLs."""
    shared.write("mortal.py", MORTAL)
    return shared.deploy("mortal.py")


def serve(machine: Machine, name: str, statement: str, journal: Path, patience: int = 30) -> str:
    """Serve an app whose module runs this statement in its containers; its URL."""
    text = BROKEN.format(name=name, journal=str(journal), statement=statement, patience=patience)
    machine.write(f"{name}.py", text)
    return machine.start("serve", f"{name}.py").until(r"http://\S+").group()


def kill(pid: object) -> None:
    """Kill a process, and return when it is gone: so are its sockets."""
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), f"{pid} is gone")


# -- containers that cannot start -------------------------------------------------------------------------------------
def test_requests_that_wait_for_a_failing_import_get_503_with_the_cause_and_an_id(
    shared: Machine, tmp_path: Path
) -> None:
    """All of them, and none hangs."""
    url = serve(shared, "sick", "raise RuntimeError('no model here\\nsecond line')", tmp_path / "journal")
    for answer in ask_at_once(shared, [url] * 5):
        assert answer.status == 503
        assert "RuntimeError: no model here" in answer.text
        assert "second line" not in answer.text
        assert answer.headers["x-request-id"] in answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["access-control-allow-origin"] == "*"


def test_failing_starts_back_off(shared: Machine, tmp_path: Path) -> None:
    """Many requests, each answered at once; few starts."""
    journal = tmp_path / "journal"
    url = serve(shared, "tired", "raise RuntimeError('again')", journal)
    answers = [shared.request(url) for _ in range(100)]
    assert {answer.status for answer in answers} == {503}
    assert len(lines(journal)) <= 5


@pytest.mark.parametrize(
    ("name", "statement", "cause"),
    [
        ("raises", "raise RuntimeError('no nuts')", "RuntimeError: no nuts"),
        ("exits", "os._exit(3)", "The container ended while it started: exit code 3."),
        ("hangs", "time.sleep(1000)", "It did not become ready within 1 s."),
    ],
)
def test_each_start_that_fails_is_one_line_of_the_log(
    shared: Machine, tmp_path: Path, name: str, statement: str, cause: str
) -> None:
    """With the cause, which is what all requests hear; and nothing is left of the container."""
    journal = tmp_path / "journal"
    url = serve(shared, name, statement, journal, patience=1 if name == "hangs" else 30)

    def tried() -> bool:
        answer = shared.request(url)
        assert (answer.status, answer.text.partition(" (")[0]) == (
            503,
            f"modal-http: a container could not start: {cause}",
        )
        return len(lines(journal)) > 1

    wait_until(tried, "it was tried again")
    log = f"the container did not start: {cause}"
    wait_until(
        lambda: shared.run("app", "logs", name, "--tail", "1000").stdout.count(log) == len(lines(journal)),
        "all is told",
    )
    assert shared.app(name)["functions"][0]["containers"] == 0


def test_many_requests_at_once_count_as_one_failure(shared: Machine, tmp_path: Path) -> None:
    """A crowd does not make the next try later."""
    url = serve(shared, "crowd", "raise RuntimeError('not yet')", tmp_path / "journal")
    ask_at_once(shared, [url] * 12)
    assert int(shared.request(url).headers["retry-after"]) <= 3


def test_starts_that_work_again_are_found_out(shared: Machine, tmp_path: Path) -> None:
    """What was missing is there now: requests are answered after the wait."""
    cure = tmp_path / "cure"
    url = serve(shared, "healed", f"assert os.path.exists({str(cure)!r}), 'ill'", tmp_path / "journal")
    assert shared.request(url).status == 503
    cure.touch()
    wait_until(lambda: shared.request(url).status == 200, "it is well")


def test_a_container_that_dies_at_start_is_a_503_with_its_exit_code(shared: Machine, tmp_path: Path) -> None:
    """There is no traceback to show."""
    answer = shared.request(serve(shared, "stillborn", "os._exit(3)", tmp_path / "journal"))
    assert answer.status == 503
    assert "exit code 3" in answer.text
    assert answer.headers["x-request-id"] in answer.text


def test_containers_that_die_of_their_requests_are_replaced_at_once(shared: Machine, urls: dict[str, str]) -> None:
    """They start as they should: each request gets new ones, however often, and the log has the cause."""
    assert [shared.request(urls["dies"]).status for _ in range(4)] == [502] * 4
    assert "ended unexpectedly: exit code 3" in shared.run("app", "logs", "mortal", "--tail", "1000").stdout


# -- containers that are killed ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("function", ["pid", "post"])
def test_after_an_idle_container_was_killed_the_next_request_is_answered(
    shared: Machine, urls: dict[str, str], function: str
) -> None:
    """Nothing had been sent to the dead one, so it goes to another, whatever its method."""
    method = "POST" if function == "post" else "GET"
    for _ in range(5):
        before = shared.request(urls[function], method).json
        kill(before)
        answer = shared.request(urls[function], method)
        assert answer.status == 200
        assert answer.json != before


@pytest.mark.parametrize("query", ["", "?length=1000"])
def test_a_container_killed_in_the_middle_of_a_response_cuts_the_connection_and_frees_its_slot(
    shared: Machine, urls: dict[str, str], query: str
) -> None:
    """A short body does not look like a whole one, with chunks and without; the next request gets a new container."""
    call = Call(shared, f"{urls['half']}/{query}")
    found = re.search(rb"<(\d+)>", call.until(b">"))
    assert found is not None
    kill(int(found[1]))
    head, _, body = call.rest().partition(b"\r\n\r\n")
    assert b"200 OK" in head
    assert (b"content-length: 1000" in head) == bool(query)
    assert len(body) < 1000
    assert not body.endswith(b"0\r\n\r\n")
    answer = shared.request(f"{urls['half']}/?whole=true")
    assert answer.status == 200
    assert answer.text != f"<{int(found[1])}>"


def test_a_post_whose_container_dies_before_it_answers_is_a_502_with_an_id(
    shared: Machine, urls: dict[str, str], tmp_path: Path
) -> None:
    """It may have done something: nobody sends it again."""
    journal = tmp_path / "journal"
    call = Call(shared, f"{urls['reader']}/?{journal}", "POST", body=b"{", length=100)
    wait_until(lambda: lines(journal), "the container has the head")
    kill(int(lines(journal)[0]))
    answer = call.answer()
    assert answer.status == 502
    assert answer.headers["x-request-id"] in answer.text
    assert len(lines(journal)) == 1


def test_a_get_whose_container_dies_before_it_answers_is_sent_to_another_one(
    shared: Machine, urls: dict[str, str], tmp_path: Path
) -> None:
    """A GET may be asked twice."""
    journal = tmp_path / "journal"
    answer = shared.request(f"{urls['dies_once']}/?journal={journal}")
    assert (answer.status, answer.json) == (200, 2)
    assert len(set(lines(journal))) == 2


# -- the template -----------------------------------------------------------------------------------------------------
def test_containers_outlive_their_template_and_the_next_start_works(machine: Machine) -> None:
    """The one that is there goes on, and one that is lost is still noticed."""
    machine.write("mortal.py", MORTAL)
    urls = machine.deploy("mortal.py")
    before = machine.request(urls["pid"]).json
    assert isinstance(before, int)
    for template in machine.templates():
        kill(template.pid)
    assert machine.request(urls["pid"]).json == before
    kill(before)
    answer = machine.request(urls["pid"])
    assert answer.status == 200
    assert answer.json != before


# -- the server -------------------------------------------------------------------------------------------------------
def test_nothing_outlives_a_killed_server_and_the_next_one_brings_the_apps_back(
    machine: Machine, tmp_path: Path
) -> None:
    """Containers, busy or blocked, and templates."""
    server = machine.up()
    machine.write("mortal.py", MORTAL)
    urls = machine.deploy("mortal.py")
    calls = [
        Call(machine, f"{urls['stubborn']}/?journal={tmp_path / 'blocked'}"),
        Call(machine, f"{urls['waits']}/?gate={tmp_path / 'never'}"),
    ]
    wait_until(lambda: lines(tmp_path / "blocked"), "it blocks")
    below = [process.pid for process in psutil.Process(server.popen.pid).children(recursive=True)]
    assert len(below) >= 3
    server.popen.kill()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in below), "all are gone")
    for call in calls:
        call.leave()
    machine.up()
    assert machine.request(urls["pid"]).status == 200


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_container_that_blocks_and_ignores_signals_ends_with_the_server(
    machine: Machine, tmp_path: Path, how: signal.Signals
) -> None:
    """It is killed when the server has ended in good order."""
    server = machine.up()
    machine.write("mortal.py", MORTAL)
    call = Call(machine, f"{machine.deploy('mortal.py')['stubborn']}/?journal={tmp_path / 'journal'}")
    wait_until(lambda: lines(tmp_path / "journal"), "it blocks")
    call.leave()
    server.popen.send_signal(how)
    assert server.popen.wait(20) == 0
    assert not psutil.pid_exists(int(lines(tmp_path / "journal")[0]))


def test_an_unexpected_end_is_in_the_logs(shared: Machine, urls: dict[str, str]) -> None:
    """With the signal."""
    kill(shared.request(urls["pid"]).json)
    wait_until(
        lambda: re.search(r"ended unexpectedly: signal 9", shared.run("app", "logs", "mortal").stdout),
        "it is in the logs",
    )


# -- limits -----------------------------------------------------------------------------------------------------------
UNGROUPED = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"', "sh"]
GREEDY = """
import modal, subprocess, time

app = modal.App("greedy")
kept = []


@app.function(memory=(64, 128), max_containers=1)
@modal.concurrent(max_inputs=10)
@modal.fastapi_endpoint()
def leak(mib: int = 0):
    for _ in range(mib):
        kept.append(bytearray(b"x" * (1 << 20)))
    return len(kept)


@app.function(memory=(64, 128), max_containers=1)
@modal.asgi_app()
def leaks_while_it_answers():
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            while True:
                kept.append(bytearray(b"x" * (1 << 20)))

    return app
"""


@pytest.mark.parametrize("prefix", [[], UNGROUPED], ids=["as it is", "without groups"])
def test_a_container_that_takes_too_much_memory_ends_and_its_request_is_answered(
    machine: Machine, prefix: list[str]
) -> None:
    """With 500 and Modal's words, once, not by four containers; the log says why; the next one gets a new container.

    Where no control groups can be made, Python cannot have more, and the container lives; it ends when it is told to.
    """
    machine.prefix = prefix
    server = machine.up()
    machine.write("greedy.py", GREEDY)
    urls = machine.deploy("greedy.py")
    limited = can_limit_memory(machine)
    assert not (prefix and limited)
    text = "modal-http: internal error: function was terminated by signal" if limited else "Internal Server Error"
    for _ in range(3):
        assert machine.request(urls["leak"]).json == 0 or not limited
        answer = machine.request(f"{urls['leak']}/?mib=1000")
        assert (answer.status, answer.text.startswith(text)) == (500, True)
    log = machine.run("app", "logs", "greedy").stdout
    assert log.count("signal 9 (SIGKILL): it took more than its 128 MiB of memory") == (3 if limited else 0)
    call = Call(machine, urls["leaks_while_it_answers"])
    call.until(b"begun")
    assert not call.rest().endswith(b"0\r\n\r\n")
    began = time.monotonic()
    assert server.interrupt() == 0
    assert time.monotonic() - began < 20


def test_no_control_group_outlives_its_container_or_its_server(machine: Machine) -> None:
    """They would be the machine's for ever. What a killed server leaves, the next one removes."""
    server = machine.up()
    machine.write("greedy.py", GREEDY)
    url = machine.deploy("greedy.py")["leak"]
    assert machine.request(url).json == 0
    assert bool(groups_of(machine)) == can_limit_memory(machine)
    server.popen.kill()
    wait_until(lambda: not machine.leftovers(), "containers are gone, too")
    server = machine.up()
    assert machine.request(url).json == 0
    assert server.interrupt() == 0
    assert not groups_of(machine)


def can_limit_memory(machine: Machine) -> bool:
    checks = json.loads(machine.run("doctor", "--json", code=None).stdout)["checks"]
    return "memory" in next(check["text"] for check in checks if check["name"] == "limits").partition("for: ")[2]


def groups_of(machine: Machine) -> list[Path]:
    mark = hashlib.sha256(os.fsencode(machine.home)).hexdigest()[:12]
    return [path for path in Path("/sys/fs/cgroup").rglob(f"portico-{mark}-*") if path.is_dir()]
