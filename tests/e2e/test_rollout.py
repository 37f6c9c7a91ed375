"""One version after the other: nothing is lost on the way, whatever happens in between."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests.e2e.calls import Call
from tests.e2e.conftest import PATIENCE, Machine, wait_until

SAYS = """
import modal

app = modal.App("{app}")


@app.function({options})
@modal.fastapi_endpoint({web})
def says():
    return {word!r}
"""

SLOW = """
import os
import time

import modal

app = modal.App("slow")


@app.function()
@modal.fastapi_endpoint()
def says(gate: str = "/", begun: str = os.devnull):
    open(begun, "w").close()
    while not os.path.exists(gate):
        time.sleep(0.005)
    return {word!r}
"""


def write(machine: Machine, app: str, word: object, *, web: str = "", options: str = "", file: str = "") -> str:
    """An app whose function answers with this word; its file."""
    name = file or f"{app}.py"
    machine.write(name, SAYS.format(app=app, word=word, web=web, options=options))
    return name


class Load:
    """Clients that ask again and again; what they were answered."""

    def __init__(self, machine: Machine, url: str) -> None:
        self.words: list[object] = []
        self.failures: list[object] = []
        self._machine = machine
        self._url = url
        self._ending = threading.Event()

    @contextmanager
    def clients(self) -> Iterator[None]:
        """Four of them: two keep their connection, two make a new one each time."""
        with ThreadPoolExecutor(4) as threads:
            for client in (self._keep, self._keep, self._renew, self._renew):
                threads.submit(client)
            try:
                yield
            finally:
                self._ending.set()

    def _keep(self) -> None:
        host = self._url.partition("//")[2]
        with closing(http.client.HTTPConnection("127.0.0.1", self._machine.port, timeout=PATIENCE)) as connection:
            while not self._ending.is_set():
                try:
                    connection.request("GET", "/", headers={"Host": host})
                    response = connection.getresponse()
                    self._note(response.status, response.read())
                except (OSError, http.client.HTTPException) as error:
                    self.failures.append(error)

    def _renew(self) -> None:
        while not self._ending.is_set():
            try:
                answer = self._machine.request(self._url)
                self._note(answer.status, answer.body)
            except (OSError, ValueError) as error:
                self.failures.append(error)

    def _note(self, status: int, body: bytes) -> None:
        if status == 200:
            self.words.append(json.loads(body))
        else:
            self.failures.append((status, body))


# -- under load -------------------------------------------------------------------------------------------------------
def test_no_request_fails_while_versions_change(shared: Machine) -> None:
    """Three deploys and a rollback under load; after each, the new version answers."""
    url = shared.deploy(write(shared, "loaded", "one"))["says"]
    load = Load(shared, url)
    with load.clients():
        for word in ("two", "three", "four"):
            shared.deploy(write(shared, "loaded", word))
            assert shared.request(url).json == word
        shared.run("app", "rollback", "loaded", "--yes")
        assert shared.request(url).json == "three"
    assert load.failures == []
    assert set(load.words) == {"one", "two", "three", "four"}
    assert len(load.words) > 100


def test_no_request_fails_while_versions_with_many_slots_change(shared: Machine) -> None:
    """The same where a container has several inputs at a time, and there is only one."""
    concurrent = "max_containers=1)\n@modal.concurrent(max_inputs=10"
    url = shared.deploy(write(shared, "dense", "one", options=concurrent))["says"]
    load = Load(shared, url)
    with load.clients():
        for word in ("two", "three"):
            shared.deploy(write(shared, "dense", word, options=concurrent))
            assert shared.request(url).json == word
    assert load.failures == []
    assert set(load.words) == {"one", "two", "three"}


def test_a_request_in_flight_finishes_on_the_old_version(shared: Machine, tmp_path: Path) -> None:
    """While new ones are answered by the new version."""
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    shared.write("slow.py", SLOW.format(word="old"))
    url = shared.deploy("slow.py")["says"]
    call = Call(shared, f"{url}/?gate={gate}&begun={begun}")
    wait_until(begun.exists, "it has begun")
    shared.write("slow.py", SLOW.format(word="new"))
    shared.deploy("slow.py")
    assert shared.request(url).json == "new"
    gate.touch()
    assert call.answer().json == "old"


def test_the_containers_of_the_old_version_go(shared: Machine) -> None:
    """As soon as they are idle, not after the window."""
    shared.deploy(write(shared, "parted", "old"))
    before = {container.pid for container in shared.containers()}
    shared.deploy(write(shared, "parted", "new"))
    after = {container.pid for container in shared.containers()}
    wait_until(lambda: len({c.pid for c in shared.containers()} & before) < len(before), "the old one is gone")
    assert after - before


# -- two at once ------------------------------------------------------------------------------------------------------
def test_a_label_that_another_app_holds_fails_the_deploy_and_names_the_holder(shared: Machine) -> None:
    """The holder keeps it."""
    web = 'label="nest"'
    url = shared.deploy(write(shared, "holder", "mine", web=web))["says"]
    done = shared.run("deploy", write(shared, "cuckoo", "yours", web=web), code=1)
    assert "'acme--nest'" in done.stderr
    assert "'holder'" in done.stderr
    assert shared.request(url).json == "mine"
    assert "cuckoo" not in shared.run("app", "list").stdout


def test_of_two_apps_that_want_a_label_at_the_same_time_one_gets_it(shared: Machine) -> None:
    """And the other one is not deployed, also after a restart."""
    files = [write(shared, name, name, web='label="egg"') for name in ("finch", "linnet")]
    deploys = [shared.start("deploy", file) for file in files]
    codes = [deploy.popen.wait(PATIENCE) for deploy in deploys]
    assert sorted(codes) == [0, 1], [deploy.rest() for deploy in deploys]
    winner = ("finch", "linnet")[codes.index(0)]
    url = f"http://acme--egg.localhost:{shared.port}"
    assert shared.request(url).json == winner
    listed = {app["name"] for app in json.loads(shared.run("app", "list", "--json").stdout)}
    assert listed & {"finch", "linnet"} == {winner}


def test_two_deploys_of_one_app_come_one_after_the_other(shared: Machine) -> None:
    """Both become versions, and the later one is what answers."""
    words = ["left", "right"]
    files = [write(shared, "twin", word, file=f"{word}/twin.py") for word in words]
    deploys = [shared.start("deploy", file, "--json") for file in files]
    versions = [json.loads(deploy.until(r"^\{.*\}$").group())["version"] for deploy in deploys]
    assert sorted(versions) == [1, 2]
    url = f"http://acme--twin-says.localhost:{shared.port}"
    assert shared.request(url).json == words[versions.index(2)]
    assert shared.app("twin")["version"] == 2


# -- while the server comes up ---------------------------------------------------------------------------------------
def come_up_slowly(machine: Machine) -> str:
    """A server that has to build its only app's image again; the app's URL."""
    before = machine.up()
    options = "image=modal.Image.debian_slim().run_commands('sleep 1.5')"
    url = machine.deploy(write(machine, "early", "old", web='label="worm"', options=options))["says"]
    assert before.interrupt() == 0
    shutil.rmtree(machine.home / "images")
    machine.up()
    return url


def test_a_deploy_while_the_apps_come_up_is_what_answers_in_the_end(machine: Machine) -> None:
    """The version before does not come back over it."""
    url = come_up_slowly(machine)
    machine.deploy(write(machine, "early", "new", web='label="worm"'))
    assert machine.request(url).json == "new"


def test_a_label_is_not_free_while_its_app_comes_up(machine: Machine) -> None:
    """Its request waits, and is answered by its app."""
    url = come_up_slowly(machine)
    call = Call(machine, url)
    done = machine.run("deploy", write(machine, "late", "other", web='label="worm"'), code=1)
    assert "'early'" in done.stderr
    assert call.answer().json == "old"


def test_other_apps_need_not_wait_for_one_that_comes_up_slowly(machine: Machine) -> None:
    """A deploy beside it, and what was deployed before; its own requests wait for it."""
    gate = machine.folder / "gate"
    gate.touch()
    server = machine.up()
    options = f"image=modal.Image.debian_slim().run_commands('while [ ! -e {gate} ]; do sleep 0.02; done')"
    slow = machine.deploy(write(machine, "slow", "slow", options=options))["says"]
    quick = machine.deploy(write(machine, "quick", "quick"))["says"]
    assert server.interrupt() == 0
    shutil.rmtree(machine.home / "images")
    gate.unlink()
    machine.up()
    call = Call(machine, slow)
    assert machine.request(quick).json == "quick"
    assert machine.request(machine.deploy(write(machine, "new", "new"))["says"]).json == "new"
    assert call.received == b""
    gate.touch()
    assert call.answer().json == "slow"


def test_a_call_of_an_app_that_could_not_be_brought_up_says_so(machine: Machine) -> None:
    """With the cause, and not that there is no such function."""
    needed = machine.folder / "needed"
    needed.touch()
    server = machine.up()
    machine.write(
        "callee.py",
        "import modal\n"
        f"image = modal.Image.debian_slim().run_commands('test -e {needed}')\n"
        "app = modal.App('callee', image=image)\n"
        "@app.function()\ndef f():\n    return 1\n",
    )
    machine.deploy("callee.py")
    assert server.interrupt() == 0
    shutil.rmtree(machine.home / "images")
    needed.unlink()
    machine.up()
    script = machine.write("script.py", "import portico\nportico.Function.from_name('callee', 'f').remote()\n")
    done = subprocess.run([sys.executable, str(script)], env=machine.env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "StartError: f: this app could not be brought up" in done.stderr


# -- power cuts -------------------------------------------------------------------------------------------------------
def test_a_server_that_is_killed_during_deploys_leaves_the_old_or_the_new_version(machine: Machine) -> None:
    """Six times, at random moments and in the very one in which the version changes; the database stays whole.

    `python -m tests.e2e.restarts 100` does it a hundred times.
    """
    cut_power(machine, 6, seed=7)


def cut_power(machine: Machine, rounds: int, *, seed: int) -> None:
    """Kill the server during a deploy, and start it again, so many times."""
    moments = random.Random(seed)
    machine.up()
    url = machine.deploy(write(machine, "cut", 0))["says"]
    version, word = 1, 0
    for number in range(1, rounds + 1):
        deploy = machine.start("deploy", write(machine, "cut", number))
        if number % 2:
            deploy.until("says is ready")
        else:
            wait_at_most(deploy.popen, moments.uniform(0, 1.2))
        kill_servers(machine)
        deployed = deploy.popen.wait(PATIENCE) == 0
        assert not any("Traceback" in line for line in deploy.rest())
        kill_servers(machine)  # a deploy that found none has started one
        with closing(sqlite3.connect(machine.home / "portico.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        machine.up()
        now = machine.app("cut")["version"]
        assert now in ((version + 1,) if deployed else (version, version + 1))
        if now != version:
            version, word = now, number
        assert machine.request(url).json == word
    assert word > 0


def wait_at_most(process: subprocess.Popen[str], seconds: float) -> None:
    """Until it ends, but not longer."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def kill_servers(machine: Machine) -> None:
    """Kill -9, and wait until nothing of them is left."""
    for server in machine.servers():
        server.kill()
    wait_until(lambda: not machine.servers(), "they are gone")
