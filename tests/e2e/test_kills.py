"""Containers that are killed under constant load. Every request is counted, on both sides."""

from __future__ import annotations

import http.client
import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.e2e.calls import ask_at_once, lines
from tests.e2e.conftest import PATIENCE, Machine, Process, wait_until

TARGET = """
import asyncio
import os

import modal
from fastapi.responses import StreamingResponse

app = modal.App("target")


def note(journal, text):
    with open(journal, "a") as file:
        file.write(f"{text}\\n")


@app.function(max_containers=3, min_containers=2)
@modal.fastapi_endpoint()
async def get():
    await asyncio.sleep(0.002)
    return "got"


@app.function(max_containers=3, min_containers=2)
@modal.fastapi_endpoint(method="POST")
async def post(number: str, journal: str):
    note(journal, number)
    return number


@app.function(max_containers=3, min_containers=2)
@modal.fastapi_endpoint()
async def stream():
    async def pieces():
        for _ in range(10):
            yield b"piece;"
            await asyncio.sleep(0.002)
        yield b"whole"

    return StreamingResponse(pieces())


@app.function(max_containers=2, timeout=2)
@modal.fastapi_endpoint()
async def prompt():
    return os.getpid()


@app.function(max_containers=3, retries=modal.Retries(max_retries=10, initial_delay=0.0))
async def double(x, journal):
    note(journal, x)
    await asyncio.sleep(0.01)
    return 2 * x


@app.function(max_containers=3)
async def once(x, journal):
    note(journal, x)
    await asyncio.sleep(0.01)
    return 2 * x


@app.function(max_containers=2)
@modal.fastapi_endpoint()
def both(folder: str):
    open(f"{folder}/{os.getpid()}", "w").close()
    while len(os.listdir(folder)) < 2:
        pass
    return os.getpid()
"""

Ask = Callable[[http.client.HTTPConnection, int], str]


@pytest.fixture(scope="module")
def urls(shared: Machine) -> dict[str, str]:
    """The target's URLs."""
    shared.write("target.py", TARGET)
    return shared.deploy("target.py")


class Clients:
    """Clients that ask on connections that they keep. `asked`: how many requests began; `ended`: how each ended."""

    def __init__(self, machine: Machine, ask: Ask) -> None:
        self.asked = 0
        self.ended: Counter[str] = Counter()
        self._machine = machine
        self._ask = ask
        self._ending = threading.Event()
        self._lock = threading.Lock()

    @contextmanager
    def at_work(self, number: int = 6) -> Iterator[None]:
        """So many of them."""
        with ThreadPoolExecutor(number) as threads:
            working = [threads.submit(self._work) for _ in range(number)]
            try:
                yield
            finally:
                self._ending.set()
        for client in working:
            client.result()

    def _work(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self._machine.port, timeout=PATIENCE)) as connection:
            while not self._ending.is_set():
                with self._lock:
                    self.asked += 1
                    number = self.asked
                end = self._ask(connection, number)
                with self._lock:
                    self.ended[end] += 1


def kill_some(machine: Machine, number: int, enough: Callable[[], int]) -> None:
    """Kill containers at random; after each, wait until 50 more requests have ended."""
    chance = random.Random(number)
    for _ in range(number):
        before = enough()
        containers = machine.containers()
        if containers:
            with_luck = chance.choice(containers)
            with_luck.kill()
        wait_until(lambda before=before: enough() >= before + 50, "the load goes on")


def host(url: str) -> dict[str, str]:
    return {"Host": url.partition("//")[2].partition("/")[0]}


def check_counts(machine: Machine, folder: Path) -> None:
    """No slot is lost: two containers of one slot each run two requests at the same time, and nothing is left over."""
    folder.mkdir()
    url = machine.app("target")["functions"]
    assert all(function["queued"] == 0 and function["running"] == 0 for function in url), url
    both = f"http://acme--target-both.localhost:{machine.port}/?folder={folder}"
    assert len({answer.json for answer in ask_at_once(machine, [both] * 2)}) == 2


def test_no_get_is_lost_while_containers_are_killed(shared: Machine, urls: dict[str, str], tmp_path: Path) -> None:
    """Whatever they were doing: it is asked again."""

    def ask(connection: http.client.HTTPConnection, number: int) -> str:
        connection.request("GET", "/", headers=host(urls["get"]))
        response = connection.getresponse()
        return f"{response.status} {response.read().decode()}"

    clients = Clients(shared, ask)
    with clients.at_work():
        kill_some(shared, 12, clients.ended.total)
    assert clients.ended == {'200 "got"': clients.asked}
    assert clients.asked > 600
    check_counts(shared, tmp_path / "both")


def test_a_post_runs_once_or_is_a_502_with_an_id(shared: Machine, urls: dict[str, str], tmp_path: Path) -> None:
    """None runs twice; each that was answered has run; each that was not says so."""
    journal = tmp_path / "journal"
    answered: list[str] = []

    def ask(connection: http.client.HTTPConnection, number: int) -> str:
        target = f"/?number={number}&journal={journal}"
        connection.request("POST", target, body=b"{}", headers=host(urls["post"]))
        response = connection.getresponse()
        text = response.read().decode()
        if response.status == 200:
            answered.append(json.loads(text))
        elif response.headers["x-request-id"] not in text:
            return f"{response.status} without an id"
        return str(response.status)

    clients = Clients(shared, ask)
    with clients.at_work():
        kill_some(shared, 12, clients.ended.total)
    assert set(clients.ended) <= {"200", "502"}
    assert clients.ended.total() == clients.asked
    assert clients.ended["502"] <= 12 * 6
    ran = lines(journal)
    assert len(ran) == len(set(ran))
    assert set(answered) <= set(ran)
    assert len(set(ran) - set(answered)) <= clients.ended["502"]
    check_counts(shared, tmp_path / "both")


def test_a_stream_is_whole_or_visibly_cut(shared: Machine, urls: dict[str, str], tmp_path: Path) -> None:
    """Nobody takes a short one for a whole one."""

    def ask(connection: http.client.HTTPConnection, number: int) -> str:
        connection.request("GET", "/", headers=host(urls["stream"]))
        try:
            response = connection.getresponse()
            whole = response.read() == b"piece;" * 10 + b"whole"
        except (OSError, http.client.HTTPException):
            connection.close()
            return "cut"
        return "whole" if response.status == 200 and whole else f"{response.status} short"

    clients = Clients(shared, ask)
    with clients.at_work():
        kill_some(shared, 12, clients.ended.total)
    assert set(clients.ended) <= {"whole", "cut"}
    assert clients.ended.total() == clients.asked
    assert clients.ended["cut"] <= 12 * 6
    check_counts(shared, tmp_path / "both")


def test_templates_that_are_killed_lose_nothing(shared: Machine, urls: dict[str, str], tmp_path: Path) -> None:
    """Containers go on, and the next start makes a new template."""

    def ask(connection: http.client.HTTPConnection, number: int) -> str:
        connection.request("GET", "/", headers=host(urls["get"]))
        response = connection.getresponse()
        return f"{response.status} {response.read().decode()}"

    clients = Clients(shared, ask)
    with clients.at_work():
        for _ in range(3):
            template, containers = wait_until(shared.families, "containers are there")[0]
            template.kill()
            wait_until(lambda template=template: not template.is_running(), "the template is gone")
            assert any(psutil.pid_exists(container.pid) for container in containers)
            for container in containers:
                container.kill()
            wait_until(lambda: shared.containers(), "new ones are there")
    assert clients.ended == {'200 "got"': clients.asked}
    check_counts(shared, tmp_path / "both")


def test_a_container_that_stops_reading_is_replaced(shared: Machine, urls: dict[str, str], tmp_path: Path) -> None:
    """Its requests end with their time; the others go on beside it, and none is lost without a word."""
    stopped = shared.request(urls["prompt"]).json
    assert isinstance(stopped, int)

    def ask(connection: http.client.HTTPConnection, number: int) -> str:
        connection.request("GET", "/", headers=host(urls["prompt"]))
        response = connection.getresponse()
        text = response.read().decode()
        return "200" if response.status == 200 else f"{response.status} {text.partition(' (')[0]}"

    clients = Clients(shared, ask)
    with clients.at_work():
        psutil.Process(stopped).suspend()
        wait_until(lambda: not psutil.pid_exists(stopped), "it was ended")
    late = "500 modal-http: internal error: function execution timed out"
    assert clients.ended == {"200": clients.asked - 1, late: 1}
    check_counts(shared, tmp_path / "both")


MAP = """
import json
import modal

results = modal.Function.from_name("target", {name!r}).map(range(300), [{journal!r}] * 300, return_exceptions=True)
print(json.dumps([x if isinstance(x, int) else type(x).__name__ for x in results]))
"""


@pytest.mark.parametrize("name", ["double", "once"])
def test_a_map_loses_no_input(shared: Machine, urls: dict[str, str], tmp_path: Path, name: str) -> None:
    """With retries each has its result; without, an error in the place of each that was cut off; none runs again."""
    journal = tmp_path / "journal"
    script = shared.write(
        "mapping.py", MAP.format(name=name, journal=str(journal)).replace("import modal", "import portico as modal")
    )
    mapping = Process([sys.executable, str(script)], shared.env, shared.folder)
    for goal in (20, 60, 100, 140):
        wait_until(lambda goal=goal: len(lines(journal)) >= goal, "the map goes on")
        for container in shared.containers():
            container.kill()
    results = json.loads(mapping.until(r"^\[.*\]$").group())
    assert mapping.popen.wait(PATIENCE) == 0
    good = {x: result for x, result in enumerate(results) if isinstance(result, int)}
    assert all(result == 2 * x for x, result in good.items())
    assert len(results) == 300
    ran = lines(journal)
    if name == "double":
        assert len(good) == 300
        assert len(ran) > 300
    else:
        assert set(results) - set(good.values()) == {"RemoteError"}
        assert len(ran) == len(set(ran))
    check_counts(shared, tmp_path / "both")
