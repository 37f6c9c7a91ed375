"""What the engine's contract tests share: an app, images, a recorder of events, a sink, and a small HTTP client."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import secrets
import sys
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import portico
from portico.model.ports import BuiltImage, Container, ContainerStart, Engine, StartFailure
from portico.model.spec import EntrySpec, FunctionSpec, WebKind, WebSpec

PATIENCE = 30.0  # seconds; only a test that fails waits this long
_SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
_SOURCE = Path(portico.__file__).parent.parent
_input_ids = (f"in-{number}" for number in itertools.count(1))

APP = '''
import asyncio
import os
import signal
import subprocess
import threading

import fastapi
import fastapi.responses
import modal

app = modal.App("cases")


@app.function()
@modal.fastapi_endpoint()
async def hello():
    return "hello"


@app.function()
@modal.fastapi_endpoint()
def slow(gate: str):
    with open(gate) as file:
        return file.read()


@app.function()
@modal.fastapi_endpoint()
async def patient(log: str):
    with open(log, "w") as file:  # a FIFO: the test reads what happens here
        print("begun", file=file, flush=True)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("cancelled", file=file, flush=True)
            raise


@app.function()
@modal.fastapi_endpoint()
async def blocked():
    print("blocking", flush=True)
    while True:
        pass


@app.function()
@modal.fastapi_endpoint()
async def stream(gate: str):
    async def parts():
        yield "one"
        with open(gate) as file:
            yield file.read()

    return fastapi.responses.StreamingResponse(parts())


@app.function()
@modal.fastapi_endpoint()
async def later(gate: str, tasks: fastapi.BackgroundTasks):
    tasks.add_task(lambda: open(gate).read())
    return "now"


@app.function()
@modal.fastapi_endpoint()
async def children():
    child = subprocess.Popen(["sleep", "1000"])
    orphan = subprocess.run(["sh", "-c", "sleep 1000 >&- 2>&- & echo $!"], capture_output=True, text=True)
    return [os.getpid(), child.pid, int(orphan.stdout)]


@app.function()
@modal.fastapi_endpoint()
async def child_of_the_loop():
    process = await asyncio.create_subprocess_exec("echo", "from a child", stdout=subprocess.PIPE)
    return (await process.communicate())[0].decode()


@app.function()
@modal.fastapi_endpoint()
async def sessions():
    child = subprocess.Popen(["sh", "-c", "setsid sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True,
                             start_new_session=True)
    return [child.pid, int(child.stdout.readline())]


@app.function()
@modal.fastapi_endpoint()
async def surroundings():
    return {"env": dict(os.environ), "cwd": os.getcwd(), "fds": os.listdir("/proc/self/fd"), "pid": os.getpid()}


@app.function()
@modal.fastapi_endpoint()
async def big():
    return len(os.environ["BIG"])


@app.function()
@modal.fastapi_endpoint()
async def greedy():
    return len(bytearray(2**30))


@app.function()
@modal.fastapi_endpoint()
def broken():
    return 1 / 0


@app.function()
@modal.fastapi_endpoint()
async def chatty():
    print("a line")
    return "said"


crowd_of = threading.Barrier(50)


@app.function()
@modal.concurrent(max_inputs=50)
@modal.fastapi_endpoint()
def crowd():
    crowd_of.wait(20)
    return "all here"


@app.function()
@modal.fastapi_endpoint()
async def suicide():
    os.kill(os.getpid(), signal.SIGSEGV)


@app.function()
@modal.asgi_app()
def lifespan():
    async def application(scope, receive, send):
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                print(step)
                await send({"type": f"lifespan.{step}.complete"})
    return application


@app.function()
@modal.asgi_app()
def socket():
    async def application(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            print("closed with", (await receive())["code"])
    return application


@app.function()
@modal.asgi_app()
def no_start():
    async def application(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise RuntimeError("no database")
    return application


@app.function()
@modal.web_server(8000)
def web_server():
    import subprocess
    import sys
    subprocess.Popen([sys.executable, "-c", PROGRAM])


@app.function()
@modal.web_server(8000, startup_timeout=0.05)
def web_server_that_is_deaf():
    pass


PROGRAM = """
import http.server, signal
server = http.server.ThreadingHTTPServer(("", 8000), http.server.SimpleHTTPRequestHandler)
def end(*_):
    print("terminated", flush=True)
    raise SystemExit
signal.signal(signal.SIGTERM, end)
server.serve_forever()
"""
'''


class Recorder:
    """`ContainerEvents` that can be waited for. `seen` has all, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []
        self._changed = asyncio.Event()

    def ready(self, container: Container) -> None:
        self._add("ready", None)

    def failed(self, container: Container, failure: StartFailure) -> None:
        self._add("failed", failure)

    def finished(self, container: Container, input_id: str) -> None:
        self._add("finished", input_id)

    def exited(self, container: Container, status: str) -> None:
        self._add("exited", status)

    async def until(self, name: str) -> object:
        """The value of the first event of this name, when it has come."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self._changed.clear()
                for seen, value in self.seen:
                    if seen == name:
                        return value
                assert "exited" not in self.names, self.seen
                await self._changed.wait()

    async def changed(self) -> None:
        """Returns at the next event."""
        async with asyncio.timeout(PATIENCE):
            self._changed.clear()
            await self._changed.wait()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.seen]

    def _add(self, name: str, value: object) -> None:
        self.seen.append((name, value))
        self._changed.set()


class Sink:
    """Keeps what containers print, by container."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}
        self._news = threading.Condition()

    def attach(self, start: ContainerStart, stdout: int, stderr: int) -> None:
        self._lines[start.container_id] = []
        for descriptor in (stdout, stderr):
            threading.Thread(target=self._read, args=(start.container_id, descriptor), daemon=True).start()

    async def line(self, container: Container, prefix: str) -> str:
        """The first line that begins so, when it has come."""
        return await asyncio.to_thread(self._wait, container.id, prefix)

    async def said(self, container_id: str, pattern: str) -> None:
        """Returns when a container has printed a line in which this pattern is found."""

        def found() -> bool:
            return any(re.search(pattern, line) for line in self._lines[container_id])

        def wait() -> None:
            with self._news:
                assert self._news.wait_for(found, PATIENCE), self._lines

        await asyncio.to_thread(wait)

    def lines(self, container: Container) -> list[str]:
        return list(self._lines[container.id])

    def _read(self, container_id: str, descriptor: int) -> None:
        with open(descriptor) as pipe:
            for line in pipe:
                with self._news:
                    self._lines[container_id].append(line.rstrip("\n"))
                    self._news.notify_all()

    def _wait(self, container_id: str, prefix: str) -> str:
        def found() -> str | None:
            return next((line for line in self._lines[container_id] if line.startswith(prefix)), None)

        with self._news:
            line = self._news.wait_for(found, PATIENCE)
        assert line is not None, self._lines
        return line


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str


async def get(address: str, target: str = "/", input_id: str | None = None) -> Answer:
    """One request, as the ingress would send it, and the whole answer."""
    reader, writer = await ask(address, target, input_id)
    async with asyncio.timeout(PATIENCE):
        answer = await head(reader)
        body = (await reader.read()).decode()
    writer.close()
    return Answer(answer.status, answer.headers, body)


async def ask(
    address: str, target: str = "/", input_id: str | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the request; the answer is still to be read."""
    reader, writer = await asyncio.open_unix_connection(address)
    writer.write(
        f"GET {target} HTTP/1.1\r\nx-portico-input: {input_id or next(_input_ids)} 203.0.113.9 4711 https\r\n"
        "host: cases\r\nconnection: close\r\n\r\n".encode()
    )
    return reader, writer


async def shake_hands(
    address: str, input_id: str, *more: str
) -> tuple[Answer, asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a WebSocket. more: words at the end of the input's header."""
    reader, writer = await asyncio.open_unix_connection(address)
    writer.write(
        f"GET / HTTP/1.1\r\nx-portico-input: {' '.join([input_id, '203.0.113.9 4711 https', *more])}\r\nhost: cases\r\n"
        "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return await head(reader), reader, writer


async def head(reader: asyncio.StreamReader) -> Answer:
    """The head of an answer."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    return Answer(int(first.split(" ")[1]), headers, "")


def write_app(folder: Path) -> Path:
    """The folder of a bundle with the app."""
    bundle = folder / "bundle"
    bundle.mkdir()
    (bundle / "cases.py").write_text(APP)
    return bundle


def an_image(key: str = "0" * 64, python: Path = Path(sys.executable), **more: object) -> BuiltImage:
    return BuiltImage(key=key, python=python, runtime_path=(_SOURCE, _SITE_PACKAGES), **more)  # type: ignore[arg-type]


def a_start(
    bundle: Path, function: str, *, module: str = "cases", image: BuiltImage | None = None, **more: object
) -> ContainerStart:
    """How to start a container of one of the app's functions; the rest goes into its FunctionSpec."""
    kind = WebKind.ASGI_APP if function in ("lifespan", "no_start", "socket") else WebKind.FASTAPI_ENDPOINT
    web = WebSpec(kind=kind)
    if function.startswith("web_server"):
        web = WebSpec(kind=WebKind.WEB_SERVER, port=8000, startup_timeout=0.05 if "deaf" in function else 10.0)
    return ContainerStart(
        container_id=f"ct-{secrets.token_hex(8)}",
        app_id="ap-cases",
        app_name="cases",
        version=3,
        ephemeral=False,
        environment="main",
        entry=EntrySpec(module=module, path=f"{module}.py"),
        function=FunctionSpec(name=function, module=module, qualname=function, web=web, **more),  # type: ignore[arg-type]
        image=image or an_image(),
        bundle_dir=bundle,
        urls={"hello": "http://acme--cases-hello.localhost"},
    )


def start(engine: Engine, bundle: Path, function: str, **more: object) -> tuple[Container, Recorder]:
    """Start a container; the events are recorded."""
    recorder = Recorder()
    return engine.start(a_start(bundle, function, **more), recorder), recorder


class Gate:
    """A FIFO that user code opens for reading, and so waits until the test opens it for writing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"gate-{secrets.token_hex(4)}"
        os.mkfifo(self.path)

    async def reached(self) -> Gate:
        """Returns when somebody waits at the gate."""
        self._file = await asyncio.to_thread(open, self.path, "w")
        return self

    def open(self, text: str = "") -> None:
        """Let it through, with this text."""
        with self._file as file:
            file.write(text)


async def vanish(pid: int) -> None:
    """Returns when no process has this id, or only a corpse that nobody has buried."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def descriptors() -> Iterator[str]:
    """What this process has open, but for what comes and goes by itself."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue
