"""`enable_memory_snapshot=True`: what is loaded once, what each container has for itself, and what ends a snapshot."""

from __future__ import annotations

import http.client
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from threading import Event
from urllib.parse import quote

import psutil
import pytest

from tests.e2e.calls import ask as say
from tests.e2e.calls import ask_at_once, chat, lines
from tests.e2e.conftest import PATIENCE, Machine, wait_until

APP = """
import asyncio, os, random
import modal

app = modal.App("snap")
JOURNAL = {journal!r}


def note(text):
    with open(JOURNAL, "a") as journal:
        print(text, file=journal)


if not modal.is_local():
    note(f"import {{os.environ['PORTICO_FUNCTION_NAME']}}")
    seen = sorted(os.listdir(os.path.dirname(os.environ["PORTICO_CALLS_SOCKET"])))


@app.function(enable_memory_snapshot=True, max_containers=2)
@modal.fastapi_endpoint()
def both(folder: str):
    open(f"{{folder}}/{{os.getpid()}}", "w").close()
    while len(os.listdir(folder)) < 2:
        pass
    return {{"pid": os.getpid(), "parent": os.getppid(), "random": random.random()}}


@app.function(enable_memory_snapshot=True)
@modal.fastapi_endpoint()
def tries(code: str):
    try:
        return {{"result": eval(code, globals())}}
    except Exception as error:
        return {{"error": type(error).__name__}}


@app.function(enable_memory_snapshot=True, memory=(64, 400), cpu=(0.1, 1.5), single_use_containers=True)
@modal.fastapi_endpoint()
def limited(size: int):
    return [len(bytearray(size)), os.getppid()]


@app.function(enable_memory_snapshot=True, max_containers=3, min_containers=2)
@modal.fastapi_endpoint()
async def get():
    await asyncio.sleep(0.002)
    return os.getppid()


@app.function(enable_memory_snapshot=True)
def double(x):
    return 2 * x, os.getppid()


@app.function(enable_memory_snapshot=True)
@modal.asgi_app()
def web():
    from fastapi import FastAPI, WebSocket
    web_app = FastAPI()

    @web_app.get("/double")
    async def ask(x: int):
        return await double.remote.aio(x)

    @web_app.websocket("/ws")
    async def ws(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())

    return web_app


@app.cls(enable_memory_snapshot=True, max_containers=2)
class Model:
    @modal.enter(snap=True)
    def load(self):
        self.weights = [random.random()]
        note(f"load {{os.environ['PORTICO_TASK_ID'][:3]}}")

    @modal.enter(snap=True)
    async def load_more(self):
        await asyncio.sleep(0)
        self.weights.append(await asyncio.to_thread(random.random))

    @modal.enter(snap=False)
    async def connect(self):
        self.connection = asyncio.get_running_loop().create_future()
        note(f"connect {{os.environ['PORTICO_TASK_ID'][:3]}} {{len(self.weights)}}")

    @modal.fastapi_endpoint()
    def both(self, folder: str):
        open(f"{{folder}}/{{os.getpid()}}", "w").close()
        while len(os.listdir(folder)) < 2:
            pass
        return {{"weights": self.weights, "pid": os.getpid()}}

    @modal.exit()
    def leave(self):
        note("leave")


@app.cls(enable_memory_snapshot=True)
class Named:
    name: str = modal.parameter()

    @modal.enter(snap=True)
    def load(self):
        note(f"load {{self.name}}")

    @modal.enter()
    def wake(self):
        note(f"wake {{self.name}}")

    @modal.fastapi_endpoint()
    def who(self):
        return [self.name, os.getppid()]
"""

NUMBERS = """
import os
import modal

image = modal.Image.debian_slim().pip_install("numpy")
app = modal.App("matrices", image=image)

with image.imports():
    import numpy
    numpy.linalg.inv(numpy.eye(300))  # with several threads, where there are several processors


@app.function(enable_memory_snapshot=True)
@modal.fastapi_endpoint()
def matrix():
    result = float((numpy.eye(300) @ numpy.ones((300, 300))).sum())
    return {"pid": os.getpid(), "parent": os.getppid(), "result": result, "random": numpy.random.rand()}
"""

SMALL = """
import os
import modal

app = modal.App("APP")
BROKEN


@app.function(enable_memory_snapshot=True)
@modal.fastapi_endpoint()
def which():
    return ["VERSION", os.getppid()]
"""


def write(machine: Machine, app: str, version: str, broken: str = "") -> str:
    """The small app's file."""
    text = SMALL.replace("APP", app).replace("VERSION", version).replace("BROKEN", broken)
    return machine.write(f"{app}.py", text).name


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journal") / "journal"


@pytest.fixture(scope="module")
def urls(shared: Machine, journal: Path) -> dict[str, str]:
    """The app's URLs. What is not an endpoint is called by one."""
    shared.write("snap.py", APP.format(journal=str(journal)))
    return shared.deploy("snap.py")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Where two containers meet."""
    (tmp_path / "both").mkdir()
    return str(tmp_path / "both")


def test_two_containers_import_the_module_once(
    shared: Machine, urls: dict[str, str], journal: Path, folder: str
) -> None:
    """They are forks of one process, and no random number is the same in both."""
    one, two = [answer.json for answer in ask_at_once(shared, [f"{urls['both']}/?folder={folder}"] * 2)]
    assert one["pid"] != two["pid"]
    assert one["parent"] == two["parent"]
    assert one["random"] != two["random"]
    assert Counter(lines(journal))["import both"] == 1


def test_what_is_to_be_entered_before_the_snapshot_is_entered_once(
    shared: Machine, urls: dict[str, str], journal: Path, folder: str
) -> None:
    """And the rest in each container; at its end each leaves."""
    one, two = [answer.json for answer in ask_at_once(shared, [f"{urls['Model.both']}/?folder={folder}"] * 2)]
    assert one["pid"] != two["pid"]
    assert one["weights"] == two["weights"]
    noted = Counter(lines(journal))
    assert (noted["import Model"], noted["load sn-"], noted["connect ct- 2"]) == (1, 1, 2)


def test_a_class_with_parameters_shares_what_its_module_loads(
    shared: Machine, urls: dict[str, str], journal: Path
) -> None:
    """Its objects are made in the containers: all of their `enter` methods run there."""
    answers = [shared.request(f"{urls['Named.who']}/?name={name}").json for name in ("ham", "egg")]
    assert [name for name, _ in answers] == ["ham", "egg"]
    assert answers[0][1] == answers[1][1]
    assert Counter(lines(journal))["import Named"] == 1
    assert [line for line in lines(journal) if line.endswith(("ham", "egg"))] == [
        "load ham", "wake ham", "load egg", "wake egg"
    ]  # fmt: skip


def test_numpy_computes_in_containers_of_a_snapshot(shared: Machine) -> None:
    """Its library has threads of its own, which end for a fork and start again after it; its random numbers differ."""
    shared.write("matrices.py", NUMBERS)
    url = shared.deploy("matrices.py")["matrix"]
    first = shared.request(url).json
    os.kill(first["pid"], 9)
    wait_until(lambda: not psutil.pid_exists(first["pid"]), "it has gone")
    second = shared.request(url).json
    assert (second["parent"], second["result"]) == (first["parent"], 90_000.0)
    assert first["result"] == second["result"]
    assert first["random"] != second["random"]


def test_calls_and_websockets_reach_containers_of_a_snapshot(shared: Machine, urls: dict[str, str]) -> None:
    """As they reach others."""
    assert shared.request(f"{urls['web']}/double?x=21").json[0] == 42
    with chat(shared, f"{urls['web']}/ws") as ws:
        assert say(ws, "hello") == "hello"


def test_limits_hold_for_each_container_of_a_snapshot(shared: Machine, urls: dict[str, str]) -> None:
    """By control groups of its own, where there are some. One that takes too much ends alone."""
    first = shared.request(f"{urls['limited']}/?size={2**20}").json
    assert shared.request(f"{urls['limited']}/?size={2**30}").status == 500
    assert shared.request(f"{urls['limited']}/?size={2**20}").json == first


# -- isolation --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("when", ["seen", "sorted(os.listdir(os.path.dirname(os.environ['PORTICO_CALLS_SOCKET'])))"])
def test_neither_a_snapshot_nor_its_containers_see_the_servers_files(
    shared: Machine, urls: dict[str, str], when: str
) -> None:
    """The module is imported behind the same walls."""
    assert attempt(shared, urls, when) == ["c", "calls.sock"]


def test_a_container_of_a_snapshot_sees_no_other_ones_folder(shared: Machine, urls: dict[str, str]) -> None:
    """Of its snapshot's folder it sees its own, and its temporary files; of other functions' none."""
    run = shared.home / "run" / "c"
    seen = attempt(
        shared, urls, f"[os.listdir({str(run)!r}), os.listdir({str(run)!r} + '/' + os.listdir({str(run)!r})[0])]"
    )
    assert isinstance(seen, list)
    assert len(seen[0]) == 1
    assert len(seen[1]) == 2
    assert len(os.listdir(run)) > 1


def test_a_container_of_a_snapshot_cannot_look_into_others(shared: Machine, urls: dict[str, str]) -> None:
    """Neither into the snapshot, nor into the template, nor into the server."""
    pid = int(str(attempt(shared, urls, "os.getpid()")))
    around = [psutil.Process(pid).parent().pid, psutil.Process(pid).parent().parent().pid, shared.servers()[0].pid]
    for other in around:
        assert attempt(shared, urls, f"open('/proc/{other}/environ').read()") == "PermissionError"
    assert attempt(shared, urls, "open(f'/proc/{os.getpid()}/environ').close()") is None


def attempt(machine: Machine, urls: dict[str, str], code: str) -> object:
    """What this code gives in a container, or the name of what it raises."""
    answer = json.loads(machine.request(f"{urls['tries']}/?code={quote(code)}").body)
    return answer.get("result", answer.get("error"))


# -- ends -------------------------------------------------------------------------------------------------------------
def test_snapshots_that_are_killed_lose_nothing(shared: Machine, urls: dict[str, str]) -> None:
    """Under load: containers go on, and when they are killed too, the next start makes a new snapshot."""
    ending = Event()
    ended: Counter[int] = Counter()
    host = {"Host": urls["get"].partition("//")[2].partition("/")[0]}

    def work() -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", shared.port, timeout=PATIENCE)) as connection:
            while not ending.is_set():
                connection.request("GET", "/", headers=host)
                response = connection.getresponse()
                response.read()
                ended[response.status] += 1

    snapshots = set()
    with ThreadPoolExecutor(4) as threads:
        working = [threads.submit(work) for _ in range(4)]
        try:
            for _ in range(3):
                snapshot = wait_until(lambda: snapshot_of(shared, urls), "there is a snapshot")
                containers = snapshot.children()
                snapshot.kill()
                wait_until(lambda snapshot=snapshot: not snapshot.is_running(), "it is gone")
                before = ended[200]
                wait_until(lambda before=before: ended[200] > before + 20, "the load goes on")
                assert any(container.is_running() for container in containers)
                for container in containers:
                    with suppress(psutil.NoSuchProcess):  # nobody had heard of it yet
                        container.kill()
                snapshots.add(snapshot.pid)
        finally:
            ending.set()
    for client in working:
        client.result()
    assert len(snapshots) == 3
    assert set(ended) == {200}


def snapshot_of(machine: Machine, urls: dict[str, str]) -> psutil.Process | None:
    """The snapshot of `get`, if what answers is a child of it and not of the template, which has adopted it."""
    parent = psutil.Process(int(str(machine.request(urls["get"]).json)))
    return None if parent.pid in [template.pid for template in machine.templates()] else parent


def test_a_deploy_replaces_the_snapshot(shared: Machine) -> None:
    """The new code answers, and nothing is left of the old one's process; stopping the app ends the last."""
    snapshots = []
    for version in ("old", "new"):
        answer = shared.request(shared.deploy(write(shared, "versions", version))["which"]).json
        assert answer[0] == version
        snapshots.append(answer[1])
    assert snapshots[0] != snapshots[1]
    wait_until(lambda: not psutil.pid_exists(snapshots[0]), "the old one is gone")
    assert psutil.pid_exists(snapshots[1])
    shared.run("app", "stop", "versions", "--yes")
    wait_until(lambda: not psutil.pid_exists(snapshots[1]), "the new one is gone")


def test_a_deploy_whose_module_cannot_be_imported_fails_with_its_traceback(shared: Machine) -> None:
    """As without a snapshot; the version before goes on."""
    url = shared.deploy(write(shared, "broken", "good"))["which"]
    before = shared.request(url).json
    failed = shared.run("deploy", write(shared, "broken", "bad", "modal.is_local() or 1 / 0"), code=1)
    assert "ZeroDivisionError: division by zero" in failed.stderr
    assert 'broken.py", line 6' in failed.stderr
    assert shared.request(url).json == before


def test_a_program_of_its_own_has_no_snapshot(shared: Machine) -> None:
    """Which a deploy says."""
    shared.write(
        "program.py",
        "import subprocess, sys\nimport modal\napp = modal.App('program')\n"
        "@app.function(enable_memory_snapshot=True)\n@modal.web_server(8000)\ndef files():\n"
        "    subprocess.Popen([sys.executable, '-m', 'http.server', '8000'])\n",
    )
    done = shared.run("deploy", "program.py")
    assert "files: enable_memory_snapshot= has no effect on a web_server" in done.stderr


def test_a_reload_serves_new_code_from_a_new_snapshot(shared: Machine) -> None:
    """And ends the old one; the end of the command ends the last."""
    serve = shared.start("serve", write(shared, "fresh", "old"))
    url = serve.until(r"(http://acme--fresh-which-dev\S+)").group(1)
    first = shared.request(url).json
    write(shared, "fresh", "new")
    serve.until("Reloaded in")
    second = shared.request(url).json
    assert (first[0], second[0]) == ("old", "new")
    wait_until(lambda: not psutil.pid_exists(first[1]), "the old one is gone")
    serve.interrupt()
    wait_until(lambda: not psutil.pid_exists(second[1]), "the new one is gone")
