"""Containers that are forked from a snapshot: what they share, what is their own, and how a snapshot ends."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from engine_cases import PATIENCE, Recorder, Sink, a_start, descriptors, get, vanish

from portico.engines.container import ProcessContainer
from portico.engines.process import ProcessEngine
from portico.model.ports import Container, StartFailure
from portico.model.spec import Resources

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP = """
import os, random, subprocess, tempfile, threading, uuid
import modal

app = modal.App("snapped")
HERE = os.path.dirname(__file__)


def note(text):
    with open(f"{HERE}.journal", "a") as journal:
        print(text, file=journal)


note(f"import {os.environ['PORTICO_TASK_ID']}")
os.environ["SET_BY_THE_MODULE"] = "kept"
cache = tempfile.mkdtemp()
print("half a line of a print", end="")
%s


def opens(path):
    try:
        open(path, "rb").close()
    except OSError as error:
        return type(error).__name__
    return "opened"


@app.function()
@modal.fastapi_endpoint()
async def tell(code: str = "None"):
    return eval(code)
"""


@dataclass
class Case:
    """An engine, and a bundle of its own for each test."""

    engine: ProcessEngine
    bundle: Path
    sink: Sink
    snapshot: str

    def write(self, more: str = "") -> None:
        """The user's module, with these lines at its top level."""
        (self.bundle / "snapped.py").write_text(APP % more)

    def begin(self, *, snapshot: bool = True, **more: Any) -> tuple[ProcessContainer, Recorder]:
        """Start a container of `tell`."""
        recorder = Recorder()
        start = a_start(self.bundle, "tell", module="snapped", **more)
        container = self.engine.start(replace(start, snapshot=self.snapshot if snapshot else None), recorder)
        return container, recorder

    async def ready(self, **more: Any) -> tuple[ProcessContainer, Recorder]:
        """The same; it has become ready."""
        container, recorder = self.begin(**more)
        await recorder.until("ready")
        return container, recorder

    async def insist(self) -> ProcessContainer:
        """The same; as often as somebody kills what it is started from."""
        while True:
            container, recorder = self.begin()
            while not recorder.seen:
                await recorder.changed()
            if recorder.names[0] == "ready":
                return container
            _, failure = recorder.seen[0]
            assert isinstance(failure, StartFailure)
            assert failure.killed

    @property
    def journal(self) -> list[str]:
        """What the module has noted."""
        return self.bundle.with_suffix(".journal").read_text().splitlines()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def sink() -> Sink:
    return Sink()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> AsyncIterator[ProcessEngine]:
    """One for all tests that do not end it."""
    engine = ProcessEngine(tmp_path_factory.mktemp("run"), sink)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(loop_scope="module")
async def case(engine: ProcessEngine, bundle: Path, sink: Sink) -> AsyncIterator[Case]:
    case = Case(engine, bundle, sink, secrets.token_hex(4))
    case.write()
    yield case
    case.engine.dismiss(case.snapshot)


async def ask(container: Container, code: str) -> Any:
    """What this code gives in the container."""
    return json.loads((await get(container.address, f"/?code={quote(code)}")).body)


def parent(pid: int | None) -> int:
    """The process id of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def until_gone(path: Path) -> None:
    """Returns when nothing is there; nobody tells of that."""
    async with asyncio.timeout(PATIENCE):
        while path.exists():
            await asyncio.sleep(0.005)


# -- what is shared, and what is not ----------------------------------------------------------------------------------
async def test_the_module_is_imported_once(case: Case) -> None:
    """For all containers, also those that start when there is none any more."""
    first, recorder = await case.ready()
    second, _ = await case.ready()
    assert (await get(first.address)).status == (await get(second.address)).status == 200
    first.stop(20.0)
    second.kill()
    assert await recorder.until("exited") == "exit code 0"
    await case.ready()
    assert len(case.journal) == 1
    assert case.journal[0].startswith("import sn-")


async def test_containers_are_not_the_same_by_chance(case: Case) -> None:
    """Random numbers, ids and names of files differ."""
    containers = [(await case.ready())[0] for _ in range(2)]
    for code in ("random.random()", "str(uuid.uuid4())", "tempfile.mkstemp()[1]", "os.environ['PORTICO_TASK_ID']"):
        values = [await ask(container, code) for container in containers]
        assert values[0] != values[1], code


async def test_a_container_has_its_own_variables_and_those_that_the_module_has_set(case: Case) -> None:
    """Ids are its own; a change to `os.environ` at the import is kept."""
    container, _ = await case.ready()
    assert await ask(container, "os.environ['MODAL_TASK_ID']") == container.id
    assert await ask(container, "os.environ['SET_BY_THE_MODULE']") == "kept"
    assert await ask(container, "os.getcwd()") == str(case.bundle)


async def test_each_container_has_its_own_copy_of_temporary_files(case: Case) -> None:
    """What the module has written is there for each; what one writes then, no other one sees."""
    first, second = [(await case.ready())[0] for _ in range(2)]
    assert await ask(first, "open(cache + '/mine', 'w').close()") is None
    assert await ask(first, "os.listdir(cache)") == ["mine"]
    assert await ask(second, "os.listdir(cache)") == []
    assert await ask(second, "os.path.dirname(cache) == tempfile.gettempdir() == os.environ['TMPDIR']") is True


async def test_a_container_cannot_look_into_another_one_of_its_snapshot(case: Case) -> None:
    """Neither into its memory nor into the folder with its socket."""
    first, second = [(await case.ready())[0] for _ in range(2)]
    assert await ask(first, f"opens('/proc/{first.pid}/mem')") == "opened"
    for pid in (second.pid, parent(second.pid)):
        assert await ask(first, f"opens('/proc/{pid}/mem')") == "PermissionError"
    around = os.path.dirname(second.folder)
    assert set(await ask(first, f"os.listdir('{around}')")) == {os.path.basename(first.folder), "tmp"}


async def test_it_has_the_descriptors_that_others_have(case: Case) -> None:
    """Nothing of the snapshot's is left open in its forks."""
    links = "(f'/proc/self/fd/{n}' for n in range(100))"
    code = f"sorted(os.readlink(link).split(':')[0] for link in {links} if os.path.islink(link))"
    forked, _ = await case.ready()
    other, _ = await case.ready(snapshot=False)
    assert await ask(forked, code) == await ask(other, code)


async def test_what_the_module_prints_is_said_once(case: Case) -> None:
    """By the snapshot, also when its line is not complete."""
    container, _ = await case.ready()
    await ask(container, "print('a line of its own')")
    await case.sink.line(container, "a line of its own")
    assert case.sink.lines(container) == ["a line of its own"]


async def test_limits_hold_for_the_snapshot_and_for_its_containers(case: Case) -> None:
    """An import that takes too much memory fails, and so does an input that does."""
    limited = Resources(memory_limit=400)
    container, recorder = await case.ready(resources=limited)
    assert (await get(container.address, "/?code=len(bytearray(2**30))")).status == 500
    assert (await get(container.address)).status == 200
    container.kill()
    await recorder.until("exited")
    case.engine.dismiss(case.snapshot)
    case.write("huge = bytearray(2**30)")
    _, recorder = case.begin(resources=limited)
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert failure.cause == "MemoryError"


# -- starts that go wrong ---------------------------------------------------------------------------------------------
async def test_an_import_that_fails_is_a_failed_start_for_all_who_wait(case: Case) -> None:
    """With the user's traceback; the next start tries again."""
    case.write("1 / 0")
    for recorder in [case.begin()[1] for _ in range(2)]:
        failure = await recorder.until("failed")
        assert isinstance(failure, StartFailure)
        assert failure.cause == "ZeroDivisionError: division by zero"
        assert f'File "{case.bundle}/snapped.py", line ' in failure.detail
        await recorder.until("exited")
    case.write()
    await case.ready()


async def test_an_import_that_ends_its_process_is_a_failed_start(case: Case) -> None:
    """The status is the cause, as without a snapshot."""
    case.write("os._exit(3)")
    _, recorder = case.begin()
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert failure.cause == "The container ended while it started: exit code 3."


async def test_an_import_that_takes_too_long_fails(case: Case) -> None:
    """A snapshot has the time of a container's start."""
    case.write("while True: pass")
    _, recorder = case.begin(startup_timeout=0.1)
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert failure.cause == "It did not become ready within 0.1 s."


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("threading.Thread(target=threading.Event().wait, name='pump', daemon=True).start()", "threads when .*pump"),
        ("import _thread, select; _thread.start_new_thread(select.select, ([], [], []))", "threads when .*library"),
        ("subprocess.Popen(['sleep', '1000'])", "processes"),
    ],
    ids=["thread", "thread-of-a-library", "process"],
)
async def test_what_no_fork_would_have_makes_containers_start_without_a_snapshot(
    case: Case, line: str, said: str
) -> None:
    """Each imports the module for itself, and the log says why."""
    case.write(line)
    (first, _), (second, _) = [await case.ready() for _ in range(2)]
    assert (await get(first.address)).status == (await get(second.address)).status == 200
    assert len(case.journal) == 3
    assert case.journal[1:] == [f"import {container.id}" for container in (first, second)]
    place = case.journal[0].removeprefix("import ")
    await case.sink.said(place, f"enable_memory_snapshot= has no effect on tell: it has started {said}")


# -- its life ---------------------------------------------------------------------------------------------------------
async def test_a_killed_snapshot_leaves_its_containers_running(case: Case) -> None:
    """Their ends are still reported, and the next start makes a new one."""
    (first, recorder), (second, _) = [await case.ready() for _ in range(2)]
    snapshot = parent(first.pid)
    os.kill(snapshot, signal.SIGKILL)
    third = await case.insist()
    assert parent(third.pid) != snapshot
    assert (await get(first.address)).status == (await get(second.address)).status == 200
    first.stop(20.0)
    await recorder.until("exited")
    assert recorder.names == ["ready", "exited"]
    assert (await get(second.address)).status == 200


async def test_a_container_whose_snapshot_was_killed_with_the_request_under_way_fails(case: Case) -> None:
    """A start whose process never came is reported as one that somebody killed."""
    container, _ = await case.ready()
    snapshot = parent(container.pid)
    os.kill(snapshot, signal.SIGSTOP)
    _, recorder = case.begin()
    os.kill(snapshot, signal.SIGKILL)
    failure = await recorder.until("failed")
    assert failure == StartFailure("The function's snapshot ended while the container started.", killed=True)
    assert (await get(container.address)).status == 200


async def test_a_snapshot_outlives_its_template(case: Case, bundle: Path, tmp_path: Path) -> None:
    """Containers are forked from it as before; what it leaves when it is killed, too, ends with the engine."""
    case.engine = ProcessEngine(tmp_path / "run", case.sink)
    first, _ = await case.ready()
    snapshot = parent(first.pid)
    template = parent(snapshot)
    os.kill(template, signal.SIGKILL)
    await vanish(template)
    second, recorder = await case.ready()
    assert parent(second.pid) == snapshot
    os.kill(snapshot, signal.SIGKILL)
    await vanish(snapshot)
    assert (await get(second.address)).status == 200
    await case.engine.close()
    assert recorder.names == ["ready", "exited"]
    for pid in (first.pid, second.pid):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_dismissed_snapshot_ends_with_its_last_container(case: Case) -> None:
    """And its folder with it."""
    container, recorder = await case.ready()
    snapshot = parent(container.pid)
    case.engine.dismiss(case.snapshot)
    assert (await get(container.address)).status == 200
    assert Path(f"/proc/{snapshot}").exists()
    container.stop(20.0)
    assert await recorder.until("exited") == "exit code 0"
    await vanish(snapshot)
    await until_gone(Path(container.folder).parent)


async def test_a_snapshot_without_containers_stays_until_it_is_dismissed(case: Case) -> None:
    """That is what it is for."""
    container, recorder = await case.ready()
    snapshot = parent(container.pid)
    container.kill()
    await recorder.until("exited")
    container, recorder = await case.ready()
    assert parent(container.pid) == snapshot
    container.kill()
    await recorder.until("exited")
    case.engine.dismiss(case.snapshot)
    await vanish(snapshot)


async def test_other_variables_are_another_snapshot(case: Case) -> None:
    """A secret that has changed is seen by the module, too."""
    first, _ = await case.ready(env={"TOKEN": "old"})
    case.write("TOKEN = os.environ['TOKEN']")
    second, _ = await case.ready(env={"TOKEN": "new"})
    assert await ask(second, "TOKEN") == "new"
    assert parent(first.pid) != parent(second.pid)


async def test_a_closed_engine_leaves_nothing_of_a_snapshot(case: Case, tmp_path: Path) -> None:
    """No process, no socket, no folder, no descriptor."""
    await asyncio.to_thread(lambda: None)
    before = Counter(kind for kind in descriptors() if "pipe" not in kind)
    case.engine = ProcessEngine(tmp_path / "run", case.sink)
    container, _ = await case.ready()
    family = [container.pid, parent(container.pid), parent(parent(container.pid))]
    await case.engine.close()
    for pid in family:
        with pytest.raises(ProcessLookupError):
            os.kill(pid or 0, 0)
    assert not (tmp_path / "run" / "c").exists()
    assert not Counter(kind for kind in descriptors() if "pipe" not in kind) - before


@pytest.mark.parametrize("killed", [[], [0], [1], [0, 1]], ids=["all-live", "template", "snapshot", "both"])
async def test_when_the_server_dies_everything_ends(tmp_path: Path, case: Case, killed: list[int]) -> None:
    """Whatever of template and snapshot had been killed before."""
    here = str(Path(__file__).parent)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, here, str(tmp_path / "run"), str(case.bundle)], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    family = [int(pid) for pid in (await asyncio.to_thread(server.stdout.readline)).split()]
    for which in killed:
        os.kill(family[which], signal.SIGKILL)
        await vanish(family[which])
    server.kill()
    server.wait()
    server.stdout.close()
    for pid in family:
        await vanish(pid)


SERVER = """
import asyncio, sys, uvloop
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from engine_cases import Recorder, Sink, a_start
from portico.engines.process import ProcessEngine


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def main():
    engine = ProcessEngine(Path(sys.argv[2]), Sink())
    recorder = Recorder()
    start = replace(a_start(Path(sys.argv[3]), "tell", module="snapped"), snapshot="it")
    container = engine.start(start, recorder)
    await recorder.until("ready")
    print(parent(parent(container.pid)), parent(container.pid), container.pid, flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""
