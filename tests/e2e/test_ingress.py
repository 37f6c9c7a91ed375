"""More than one ingress process: `portico up --ingress 2`. `make test-ingress` runs all other tests so, too."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from portico.core.rendezvous import owner
from tests.e2e.access import a_token
from tests.e2e.calls import Call, ask, chat
from tests.e2e.conftest import PATIENCE, Answer, Machine, wait_until

PAIR = """
import asyncio
import os
import time

import modal
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

app = modal.App("pair")


@app.function(max_containers=2, min_containers=1)
@modal.fastapi_endpoint()
async def {here}():
    return "{word} here"


@app.function(max_containers=2)
@modal.fastapi_endpoint()
def {there}(gate: str = ""):
    if gate:
        open(f"{{gate}}.{{os.getpid()}}.{{time.monotonic_ns()}}", "w").close()
        while not os.path.exists(gate):
            time.sleep(0.005)
    return "{word} there"


@app.function()
@modal.asgi_app()
def {site}():
    web = FastAPI()

    @web.get("/stream")
    async def stream():
        async def pieces():
            for number in range(5):
                yield f"{{number}};"
                await asyncio.sleep(0.01)

        return StreamingResponse(pieces())

    @web.websocket("/echo")
    async def echo(socket: WebSocket):
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    return web


@app.function(retries=modal.Retries(max_retries=3, initial_delay=0.0))
def {double}(x):
    return 2 * x


@app.function()
@modal.fastapi_endpoint()
def {caller}():
    spawned = {double}.spawn(20)
    return [{double}.remote(1), list({double}.map([1, 2, 3])), spawned.get()]
"""


def name(process: int, kind: str) -> str:
    """What a function of this app is called, so that it lives in this process."""
    names = (f"{kind}{number}" for number in range(100))
    return next(name for name in names if owner(f"main/pair/{name}", 2) == process)


NAMES = {
    "here": name(0, "here"),
    "there": name(1, "there"),
    "site": name(1, "site"),
    "double": name(1, "double"),
    "caller": name(0, "caller"),
}


def deployed(machine: Machine, word: str = "first", *options: str) -> dict[str, str]:
    """The URL of each function."""
    machine.write("pair.py", PAIR.format(word=word, **NAMES))
    urls = machine.deploy("pair.py", *options)
    return {kind: urls[name] for kind, name in NAMES.items() if name in urls}


def shards(machine: Machine) -> list[psutil.Process]:
    """The ingress processes beside the first one."""
    found = []
    for process in [child for server in machine.servers() for child in server.children()]:
        with suppress(psutil.Error):
            if "portico.server.shard" in process.cmdline():
                found.append(process)
    return found


@pytest.fixture
def two(machine: Machine) -> Machine:
    """A machine of one's own, whose server will have two."""
    machine.env["PORTICO_INGRESS"] = "2"
    return machine


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A running server with two, for tests that leave it as they found it."""
    machine = Machine(tmp_path_factory.mktemp("town"))
    server = machine.start("up", "--ingress", "2")
    server.until("listens on")
    yield machine
    machine.close()
    wait_until(lambda: not machine.leftovers(), f"nothing is left: {machine.leftovers()}")


@pytest.fixture(scope="module")
def urls(town: Machine) -> dict[str, str]:
    """Of the functions that are deployed there."""
    return deployed(town)


class Client:
    """One that keeps its connection; on `Connection: close` it makes another one."""

    def __init__(self, machine: Machine) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", machine.port, timeout=PATIENCE)

    def get(self, url: str) -> Answer:
        host, _, path = url.partition("//")[2].partition("/")
        self._connection.request("GET", f"/{path}", headers={"Host": host})
        response = self._connection.getresponse()
        return Answer(response.status, dict(response.headers), response.read())

    def close(self) -> None:
        self._connection.close()


class Load:
    """Clients that ask all of some URLs in turn. `ended`: how; whatever is wrong with a connection is one of them."""

    def __init__(self, machine: Machine, urls: list[str]) -> None:
        self.ended: Counter[str] = Counter()
        self._machine = machine
        self._urls = urls
        self._ending = threading.Event()

    @contextmanager
    def at_work(self, number: int = 4) -> Iterator[None]:
        with ThreadPoolExecutor(number) as threads:
            working = [threads.submit(self._work, start) for start in range(number)]
            try:
                yield
            finally:
                self._ending.set()
        for client in working:
            client.result()

    def _work(self, start: int) -> None:
        asked = start
        with closing(Client(self._machine)) as client:
            while not self._ending.is_set():
                asked += 1
                try:
                    answer = client.get(self._urls[asked % len(self._urls)])
                    self.ended[f"{answer.status} {answer.text}"] += 1
                except (OSError, http.client.HTTPException) as error:
                    client.close()
                    self.ended[type(error).__name__] += 1


def counts(machine: Machine, kind: str) -> dict[str, int]:
    functions = machine.app("pair")["functions"]
    return next(function for function in functions if function["name"] == NAMES[kind])


def test_one_connection_asks_functions_of_both_processes_in_turn(town: Machine, urls: dict[str, str]) -> None:
    """And whatever the first one alone answers."""
    with closing(Client(town)) as client:
        for _ in range(20):
            assert client.get(urls["here"]).json == "first here"
            assert client.get(urls["there"]).json == "first there"
            assert client.get(urls["there"]).json == "first there"
            assert client.get(f"http://nobody.localhost:{town.port}/").status == 404
            assert client.get(f"http://localhost:{town.port}/healthz").status == 200


def test_streams_and_websockets_come_from_both(town: Machine, urls: dict[str, str]) -> None:
    """On connections that either process has accepted."""
    for _ in range(6):
        assert town.request(f"{urls['site']}/stream").body == b"0;1;2;3;4;"
        with chat(town, f"{urls['site']}/echo") as socket:
            assert [ask(socket, text) for text in ("a", "b" * 100_000)] == ["a", "b" * 100_000]


def test_functions_call_one_another_across_processes(town: Machine, urls: dict[str, str]) -> None:
    """Plainly, in a map, and stored."""
    assert town.request(urls["caller"]).json == [2, [2, 4, 6], 40]


def test_limits_and_counts_are_exact_wherever_a_function_lives(
    town: Machine, urls: dict[str, str], tmp_path: Path
) -> None:
    """Two containers run, the others wait; `app info` says so."""
    gate = tmp_path / "gate"
    calls = [Call(town, f"{urls['there']}/?gate={gate}") for _ in range(7)]
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2, "two run")
    wait_until(lambda: counts(town, "there")["queued"] == 5, "the others wait")
    assert counts(town, "there")["running"] == 2
    assert len(list(tmp_path.iterdir())) == 2
    gate.touch()
    assert [call.answer().json for call in calls] == ["first there"] * 7
    wait_until(lambda: counts(town, "there")["running"] == 0, "all have ended")


def test_a_client_of_the_other_process_is_not_refused_while_apps_come_up(two: Machine) -> None:
    """It waits until it is known what its host means."""
    server = two.start("up")
    server.until("listens on")
    urls = deployed(two)
    assert server.interrupt() == 0
    server = two.start("up")
    server.until("listens on")
    for kind in ("there", "here") * 3:
        assert two.request(urls[kind]).json == f"first {kind}"


def test_no_request_is_lost_while_versions_change(two: Machine) -> None:
    """Functions of both processes, on connections that alternate; afterwards only the new version answers."""
    two.up()
    urls = deployed(two)
    load = Load(two, [urls["here"], urls["there"]])
    with load.at_work():
        for word in ("second", "third"):
            before = load.ended.total()
            wait_until(lambda before=before: load.ended.total() > before + 100, "the load goes on")
            deployed(two, word)
            answers = {two.request(urls[kind]).json for kind in ("here", "there") * 4}
            assert answers == {f"{word} here", f"{word} there"}
    words = {f'200 "{word} {kind}"' for word in ("first", "second", "third") for kind in ("here", "there")}
    assert set(load.ended) == words


def test_a_version_that_cannot_start_changes_nothing_in_any_process(town: Machine, urls: dict[str, str]) -> None:
    """Though functions of the other process would have been ready."""
    text = PAIR.format(word="broken", **NAMES) + "\nif not modal.is_local():\n    raise RuntimeError('not here')\n"
    town.write("pair.py", text)
    done = town.run("deploy", "pair.py", code=1)
    assert "RuntimeError: not here" in done.stderr
    assert {town.request(urls[kind]).json for kind in ("here", "there")} == {"first here", "first there"}


def test_a_killed_ingress_process_comes_back_and_the_other_one_goes_on(two: Machine) -> None:
    """No request of the other process's functions is lost; its own functions answer again, and count from zero."""
    two.up()
    urls = deployed(two)
    assert two.request(urls["there"]).json == "first there"
    with closing(Client(two)) as steady:
        while (first := shards(two)[0]) and steady.get(urls["here"]).json != "first here":
            pass  # until it lives in the first process, where its function is
        container = {process.pid for process in two.containers()}
        first.kill()
        for _ in range(50):
            assert steady.get(urls["here"]).json == "first here"
    assert {two.request(urls[kind]).json for kind in ("there", "here") * 8} == {"first here", "first there"}
    (second,) = wait_until(lambda: shards(two), "there is another one")
    assert second.pid != first.pid
    wait_until(lambda: counts(two, "there")["containers"] == 1, "what the dead one had has gone")
    assert {process.pid for process in two.containers()} & container  # those of the first process are the same
    assert two.request(urls["caller"]).json == [2, [2, 4, 6], 40]
    deployed(two, "second")
    assert {two.request(urls[kind]).json for kind in ("there", "here") * 4} == {"second here", "second there"}


def test_processes_end_with_the_server_that_is_killed(two: Machine) -> None:
    """All of them, with their containers."""
    two.up()
    urls = deployed(two)
    assert two.request(urls["there"]).json == "first there"
    (server,) = two.servers()
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not two.leftovers(), "nothing is left")


def test_a_server_that_ends_answers_what_runs_in_any_process(two: Machine, tmp_path: Path) -> None:
    """And refuses connections meanwhile."""
    server = two.up()
    urls = deployed(two)
    gate = tmp_path / "gate"
    call = Call(two, f"{urls['there']}/?gate={gate}")
    wait_until(lambda: list(tmp_path.glob("gate.*")), "it runs")
    server.popen.send_signal(signal.SIGTERM)

    def refused() -> bool:
        try:
            Call(two, urls["there"]).leave()
        except ConnectionRefusedError:
            return True
        return False

    wait_until(refused, "connections are refused")
    gate.touch()
    assert call.answer().json == "first there"
    assert server.popen.wait(PATIENCE) == 0


def test_a_rate_limit_holds_for_all_processes_together(two: Machine) -> None:
    """What the workspace may ask in a second, it may ask of all its functions."""
    two.env["PORTICO_RATE_LIMIT"] = "4"
    two.up()
    urls = deployed(two)
    began = time.monotonic()
    answers: Counter[int] = Counter()
    while time.monotonic() - began < 2.0:
        for kind in ("here", "there"):
            answers[two.request(urls[kind]).status] += 1
    took = time.monotonic() - began
    assert set(answers) == {200, 429}
    assert 20 <= answers[200] <= 20 + 4 * took


def test_keys_and_policies_hold_in_all_processes(two: Machine) -> None:
    """From the moment the command ends."""
    two.up()
    urls = deployed(two)
    two.run("workspace", "set", "require-proxy-auth", "on")
    assert [two.request(urls[kind]).status for kind in ("here", "there") * 3] == [401] * 6
    keys = a_token(two)
    assert [two.request(urls[kind], headers=keys).status for kind in ("here", "there") * 3] == [200] * 6
    first = shards(two)[0]
    first.kill()
    wait_until(lambda: shards(two) and shards(two)[0].pid != first.pid, "there is another one")
    assert [two.request(urls["there"], headers=headers).status for headers in ({}, keys)] == [401, 200]
    two.run("proxy-token", "revoke", keys["Modal-Key"])
    assert [two.request(urls[kind], headers=keys).status for kind in ("here", "there") * 3] == [401] * 6


def test_a_second_server_does_not_share_the_port(two: Machine, tmp_path: Path) -> None:
    """Though the kernel would let it."""
    two.up()
    two.env["PORTICO_HOME"], home = str(tmp_path / "other"), two.env["PORTICO_HOME"]
    try:
        assert f"The port 127.0.0.1:{two.port} is in use" in two.run("up", code=1).stderr
    finally:
        two.env["PORTICO_HOME"] = home
