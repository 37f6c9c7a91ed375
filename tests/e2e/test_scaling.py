"""How many containers there are: as many as requests ask for, within bounds, and none when nobody asks."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.calls import Call, ask_at_once, lines
from tests.e2e.conftest import PATIENCE, Machine, parse, wait_until

ELASTIC = '''
import asyncio
import os
import threading
import time

import modal

LOADED = time.time()
app = modal.App("elastic")


def work(journal, gate, name):
    """Says when it begins and ends, and waits in between until the test lets it go."""
    with open(journal, "a") as file:
        file.write(f"begin {name}\\n")
    while not os.path.exists(gate):
        time.sleep(0.005)
    with open(journal, "a") as file:
        file.write(f"end {name}\\n")
    return os.getpid()


@app.function(scaledown_window=2)
@modal.fastapi_endpoint()
def free(journal: str, gate: str = "/", name: str = ""):
    return work(journal, gate, name)


@app.function(max_containers=1, scaledown_window=2)
@modal.fastapi_endpoint()
def single(journal: str, gate: str = "/", name: str = ""):
    return work(journal, gate, name)


@app.function(max_containers=2, scaledown_window=2)
@modal.fastapi_endpoint()
def pair(journal: str, name: str = ""):
    return work(journal, "/", name)


@app.function(min_containers=1, scaledown_window=2)
@modal.fastapi_endpoint()
def kept(journal: str, gate: str = "/", name: str = ""):
    return work(journal, gate, name)


@app.function(buffer_containers=1, scaledown_window=2)
@modal.fastapi_endpoint()
def buffered(journal: str, gate: str = "/", name: str = ""):
    return work(journal, gate, name)


@app.function(single_use_containers=True, scaledown_window=2)
@modal.fastapi_endpoint()
def fresh():
    return LOADED


def say(journal, text):
    with open(journal, "a") as file:
        file.write(text + "\\n")


@app.function(max_containers=1, scaledown_window=2)
@modal.fastapi_endpoint(method="POST")
def alone(journal: str, name: str, body: dict = {}):
    say(journal, f"begin {name}")
    time.sleep(0.005)
    say(journal, f"end {name}")


@app.function(max_containers=1, scaledown_window=2)
@modal.fastapi_endpoint(method="POST")
async def aalone(journal: str, name: str, body: dict = {}):
    say(journal, f"begin {name}")
    await asyncio.sleep(0.005)
    say(journal, f"end {name}")


barrier = threading.Barrier(50)


def meet():
    barrier.wait(30)
    return "all here"


@app.function(max_containers=1, scaledown_window=2)
@modal.concurrent(max_inputs=50)
@modal.asgi_app()
def asgi_crowd():
    import fastapi

    web = fastapi.FastAPI()
    web.get("/")(meet)
    return web


@app.function(max_containers=1, scaledown_window=2)
@modal.concurrent(max_inputs=50)
@modal.wsgi_app()
def wsgi_crowd():
    def application(environ, start_response):
        start_response("200 OK", [])
        return [meet().encode()]
    return application


waiting = []


@app.function(max_containers=1, scaledown_window=2)
@modal.concurrent(max_inputs=50)
@modal.fastapi_endpoint()
async def acrowd():
    mine = asyncio.get_running_loop().create_future()
    waiting.append(mine)
    if len(waiting) == 50:
        for future in waiting:
            future.set_result(None)
    await mine
    return threading.get_ident()
'''


@pytest.fixture(scope="module")
def urls(shared: Machine) -> dict[str, str]:
    """The elastic app's URLs."""
    shared.write("elastic.py", ELASTIC)
    return shared.deploy("elastic.py")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where functions write when they begin and end."""
    return tmp_path / "journal"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Functions end when it exists."""
    return tmp_path / "gate"


def counts(machine: Machine, name: str) -> tuple[int, int, int]:
    """Containers, running and queued requests of a function."""
    found = next(function for function in machine.app("elastic")["functions"] if function["name"] == name)
    return found["containers"], found["running"], found["queued"]


def is_gone(pid: object) -> bool:
    """Whether there is no such process."""
    assert isinstance(pid, int)
    return not psutil.pid_exists(pid)


# -- up ---------------------------------------------------------------------------------------------------------------
def test_request_number_two_starts_a_second_container(
    shared: Machine, urls: dict[str, str], journal: Path, gate: Path
) -> None:
    """When it finds the only one busy."""
    calls = [Call(shared, f"{urls['free']}/?journal={journal}&gate={gate}&name={name}") for name in "ab"]
    wait_until(lambda: len(lines(journal)) == 2, "both have begun")
    gate.touch()
    assert len({call.answer().text for call in calls}) == 2


def test_later_requests_wait_in_line_for_max_containers(
    shared: Machine, urls: dict[str, str], journal: Path, gate: Path
) -> None:
    """First come, first served, and all are answered."""
    calls = []
    for number, name in enumerate("abcde"):
        calls.append(Call(shared, f"{urls['single']}/?journal={journal}&gate={gate}&name={name}"))
        if number:
            wait_until(lambda number=number: counts(shared, "single") == (1, 1, number), f"{name} is in line")
        else:
            wait_until(lambda: lines(journal) == ["begin a"], "a has begun")
    gate.touch()
    assert len({call.answer().text for call in calls}) == 1
    assert lines(journal) == [f"{verb} {name}" for name in "abcde" for verb in ("begin", "end")]


def test_a_client_that_leaves_the_line_is_never_run(
    shared: Machine, urls: dict[str, str], journal: Path, gate: Path
) -> None:
    """Nobody wants the answer."""
    first = Call(shared, f"{urls['single']}/?journal={journal}&gate={gate}&name=first")
    wait_until(lambda: lines(journal), "it has begun")
    impatient = Call(shared, f"{urls['single']}/?journal={journal}&name=impatient")
    wait_until(lambda: counts(shared, "single")[2] == 1, "it is in line")
    last = Call(shared, f"{urls['single']}/?journal={journal}&name=last")
    wait_until(lambda: counts(shared, "single")[2] == 2, "so is the last")
    impatient.leave()
    wait_until(lambda: counts(shared, "single")[2] == 1, "it has left")
    gate.touch()
    assert first.answer().status == last.answer().status == 200
    assert lines(journal) == ["begin first", "end first", "begin last", "end last"]


async def test_a_thousand_clients_share_two_containers(shared: Machine, urls: dict[str, str], journal: Path) -> None:
    """All are answered, in the order in which they came, and no more than two run at a time."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    host = urls["pair"].partition("//")[2]
    clients = [await asyncio.open_connection("127.0.0.1", shared.port) for _ in range(1000)]
    for number, (_, writer) in enumerate(clients):
        target = f"/?journal={journal}&name={number}"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answers = [parse(await reader.read()) for reader, _ in clients]
    for _, writer in clients:
        writer.close()
    assert [answer.status for answer in answers] == [200] * 1000
    assert len({answer.text for answer in answers}) == 2
    running = 0
    begun = []
    for line in lines(journal):
        verb, _, name = line.partition(" ")
        running += 1 if verb == "begin" else -1
        assert 0 <= running <= 2
        begun += [int(name)] if verb == "begin" else []
    assert sorted(begun) == list(range(1000))
    # whoever begins has before it all who came before, but for the one that the other container is about to begin
    assert all(name <= place + 1 for place, name in enumerate(begun))


@pytest.mark.parametrize("name", ["alone", "aalone"])
def test_a_container_takes_one_input_at_a_time(shared: Machine, urls: dict[str, str], journal: Path, name: str) -> None:
    """Sync or async, on connections that are kept, with requests sent ahead, and with bodies that come slowly."""
    host = urls[name].partition("//")[2]

    def request(label: str, *more: str) -> bytes:
        head = [f"POST /?journal={journal}&name={label} HTTP/1.1", f"Host: {host}", *(more or ("Content-Length: 0",))]
        return "\r\n".join([*head, "", ""]).encode()

    slow = socket.create_connection(("127.0.0.1", shared.port), timeout=PATIENCE)
    slow.sendall(request("slow", "Content-Length: 2", "Content-Type: application/json") + b"{")
    eager = [socket.create_connection(("127.0.0.1", shared.port), timeout=PATIENCE) for _ in range(4)]
    for number, connection in enumerate(eager):
        connection.sendall(b"".join(request(f"{number}-{turn}") for turn in range(3)))
    wait_until(lambda: counts(shared, name)[2] == 4, "one of each is in line")
    slow.sendall(b"}")
    wait_until(lambda: len(lines(journal)) == 26, "all have run")
    for connection in [slow, *eager]:
        connection.close()
    assert [line.partition(" ")[0] for line in lines(journal)] == ["begin", "end"] * 13


@pytest.mark.parametrize("name", ["asgi_crowd", "wsgi_crowd"])
def test_sync_code_runs_in_as_many_threads_as_max_inputs(shared: Machine, urls: dict[str, str], name: str) -> None:
    """Fifty handlers wait for each other in one container."""
    answers = ask_at_once(shared, [urls[name]] * 50)
    assert [answer.text.strip('"') for answer in answers] == ["all here"] * 50


def test_async_code_runs_as_tasks_of_one_thread(shared: Machine, urls: dict[str, str]) -> None:
    """Fifty handlers wait for each other on one loop."""
    answers = ask_at_once(shared, [urls["acrowd"]] * 50)
    assert len({answer.text for answer in answers}) == 1


def test_a_full_queue_refuses_at_once(machine: Machine, journal: Path, gate: Path) -> None:
    """429 with Retry-After; those who wait, wait on."""
    server = machine.start("up", "--queue-limit", "2")
    server.until("listens on")
    machine.write("elastic.py", ELASTIC)
    url = machine.deploy("elastic.py")["single"]
    calls = [Call(machine, f"{url}/?journal={journal}&gate={gate}&name={name}") for name in "abc"]
    wait_until(lambda: counts(machine, "single") == (1, 1, 2), "the queue is full")
    refused = machine.request(f"{url}/?journal={journal}")
    assert refused.status == 429
    assert refused.headers["retry-after"] == "1"
    gate.touch()
    assert [call.answer().status for call in calls] == [200] * 3


async def test_two_thousand_may_wait(shared: Machine, urls: dict[str, str], journal: Path, gate: Path) -> None:
    """The next one is refused; when they leave, the queue is empty, and none of them has run."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    first = Call(shared, f"{urls['single']}/?journal={journal}&gate={gate}&name=first")
    await asyncio.to_thread(wait_until, lambda: lines(journal), "it has begun")
    head = f"GET /?journal={journal}&name=late HTTP/1.1\r\nHost: {urls['single'].partition('//')[2]}\r\n\r\n".encode()
    clients = []
    for _ in range(2000):
        clients.append(await asyncio.open_connection("127.0.0.1", shared.port))
        clients[-1][1].write(head)
    await asyncio.to_thread(wait_until, lambda: counts(shared, "single") == (1, 1, 2000), "all of them wait")
    refused = await asyncio.to_thread(shared.request, f"{urls['single']}/?journal={journal}")
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert refused.text.startswith("modal-http: too many requests are waiting for this function")
    for _, writer in clients:
        writer.close()
    await asyncio.to_thread(wait_until, lambda: counts(shared, "single") == (1, 1, 0), "all of them have left")
    gate.touch()
    assert first.answer().status == 200
    assert lines(journal) == ["begin first", "end first"]


def test_a_new_container_is_asked_for_at_once(shared: Machine, urls: dict[str, str]) -> None:
    """From the request that finds none to the user's code in a new one: less than an interpreter takes to start."""
    shared.request(urls["fresh"])  # uses up the one that the deploy has started
    delays, starts = [], []
    for _ in range(5):
        began = time.time()
        delays.append(float(shared.request(urls["fresh"]).text) - began)
        began = time.time()
        subprocess.run([sys.executable, "-c", "import asyncio, json, ssl, http.server"], check=True)
        starts.append(time.time() - began)
    assert 0 < min(delays) < min(starts)


def test_a_buffer_stands_ready_while_there_are_requests(
    shared: Machine, urls: dict[str, str], journal: Path, gate: Path
) -> None:
    """One idle container more than what runs."""
    call = Call(shared, f"{urls['buffered']}/?journal={journal}&gate={gate}")
    wait_until(lambda: counts(shared, "buffered") == (2, 1, 0), "there is one to spare")
    gate.touch()
    assert call.answer().status == 200


# -- down -------------------------------------------------------------------------------------------------------------
def test_idle_containers_go_after_the_window_and_come_back_with_the_next_request(
    shared: Machine, urls: dict[str, str], journal: Path
) -> None:
    """Down to zero and up again, under the same URL."""
    first = shared.request(f"{urls['free']}/?journal={journal}").json
    wait_until(lambda: is_gone(first), "it is gone")
    assert counts(shared, "free") == (0, 0, 0)
    again = shared.request(f"{urls['free']}/?journal={journal}")
    assert again.status == 200
    assert again.json != first


def test_min_containers_stay(shared: Machine, urls: dict[str, str], journal: Path, gate: Path) -> None:
    """What a crowd has started beyond them goes."""
    calls = [Call(shared, f"{urls['kept']}/?journal={journal}&gate={gate}&name={name}") for name in "ab"]
    wait_until(lambda: len(lines(journal)) == 2, "both have begun")
    gate.touch()
    pids = [call.answer().json for call in calls]
    wait_until(lambda: any(map(is_gone, pids)), "one of them is gone")
    wait_until(lambda: counts(shared, "kept")[0] == 1, "one is left")
    left = next(pid for pid in pids if not is_gone(pid))
    assert shared.request(f"{urls['kept']}/?journal={journal}").json == left


def test_a_buffer_goes_when_there_are_no_requests(
    shared: Machine, urls: dict[str, str], journal: Path, gate: Path
) -> None:
    """Down to zero."""
    shared.request(f"{urls['buffered']}/?journal={journal}")
    wait_until(lambda: counts(shared, "buffered") == (0, 0, 0), "all are gone")
