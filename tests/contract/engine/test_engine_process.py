"""What only real processes can show: starts that go wrong, ends, and what becomes of everything around them."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from engine_cases import Gate, Sink, an_image, ask, descriptors, get, shake_hands, start, vanish, write_app

from portico.engines.process import ProcessEngine
from portico.model.errors import StartError
from portico.model.ports import Container, StartFailure
from portico.model.spec import Concurrency, Resources

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_app(tmp_path)


@pytest.fixture(scope="module")
def sink() -> Sink:
    return Sink()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> AsyncIterator[ProcessEngine]:
    """One for all tests that do not end it: a template takes half a second to get warm."""
    engine = ProcessEngine(tmp_path_factory.mktemp("run"), sink)
    yield engine
    await engine.close()


async def ready(engine: ProcessEngine, bundle: Path, function: str, **more: object) -> Container:
    container, recorder = start(engine, bundle, function, **more)
    await recorder.until("ready")
    return container


def a_program(folder: Path, text: str) -> Path:
    """An interpreter that is none."""
    path = folder / "bin" / "python"
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(0o755)
    return path


# -- starts that go wrong ---------------------------------------------------------------------------------------------
async def test_a_start_without_descriptors_fails_once_it_has_begun(engine: ProcessEngine, bundle: Path) -> None:
    """Whoever asked for the container has it in hand when its failure is told."""
    await ready(engine, bundle, "hello")
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        _, recorder = start(engine, bundle, "hello")
        assert recorder.names == []
        failure = await recorder.until("failed")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(failure, StartFailure)
    assert "no descriptor" in failure.cause


async def test_an_import_error_is_shown_with_the_users_frames_only(engine: ProcessEngine, bundle: Path) -> None:
    """The cause is the exception's line, the detail its traceback."""
    (bundle / "bad.py").write_text("def divide():\n    return 1 / 0\n\ndivide()\n")
    _, recorder = start(engine, bundle, "any", module="bad")
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert failure.cause == "ZeroDivisionError: division by zero"
    assert f'File "{bundle}/bad.py", line 4' in failure.detail
    assert "portico" not in failure.detail


@pytest.mark.parametrize(
    ("module", "cause"),
    [
        ("import sys; sys.exit(7)", "SystemExit: 7"),
        ("import os; os._exit(3)", "The container ended while it started: exit code 3."),
        ("import os; os.abort()", "The container ended while it started: signal 6 (SIGABRT)."),
    ],
)
async def test_a_module_that_ends_its_process_is_a_failed_start(
    engine: ProcessEngine, bundle: Path, module: str, cause: str
) -> None:
    """Leaving during the import is reported like an exception."""
    (bundle / "bad.py").write_text(f"{module}\n")
    _, recorder = start(engine, bundle, "any", module="bad")
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert failure.cause == cause
    await recorder.until("exited")


async def test_a_long_traceback_fits_the_packet(engine: ProcessEngine, bundle: Path) -> None:
    """An error of any length is reported; its end is kept."""
    (bundle / "bad.py").write_text("raise RuntimeError('\\x01' * 300_000 + ' the end')\n")
    _, recorder = start(engine, bundle, "any", module="bad")
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert failure.cause.startswith("RuntimeError: ")
    assert failure.detail.endswith("the end\n")


async def test_a_start_that_takes_too_long_fails(engine: ProcessEngine, bundle: Path) -> None:
    """A module that never finishes its import is killed after `startup_timeout`."""
    (bundle / "bad.py").write_text("while True:\n    pass\n")
    _, recorder = start(engine, bundle, "any", module="bad", startup_timeout=0.05)
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert failure.cause == "It did not become ready within 0.05 s."
    assert await recorder.until("exited") == "signal 9 (SIGKILL)"


async def test_a_program_is_served_where_it_listens_and_ends_when_it_is_told_to(
    engine: ProcessEngine, bundle: Path, sink: Sink
) -> None:
    """It is told to by SIGTERM, and has time to end in good order."""
    container, recorder = start(engine, bundle, "web_server")
    await recorder.until("ready")
    host, _, port = container.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert b" 200 " in await reader.readline()
    writer.close()
    container.cancel("an input")
    assert await recorder.until("finished") == "an input"
    container.stop(grace=10)
    assert await recorder.until("exited") == "exit code 0"
    assert await sink.line(container, "terminated")


async def test_a_program_that_does_not_listen_is_a_failed_start(engine: ProcessEngine, bundle: Path) -> None:
    """After the seconds that its decorator says."""
    _, recorder = start(engine, bundle, "web_server_that_is_deaf")
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert failure.cause.startswith("TimeoutError: Waited too long for port 8000 to start accepting connections.")


async def test_a_working_folder_that_is_not_there_is_named(engine: ProcessEngine, bundle: Path) -> None:
    """An image's workdir that cannot be entered fails the start, not something later."""
    _, recorder = start(engine, bundle, "hello", image=an_image("4" * 64, workdir="/nowhere/at/all"))
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert failure.cause.startswith("The working folder /nowhere/at/all cannot be entered")


async def test_an_interpreter_that_is_missing_fails_the_start(engine: ProcessEngine, bundle: Path) -> None:
    """An image without its Python is a failed start that says so."""
    _, recorder = start(engine, bundle, "hello", image=an_image("1" * 64, python=Path("/nowhere/python")))
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert "could not be started" in failure.cause
    await recorder.until("exited")


async def test_a_template_that_dies_while_it_starts_fails_the_waiting_starts(
    engine: ProcessEngine, bundle: Path, tmp_path: Path
) -> None:
    """The last words of an image's Python are the cause, and all of them the detail."""
    program = a_program(tmp_path, "#!/bin/sh\necho first >&2\necho no such module >&2\nexit 4\n")
    recorders = [start(engine, bundle, "hello", image=an_image("2" * 64, python=program))[1] for _ in range(2)]
    for recorder in recorders:
        failure = await recorder.until("failed")
        assert isinstance(failure, StartFailure)
        assert failure.cause.endswith("no such module")
        assert failure.detail == "first\nno such module"
        await recorder.until("exited")


async def test_an_image_that_cannot_be_warmed_says_why(engine: ProcessEngine, tmp_path: Path) -> None:
    """warm() raises StartError with the last words of the image's Python."""
    program = a_program(tmp_path, "#!/bin/sh\necho broken >&2\nexit 1\n")
    with pytest.raises(StartError, match="broken"):
        await engine.warm(an_image("3" * 64, python=program))


async def test_a_lifespan_that_fails_to_start_fails_the_container(engine: ProcessEngine, bundle: Path) -> None:
    """What an ASGI app raises in its startup is the cause."""
    _, recorder = start(engine, bundle, "no_start")
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert failure.cause == "RuntimeError: no database"


# -- ends -------------------------------------------------------------------------------------------------------------
async def test_a_lifespan_runs_around_all_requests(engine: ProcessEngine, bundle: Path, sink: Sink) -> None:
    """An ASGI app's shutdown has run before its container is gone."""
    container, recorder = start(engine, bundle, "lifespan")
    await recorder.until("ready")
    container.stop(20.0)
    await recorder.until("exited")
    await sink.line(container, "shutdown")
    assert sink.lines(container) == ["startup", "shutdown"]


async def test_sigterm_is_a_graceful_stop(engine: ProcessEngine, bundle: Path, tmp_path: Path) -> None:
    """A container that gets SIGTERM finishes its input."""
    container, recorder = start(engine, bundle, "slow")
    await recorder.until("ready")
    gate = Gate(tmp_path)
    request = asyncio.create_task(get(container.address, f"/?gate={gate.path}"))
    await gate.reached()
    os.kill(container.pid, signal.SIGTERM)
    gate.open("finished")
    assert (await request).body == '"finished"'
    assert await recorder.until("exited") == "exit code 0"


async def test_a_crash_is_reported_with_its_signal(engine: ProcessEngine, bundle: Path, sink: Sink) -> None:
    """A segmentation fault ends the container, and leaves a trace in the log."""
    container, recorder = start(engine, bundle, "suicide")
    await recorder.until("ready")
    await ask(container.address)
    assert await recorder.until("exited") == "signal 11 (SIGSEGV)"
    await sink.line(container, "Fatal Python error: Segmentation fault")


async def test_kill_ends_the_children_too(engine: ProcessEngine, bundle: Path) -> None:
    """Whatever a container has started ends with it, also what it has orphaned."""
    container = await ready(engine, bundle, "children")
    family = [int(pid) for pid in (await get(container.address)).body.strip("[]").split(",")]
    container.kill()
    for pid in family:
        await vanish(pid)


async def test_a_loop_starts_processes(engine: ProcessEngine, bundle: Path) -> None:
    """The loop's own descriptors, some of which all loops of a process have in common, live through the fork."""
    container = await ready(engine, bundle, "child_of_the_loop")
    assert json.loads((await get(container.address)).body) == "from a child\n"


async def test_a_container_whose_loop_is_blocked_can_be_killed(engine: ProcessEngine, bundle: Path, sink: Sink) -> None:
    """kill() needs nothing from the user's code."""
    container, recorder = start(engine, bundle, "blocked")
    await recorder.until("ready")
    await ask(container.address)
    await sink.line(container, "blocking")
    container.kill()
    assert await recorder.until("exited") == "signal 9 (SIGKILL)"


# -- templates --------------------------------------------------------------------------------------------------------
async def test_a_killed_template_leaves_its_containers_running(engine: ProcessEngine, bundle: Path) -> None:
    """Containers outlive their template, their ends are still reported, and the next start makes a new template."""
    container, recorder = start(engine, bundle, "surroundings")
    await recorder.until("ready")
    template = template_of(container)
    os.kill(template, signal.SIGKILL)
    await vanish(template)
    second = await ready(engine, bundle, "surroundings")
    assert template_of(second) != template
    assert (await get(container.address)).status == 200
    container.stop(20.0)
    assert await recorder.until("exited") == "exit code 0"


async def test_what_a_container_without_template_leaves_behind_ends_with_it(
    engine: ProcessEngine, bundle: Path
) -> None:
    """Also what it has put into a session of its own; and nothing of it stays a corpse."""
    container, recorder = start(engine, bundle, "sessions")
    await recorder.until("ready")
    template = template_of(container)
    os.kill(template, signal.SIGKILL)
    await vanish(template)
    family = [int(pid) for pid in (await get(container.address)).body.strip("[]").split(",")]
    os.kill(container.pid, signal.SIGKILL)
    assert await recorder.until("exited") == "signal 9 (SIGKILL)"
    for pid in family:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_template_that_is_killed_with_a_request_under_way_fails_that_start(
    engine: ProcessEngine, bundle: Path
) -> None:
    """A start whose process never came is reported; it does not hang."""
    container = await ready(engine, bundle, "hello")
    template = template_of(container)
    os.kill(template, signal.SIGSTOP)
    _, recorder = start(engine, bundle, "hello")
    os.kill(template, signal.SIGKILL)
    failure = await recorder.until("failed")
    assert isinstance(failure, StartFailure)
    assert failure.cause == "The image's template process ended while the container started."
    await recorder.until("exited")
    assert (await get(container.address)).status == 200


async def test_containers_that_have_lost_their_template_end_with_the_engine(tmp_path: Path, bundle: Path) -> None:
    """close() ends them like all others."""
    engine = ProcessEngine(tmp_path, Sink())
    container, recorder = start(engine, bundle, "hello")
    await recorder.until("ready")
    os.kill(template_of(container), signal.SIGKILL)
    await engine.close()
    assert recorder.names == ["ready", "exited"]
    with pytest.raises(ProcessLookupError):
        os.kill(container.pid, 0)


async def test_an_unused_template_ends(tmp_path: Path, bundle: Path) -> None:
    """A template without containers ends after a while; the next start makes a new one."""
    engine = ProcessEngine(tmp_path, Sink(), idle_template_seconds=0.01)
    container, recorder = start(engine, bundle, "hello")
    await recorder.until("ready")
    template = template_of(container)
    container.kill()
    await vanish(template)
    assert (await get((await ready(engine, bundle, "hello")).address)).status == 200
    await engine.close()


async def test_a_closed_engine_leaves_nothing_open(tmp_path: Path, bundle: Path) -> None:
    """After close() no process, no socket and no descriptor is left."""
    await asyncio.to_thread(lambda: None)  # the executor's own descriptors are there from now on
    before = Counter(kind for kind in descriptors() if "pipe" not in kind)
    engine = ProcessEngine(tmp_path, Sink())
    containers = [await ready(engine, bundle, "hello") for _ in range(2)]
    template = template_of(containers[0])
    await engine.close()
    for pid in (template, *(container.pid for container in containers)):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not (tmp_path / "c").exists()
    # only what is more than before counts: what other tests have left behind may be closed at any moment
    assert not Counter(kind for kind in descriptors() if "pipe" not in kind) - before


@pytest.mark.parametrize("template_too", [False, True], ids=["template-lives", "template-killed"])
async def test_when_the_server_dies_everything_ends(tmp_path: Path, bundle: Path, template_too: bool) -> None:
    """SIGKILL to the server ends templates and containers, even one that is stuck in C code, template or not."""
    (bundle / "stuck.py").write_text(STUCK)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(Path(__file__).parent), str(tmp_path), str(bundle)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    template, container = map(int, (await asyncio.to_thread(server.stdout.readline)).split())
    if template_too:
        os.kill(template, signal.SIGKILL)
        await vanish(template)
    server.kill()
    server.wait()
    server.stdout.close()
    await vanish(template)
    await vanish(container)


# The endpoint's thread never gives the interpreter's lock away again.
STUCK = """
import re, modal
app = modal.App("stuck")

@app.function()
@modal.fastapi_endpoint()
async def forever():
    print("stuck", flush=True)
    re.match("(a+)+$", "a" * 64 + "b")
"""

SERVER = """
import asyncio, sys, uvloop
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from engine_cases import Sink, ask, start
from portico.engines.process import ProcessEngine

async def main():
    sink = Sink()
    engine = ProcessEngine(Path(sys.argv[2]), sink)
    container, recorder = start(engine, Path(sys.argv[3]), "forever", module="stuck")
    await recorder.until("ready")
    await ask(container.address)
    await sink.line(container, "stuck")
    template = Path(f"/proc/{container.pid}/stat").read_text().rpartition(")")[2].split()[1]
    print(template, container.pid, flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


def template_of(container: Container) -> int:
    """The process id of a container's parent."""
    return int(Path(f"/proc/{container.pid}/stat").read_text().rpartition(")")[2].split()[1])


# -- what a container gets --------------------------------------------------------------------------------------------
async def test_a_container_has_a_clean_environment(
    engine: ProcessEngine, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has what Modal's containers have, the image's and the user's variables, and nothing of the server's."""
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    image = an_image("e" * 64, env={"LEVEL": "image", "IMAGE": "yes"})
    container = await ready(engine, bundle, "surroundings", image=image, env={"LEVEL": "function"})
    seen = json.loads((await get(container.address)).body)
    environment = seen["env"]
    assert environment["MODAL_TASK_ID"] == environment["PORTICO_TASK_ID"] == container.id
    assert environment["MODAL_IS_REMOTE"] == "1"
    assert environment["MODAL_ENVIRONMENT"] == "main"
    assert environment["MODAL_IMAGE_ID"] == f"im-{'e' * 64}"
    assert environment["LEVEL"] == "function"
    assert environment["IMAGE"] == "yes"
    assert "SECRET_OF_THE_SERVER" not in environment
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert seen["cwd"] == str(bundle)


async def test_a_start_document_may_be_large(engine: ProcessEngine, bundle: Path) -> None:
    """Megabytes of environment reach the container."""
    container = await ready(engine, bundle, "big", env={"BIG": "x" * 2_000_000})
    assert (await get(container.address)).body == "2000000"


async def test_memory_has_its_limit(engine: ProcessEngine, bundle: Path, sink: Sink) -> None:
    """An allocation beyond the limit fails in the user's code, and only there."""
    container = await ready(engine, bundle, "greedy", resources=Resources(memory_limit=512))
    assert (await get(container.address)).status == 500
    await sink.line(container, "MemoryError")
    assert (await get(container.address, "/nothing")).status == 404


async def test_what_is_printed_arrives_line_by_line(engine: ProcessEngine, bundle: Path, sink: Sink) -> None:
    """A printed line is in the log while the container lives."""
    container = await ready(engine, bundle, "chatty")
    await get(container.address)
    assert await sink.line(container, "a line") == "a line"


# -- inputs -----------------------------------------------------------------------------------------------------------
async def test_an_exception_is_a_plain_500_with_its_traceback_in_the_log(
    engine: ProcessEngine, bundle: Path, sink: Sink
) -> None:
    """The log names the request, then shows the user's frames; the client sees no more than that it failed."""
    container = await ready(engine, bundle, "broken")
    answer = await get(container.address, input_id="in-broken")
    assert (answer.status, answer.body) == (500, "Internal Server Error")
    await sink.line(container, "ZeroDivisionError")
    lines = sink.lines(container)
    assert lines[0] == "Request in-broken: GET / raised ZeroDivisionError: division by zero"
    assert lines[1] == "Traceback (most recent call last):"
    assert "cases.py" in lines[2]


async def test_a_plain_answer_is_not_held(engine: ProcessEngine, bundle: Path) -> None:
    """Neither an async nor a sync endpoint costs a message of its own."""
    for function in ("hello", "chatty"):
        container = await ready(engine, bundle, function)
        assert "x-portico-held" not in (await get(container.address)).headers


async def test_a_streaming_answer_is_held_until_it_has_ended(
    engine: ProcessEngine, bundle: Path, tmp_path: Path
) -> None:
    """Its head says that `finished` will come."""
    container, recorder = start(engine, bundle, "stream")
    await recorder.until("ready")
    gate = Gate(tmp_path)
    request = asyncio.create_task(get(container.address, f"/?gate={gate.path}", input_id="in-stream"))
    await gate.reached()
    assert "finished" not in recorder.names
    gate.open("two")
    assert (await request).headers["x-portico-held"] == "1"
    assert await recorder.until("finished") == "in-stream"


async def test_background_tasks_belong_to_their_input(engine: ProcessEngine, bundle: Path, tmp_path: Path) -> None:
    """The client has its answer at once; the input ends when its background task has."""
    container, recorder = start(engine, bundle, "later")
    await recorder.until("ready")
    gate = Gate(tmp_path)
    answer = await get(container.address, f"/?gate={gate.path}", input_id="in-later")
    assert (answer.body, answer.headers["x-portico-held"]) == ('"now"', "1")
    await gate.reached()
    assert "finished" not in recorder.names
    gate.open()
    assert await recorder.until("finished") == "in-later"


async def test_a_cancelled_async_input_is_interrupted(engine: ProcessEngine, bundle: Path, tmp_path: Path) -> None:
    """cancel() raises CancelledError in the user's coroutine, and `finished` follows."""
    container, recorder = start(engine, bundle, "patient")
    await recorder.until("ready")
    log = tmp_path / "log"
    os.mkfifo(log)
    await ask(container.address, f"/?log={log}", input_id="in-patient")
    with await asyncio.to_thread(log.open) as lines:
        assert await asyncio.to_thread(lines.readline) == "begun\n"
        container.cancel("in-patient")
        assert await asyncio.to_thread(lines.readline) == "cancelled\n"
    assert await recorder.until("finished") == "in-patient"


async def test_a_cancelled_sync_input_ends_with_its_thread(engine: ProcessEngine, bundle: Path, tmp_path: Path) -> None:
    """Nothing can end a thread: `finished` comes when it has returned, and not before."""
    container, recorder = start(engine, bundle, "slow")
    await recorder.until("ready")
    gate = Gate(tmp_path)
    await ask(container.address, f"/?gate={gate.path}", input_id="in-slow")
    await gate.reached()
    container.cancel("in-slow")
    container.cancel("in-other")  # answered at once, and after the message before it was obeyed
    assert await recorder.until("finished") == "in-other"
    gate.open()
    while ("finished", "in-slow") not in recorder.seen:
        await recorder.changed()


async def test_sync_endpoints_run_as_many_at_a_time_as_they_may(engine: ProcessEngine, bundle: Path) -> None:
    """There is a thread for each of `max_inputs`, also beyond what frameworks have by themselves."""
    container = await ready(engine, bundle, "crowd", concurrency=Concurrency(max_inputs=50))
    answers = await asyncio.gather(*(get(container.address) for _ in range(50)))
    assert {answer.body for answer in answers} == {'"all here"'}


async def test_a_websocket_is_held_until_its_app_returns(engine: ProcessEngine, bundle: Path, sink: Sink) -> None:
    """The handshake's answer is marked; `finished` comes after the connection's end."""
    container, recorder = start(engine, bundle, "socket")
    await recorder.until("ready")
    answer, _, writer = await shake_hands(container.address, "in-socket")
    assert (answer.status, answer.headers["x-portico-held"]) == (101, "1")
    assert "finished" not in recorder.names
    writer.close()
    assert await recorder.until("finished") == "in-socket"
    await sink.line(container, "closed with")


async def test_a_container_goes_on_with_the_connection_it_is_handed(
    engine: ProcessEngine, bundle: Path, sink: Sink
) -> None:
    """It answers there, hears of the client's end there, and `finished` follows."""
    container, recorder = start(engine, bundle, "socket")
    await recorder.until("ready")
    answer, _, writer = await shake_hands(container.address, "in-socket", "over")
    assert answer.status == 101
    client, connection = socket.socketpair()
    container.hand_over("in-socket", connection.detach(), b"HTTP/1.1 101 Welcome\r\n\r\n")
    writer.write_eof()
    client.setblocking(False)
    with client:
        assert await asyncio.get_running_loop().sock_recv(client, 100) == b"HTTP/1.1 101 Welcome\r\n\r\n"
        assert "finished" not in recorder.names
    assert await recorder.until("finished") == "in-socket"
    await sink.line(container, "closed with")
    writer.close()


async def test_a_websocket_is_closed_before_the_grace_is_over(engine: ProcessEngine, bundle: Path) -> None:
    """A container that stops says goodbye (1012, service restart) to who is still connected, and exits by itself."""
    container, recorder = start(engine, bundle, "socket")
    await recorder.until("ready")
    _, reader, writer = await shake_hands(container.address, "in-socket")
    container.stop(2.0)
    frame = await reader.readexactly(4)
    assert (frame[0], int.from_bytes(frame[2:4])) == (0x88, 1012)
    writer.close()
    assert await recorder.until("exited") == "exit code 0"
