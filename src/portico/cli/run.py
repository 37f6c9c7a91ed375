"""`portico run`: an app for the time of one of its functions."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import click
import msgspec

from portico.cli import options
from portico.cli.arguments import Given, choose, parse
from portico.cli.progress import Progress
from portico.cli.reading import Reader, clean_environment, spec_of
from portico.cli.spawn import Attachment
from portico.cli.terminal import Terminal
from portico.client.connect import connect
from portico.client.settings import load_settings
from portico.client.stream import EventStream
from portico.client.upload import Uploader
from portico.model import errors
from portico.model.settings import Settings
from portico.wire import running
from portico.wire.control import Created, Ended, EphemeralRequest, LogLine, Warned
from portico.wire.reading import ReadRequest, Runnable

_ENTRY = (sys.executable, "-P", "-m", "portico.runtime.entry")
_END_TIMEOUT = 10.0  # seconds for the user's side to end after Ctrl-C


class _Run(click.Command):
    """What comes behind REF is not ours."""

    allow_interspersed_args = False


@click.command(short_help="Run a function, or a local entrypoint.", cls=_Run)
@options.reference
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@click.option("-q", "--quiet", is_flag=True, help="Show only what the local side prints.")
@click.option("-w", "--write-result", metavar="PATH", help="Write what is returned, a str or bytes, to this file.")
@options.environment
@options.timestamps
def run(
    ref: str,
    module: bool,
    name: str | None,
    words: tuple[str, ...],
    quiet: bool,
    write_result: str | None,
    environment: str | None,
    timestamps: bool,
) -> int:
    """Run REF (file.py, file.py::function, or -m pkg.mod) with an app that lives as long as it takes.

    Without ::function: the only local entrypoint or, if there is none, the only function. ARGS are its parameters as
    options (--my-option 3); REF --help shows them.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # they end it as Ctrl-C does
    request, targets = _split(ref, module, name)
    terminal = Terminal.standard()
    with Reader() as reader:
        reply = reader.read(request)
    spec = spec_of(reply, terminal)
    runnable = choose(reply.runnables, targets)
    given = parse(runnable, f"portico run {ref}", list(words))
    settings = load_settings()
    client = connect(environment)
    local = _Local(settings, client.environment, request, runnable, given, write_result)
    roam = not os.environ.get("PORTICO_LISTEN")
    with Attachment(settings, terminal, own=True, roam=roam, client=client) as server, local:
        server.begin()
        server.ready()
        uploader = Uploader(server.client)
        bundle = uploader.push(uploader.bundle(reply.sources), reply.sources)
        suffix = f"r{secrets.token_hex(3)}"  # its endpoints must not take the URLs of a `portico serve`
        wanted = EphemeralRequest(spec=spec, bundle=bundle, name=name, dev_suffix=suffix, rouse=False)
        with server.client.ephemeral(wanted) as events:
            _follow(events, local, server, terminal, quiet=quiet, timestamps=timestamps)
        return local.code()


def _split(ref: str, module: bool, name: str | None) -> tuple[ReadRequest, list[str]]:
    """What to read, and what to run of it, by the first of these names that there is.

    `file.py::function`, or `file.py::Class.method`; with `app.` in front for a file that has several.
    """
    place, _, target = ref.partition("::")
    words = target.split(".")
    owner = ".".join(words[:-2] or words[:-1])
    request = options.read_request(f"{place}::{owner}" if owner else place, module, name)
    return request, list(dict.fromkeys([target, ".".join(words[-2:]), words[-1]])) if target else []


def _follow(
    events: EventStream, local: _Local, server: Attachment, terminal: Terminal, *, quiet: bool, timestamps: bool
) -> None:
    """Show what comes, until the user's side is done and its app has ended."""
    with contextlib.closing(Progress(terminal)) as progress:
        for event in events:
            if isinstance(event, Created):
                local.go(event, partial(server.client.stop_app, event.app_id))
            elif isinstance(event, Ended):
                return
            elif isinstance(event, LogLine):
                if not quiet:
                    terminal.log(event, timestamps=timestamps)
            elif not quiet or isinstance(event, Warned):
                progress.show(event)


class _Local:
    """The process that runs the user's side, with our terminal. It starts on entry, beside all that the app needs."""

    def __init__(
        self,
        settings: Settings,
        environment: str,
        request: ReadRequest,
        runnable: Runnable,
        given: Given,
        write_result: str | None,
    ) -> None:
        self._environment = clean_environment() | settings.variables | {"PORTICO_ENVIRONMENT": environment}
        self._order = running.Order(
            request=request,
            name=runnable.name,
            entrypoint=runnable.entrypoint,
            words=given.words,
            options=given.options,
            write_result=write_result,
            go=-1,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1

    def __enter__(self) -> _Local:
        with _ends() as (far, self._pipe):
            order = running.encode(msgspec.structs.replace(self._order, go=far)).decode()
            self._process = subprocess.Popen([*_ENTRY, order], env=self._environment, pass_fds=[far])
        return self

    def __exit__(self, *exception: object) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        if self._pipe >= 0:
            os.close(self._pipe)  # it ends when it sees that no app will come
        else:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def go(self, created: Created, when_done: Callable[[], object]) -> None:
        """The app is up. `when_done` is called, from another thread, when the user's side has ended."""
        urls = {endpoint.function: endpoint.url for endpoint in created.endpoints}
        with contextlib.suppress(BrokenPipeError):  # it has failed before
            os.write(self._pipe, running.encode(running.Go(app_id=created.app_id, app_name=created.app, urls=urls)))
        os.close(self._pipe)
        self._pipe = -1
        threading.Thread(target=self._watch, args=(when_done,), daemon=True).start()

    def code(self) -> int:
        """Its exit code, once it has ended; one that a signal has ended counts as failed."""
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            raise errors.ConnectionError("The app has ended before its run was done.", hint="See the server's log.")
        return code if code >= 0 else 128 - code

    def _watch(self, when_done: Callable[[], object]) -> None:
        assert self._process is not None
        self._process.wait()
        with contextlib.suppress(errors.Error):
            when_done()


@contextlib.contextmanager
def _ends() -> Iterator[tuple[int, int]]:
    """A pipe whose reading end is closed here at the end."""
    far, near = os.pipe()
    try:
        yield far, near
    finally:
        os.close(far)
