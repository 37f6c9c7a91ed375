"""What a function's snapshot holds, and what each container that is forked from it makes its own."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from portico.client import loops
from portico.runtime import web
from portico.runtime.forkserver import children_of_this_thread
from portico.runtime.web import Endpoint
from portico.sdk.classes import Definition, Instance
from portico.wire import container as wire

_PATIENCE: Final = 0.1  # seconds that threads which have ended may take to vanish


@dataclass(frozen=True, slots=True)
class Prepared:
    """A function and its app, or a class and its object, as far as all containers may share it.

    launch: the snapshot's own.
    """

    launch: wire.Launch
    raw: Callable[..., Any]
    endpoint: Endpoint | None = None
    instance: Instance | None = None

    def make_own(self, launch: wire.Launch, temporary: str, *, isolated: bool) -> None:
        """In a fork: what may not be the same in two containers. What the user's code has set in `os.environ` stays."""
        os.environ.update({k: v for k, v in launch.env.items() if self.launch.env.get(k) != v})
        if not isolated and "TMPDIR" not in launch.env:  # else it has its own in the snapshot's place
            os.environ.update(TMPDIR=temporary)
            tempfile.tempdir = None
        # Python's own generator has done so by itself, at the fork; OpenSSL's too
        if (numpy_random := sys.modules.get("numpy.random")) is not None:
            numpy_random.seed()


def prepare(launch: wire.Launch, raw: Callable[..., Any]) -> Prepared:
    """Do what is to happen before the snapshot: `enter(snap=True)`. Objects with parameters are made in containers."""
    if launch.function.cls is None:
        endpoint = None if web.calls_function(launch.function) else web.build(launch.function, raw)
        return Prepared(launch, raw, endpoint=endpoint)
    if launch.parameters is None:
        return Prepared(launch, raw)
    assert isinstance(raw, type), "a class's specification was made of a class"
    instance = Definition(launch.function, raw, app_name=launch.app_name).instance(launch.parameters)
    with asyncio.Runner(loop_factory=loops.new_loop) as runner:  # it ends here: a loop cannot be forked
        instance.enter_snap(runner.run)
    return Prepared(launch, raw, instance=instance)


def obstacle() -> str | None:
    """Why this process cannot be forked; None: it can. Tries it, since some libraries end their threads for that."""
    if children_of_this_thread():
        return "it has started processes when it was imported."
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if not names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which is what we want to know
            pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if _has_one_thread():
            return None
        names = [f"{len(os.listdir('/proc/self/task')) - 1} of a library"]
    return f"it has started threads when it was imported ({', '.join(names)}), which no fork would have."


def _has_one_thread() -> bool:
    until = time.monotonic() + _PATIENCE
    while len(os.listdir("/proc/self/task")) > 1:
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True
