"""The life of one container, from the fork to the exit."""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import functools
import gc
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from portico.client import loops
from portico.model.errors import Error, InvalidError
from portico.model.sizes import parse_size
from portico.model.spec import WebSpec
from portico.runtime import confine, isolate, limits, loader, plain, program, serve, snapshot, threads
from portico.runtime.classes import Service
from portico.runtime.forkserver import Descriptors, ForkServer
from portico.runtime.lifeline import Lifeline
from portico.runtime.snapshot import Prepared
from portico.sdk import context
from portico.wire import container as wire
from portico.wire.websocket import LIMIT_VARIABLE, MAX_MESSAGE

_START_FAILED = 1  # exit status
_DAWDLE = 0.1  # seconds that the server's thread may be late with what is due


def main(descriptors: Descriptors, gate: confine.Gate | None, programs: list[str]) -> NoReturn:
    """Run as a fork of the template; never returns to its code. Without a gate it sees the machine as it is.

    programs: the folders that the interpreter and its modules are in.
    """

    def live() -> int:
        isolate.default_signals()
        launch, lifeline = _detach(descriptors, gate)
        isolate.write_line_by_line()
        isolate.replace_environment(launch.env)
        faulthandler.enable()
        view = msgspec.structs.replace(launch.view, shown=(launch.bundle_dir, *launch.view.shown, *programs))
        temporary = _confine(launch, view, lifeline, gate)
        if temporary is None:
            return _START_FAILED
        os.environ.setdefault("TMPDIR", temporary)
        tempfile.tempdir = None  # the template may have looked for one already
        if launch.snapshot:
            return _hold(launch, lifeline, isolated=gate is not None, own=(descriptors.tether,))
        return _live(launch, lifeline)

    _run(live)


def resume(descriptors: Descriptors, gate: confine.Gate | None, prepared: Prepared) -> NoReturn:
    """Run as a fork of a snapshot, where it has stopped; never returns to its code."""

    def live() -> int:
        launch, lifeline = _detach(descriptors, gate)
        folder = os.getcwd()
        temporary = _confine(launch, launch.view, lifeline, gate)
        if temporary is None:
            return _START_FAILED
        os.chdir(folder)
        prepared.make_own(launch, temporary, isolated=gate is not None)
        return _live(launch, lifeline, prepared)

    _run(live)


def _run(live: Callable[[], int]) -> NoReturn:
    status = _START_FAILED
    try:
        status = live()
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)


def _detach(descriptors: Descriptors, gate: confine.Gate | None) -> tuple[wire.Launch, Lifeline]:
    """Become a process of its own; what it should run, and whom it tells."""
    if gate is not None:
        gate.enter()
    os.setsid()
    isolate.become_reaper()  # whatever daemons the user's code makes, they stay ours, and go with us
    isolate.tether(descriptors.tether)
    isolate.redirect(descriptors.stdout, descriptors.stderr)
    return wire.launch(_read_all(descriptors.launch)), Lifeline(descriptors.lifeline)


def _confine(launch: wire.Launch, view: wire.View, lifeline: Lifeline, gate: confine.Gate | None) -> str | None:
    """Give it its limits, a folder of its own and a view of its own; where its temporary files go, if that works."""
    try:
        limits.join(launch.groups)
        limits.limit_files()
        if launch.data_limit is not None:
            limits.limit_data(launch.data_limit)
        temporary = isolate.make_folders(view.folder)
        if gate is not None:
            if view.temporary:
                isolate.copy_files(view.temporary, temporary)
            confine.confine(view, gate, launch.bundle_dir)
            limits.limit_processes()
    except OSError as error:
        gone = isinstance(error, ConnectionError)  # the fork server, at the other end of the gate
        lifeline.fail(f"The container could not be isolated: {error}", traceback.format_exc(), killed=gone)
        return None
    return temporary


def _hold(launch: wire.Launch, lifeline: Lifeline, *, isolated: bool, own: tuple[int, ...]) -> int:
    """Load the user's code, stop there, and be forked until the server is gone; the exit status."""
    try:
        prepared = snapshot.prepare(launch, _load(launch))
        if (obstacle := snapshot.obstacle()) is not None:
            sys.stderr.write(f"enable_memory_snapshot= has no effect on {launch.function.name}: {obstacle}\n")
            lifeline.send(wire.Unfit())
            return 0
    except BaseException as error:
        _flush()
        lifeline.fail(*_explain(error))
        return _START_FAILED
    _flush()  # or each fork would say it
    isolate.give_way()
    gc.collect()
    gc.freeze()
    begin = functools.partial(resume, prepared=prepared)
    ForkServer(lifeline.channel, begin, isolated=isolated, own=own).run(wire.Ready())
    os._exit(0)  # what the user's code wants to do at its exit, its containers have done


def _live(launch: wire.Launch, lifeline: Lifeline, prepared: Prepared | None = None) -> int:
    """Load the user's code, serve it, and end; the exit status."""
    web_spec = launch.function.program
    try:
        if web_spec is not None and launch.parameters is not None:
            return _keep(launch, lifeline, web_spec)
        service = _service(launch, prepared)
        service.loop.run_until_complete(_serve(launch, lifeline, service))
        service.end(_explain)
    except BaseException as error:  # sys.exit() in the user's module is a failed start like any other
        _flush()
        taken = error.port if isinstance(error, program.PortTakenError) else 0
        lifeline.fail(*_explain(error), taken=taken)
        return _START_FAILED
    return 0


def _keep(launch: wire.Launch, lifeline: Lifeline, web_spec: WebSpec) -> int:
    """Have the user's code start its program, and keep that; the exit status. Returns twice, once in each process."""
    services: list[Service] = []

    def load() -> Callable[[], Any]:
        services.append(_service(launch))
        return services[0].start

    status = program.run(web_spec, lifeline, load)
    for service in services:  # in the process that has loaded it
        service.end(_explain)
    return status


def _service(launch: wire.Launch, prepared: Prepared | None = None) -> Service:
    prepared = prepared or Prepared(launch, _load(launch))
    loop = loops.new_loop()
    asyncio.set_event_loop(loop)
    return Service(
        launch.function,
        prepared.raw,
        launch.parameters,
        app_name=launch.app_name,
        loop=loop,
        endpoint=prepared.endpoint,
        instance=prepared.instance,
    )


def _load(launch: wire.Launch) -> Callable[..., Any]:
    """The user's function, or class."""
    _enter(launch)
    module = loader.import_entry(launch.entry, Path(launch.bundle_dir))
    return loader.find_function(module, launch.function, launch.entry.app)


def _enter(launch: wire.Launch) -> None:
    """The surroundings that the user's code expects."""
    try:
        os.chdir(launch.workdir)
    except OSError as error:
        raise InvalidError(f"The working folder {launch.workdir} cannot be entered: {error.strerror}.") from None
    sys.argv = [launch.entry.path or launch.entry.module]
    context.enter_container(launch.app_name, launch.app_id, launch.urls)


async def _serve(launch: wire.Launch, lifeline: Lifeline, service: Service) -> None:
    server = serve.Server(
        service.endpoints,
        launch.socket_path,
        max_inputs=launch.function.concurrency.max_inputs,
        max_message=parse_size(launch.env.get(LIMIT_VARIABLE, str(MAX_MESSAGE)), LIMIT_VARIABLE),
        done=lambda input_id: lifeline.send(wire.Done(input_id)),
        explain=_explain,
    )

    loop = asyncio.get_running_loop()
    left = asyncio.Event()

    def hear(message: wire.Cancel | wire.Stop) -> None:
        server.hear(message)
        if isinstance(message, wire.Stop):
            loop.call_later(serve.last_moments(message.grace)[1] + _DAWDLE, left.set)

    def on_ready() -> None:
        loop.call_soon_threadsafe(lifeline.listen, hear, server.take_over)
        lifeline.send(wire.Ready())
        gc.enable()  # the template turned it off: nothing that was made so far will be garbage

    if service.is_plain:
        in_threads = threads.limit_frameworks(launch.function.concurrency.max_inputs)
        # a function that never ends keeps the server's thread: exit handlers then run without waiting for that
        serving = asyncio.ensure_future(plain.serve(lambda: server.run(on_ready), in_threads))
        leaving = asyncio.ensure_future(left.wait())
        await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if serving.done():
            serving.result()
    else:
        await server.run(on_ready)


def _explain(error: BaseException) -> tuple[str, str]:
    """The cause, and the text that goes with it: a traceback, or what else our own errors have to say."""
    if isinstance(error, Error):
        text = "\n".join(filter(None, (error.hint, error.detail)))
        return error.message, text
    return loader.user_traceback(error)


def _read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the pipe is gone, or the user's code has closed the stream
            continue
