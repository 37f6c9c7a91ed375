"""Live reload: from a file that was saved to requests that the new code answers.

What runs between the two must be quick, so it starts no process, imports nothing and never sleeps: the reader is
warm, digests are remembered, and only changed files travel.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from portico.cli.progress import Progress
from portico.cli.reading import Reader, spec_of
from portico.cli.terminal import Terminal
from portico.cli.watching import Scope
from portico.client.control import ControlClient
from portico.client.upload import Uploader
from portico.model import errors
from portico.model.spec import AppSpec, Bundle
from portico.wire.control import Deployed, DeployRequest, FunctionState
from portico.wire.reading import ReadReply, ReadRequest

READ_TIMEOUT = 60.0  # seconds; requests wait meanwhile
_STEP = 10  # ms between looks at what the kernel has reported; a change is over when one look finds nothing new
_DEBOUNCE = 60  # ms; longest wait for a change to be over
_LOOK_UP = 500  # ms without a change, after which it is seen whether something else is to be watched
_NOISE = 3  # a file that has changed this often without changing the app is somebody's log or database


@dataclass(frozen=True, slots=True)
class Served:
    """What the server runs now. files: the sources' real paths."""

    reply: ReadReply
    bundle: Bundle
    files: frozenset[str]

    @classmethod
    def of(cls, reply: ReadReply, bundle: Bundle) -> Served:
        """With the real paths, found now: later, somebody waits."""
        return cls(reply, bundle, frozenset(map(os.path.realpath, reply.sources.values())))


class Reloader:
    """Brings one ephemeral app up to date. `on_deployed` is told of every version that went live."""

    def __init__(
        self,
        *,
        client: ControlClient,
        reader: Reader,
        uploader: Uploader,
        app_id: str,
        request: ReadRequest,
        served: Served,
        terminal: Terminal,
        on_deployed: Callable[[Deployed], None],
    ) -> None:
        self._client = client
        self._reader = reader
        self._uploader = uploader
        self._app_id = app_id
        self._request = request
        self._served = served
        self._terminal = terminal
        self._on_deployed = on_deployed
        self._reading = False
        self.ended = False  # set when nobody wants to hear of failures any more
        self._suspects: set[str] = set()  # after a failed reading: what it looked at, where the fault may be mended
        self._fruitless: Counter[str] = Counter()

    @property
    def watched(self) -> set[str]:
        """Folders and files whose change may change the app."""
        return {*self._served.reply.watch, *self._served.reply.sources.values(), *self._suspects}

    def behind(self) -> list[str]:
        """The sources that are others, or elsewhere, than those that the server runs."""
        sources = self._served.reply.sources
        digests = {entry.path: entry.digest for entry in self._served.bundle.files}
        return [path for place, path in sources.items() if self._uploader.digest(path) != digests.get(place)]

    def reread(self) -> None:
        """From another thread: a file has changed; if the app is being read, that has to begin anew."""
        if self._reading:
            self._reader.supersede(self._request)

    def round(self, changed: Collection[str]) -> None:
        """Read the app again and, if it is another than before, replace it. Says what happens, and why not."""
        hold = any(map(self._promising, changed))
        changed = [path for path in changed if self._promising(path) or self._fruitless[path] < _NOISE]
        if not changed:
            return
        try:
            if hold:
                self._client.hold(self._app_id)  # from here on nobody gets an answer of the old code
            if self._replace(changed, time.monotonic()):
                hold = False
                self._fruitless.clear()
            else:
                self._fruitless.update(changed)
        except errors.ConnectionError:
            hold = False  # the server has gone; whoever reads its stream says so
        except errors.Error as error:
            self._fruitless.update(changed)
            if not self.ended:
                self._terminal.error(error)
                self._terminal.note(f"{_names(changed)} changed; the last good version stays up.")
        finally:
            if hold:
                with contextlib.suppress(errors.Error):
                    self._client.release(self._app_id)

    def _replace(self, changed: Collection[str], started: float) -> bool:
        reply = self._read()
        self._suspects = set() if reply.spec else {*reply.watch, *([reply.error_file] if reply.error_file else [])}
        spec = spec_of(reply, self._terminal)
        bundle = self._uploader.bundle(reply.sources)
        if bundle.digest == self._served.bundle.digest and spec == self._served.reply.spec:
            self._served = Served.of(reply, bundle)  # what is watched may be more than before
            return False
        self._terminal.note(f"{_names(changed)} changed; reloading")
        try:
            self._deploy(reply, spec, bundle, started)
        except errors.ConnectionError:
            raise
        except errors.Error:
            if self._uploader.bundle(reply.sources).digest == bundle.digest:
                raise
            return False  # saved again meanwhile: the next round shows what becomes of that
        return True

    def _deploy(self, reply: ReadReply, spec: AppSpec, bundle: Bundle, started: float) -> None:
        bundle = self._uploader.push(bundle, reply.sources)
        request = DeployRequest(spec=spec, bundle=bundle, name=self._request.name)
        progress = Progress(self._terminal)
        try:
            with self._client.reload(self._app_id, request) as events:
                for event in events:
                    if not (isinstance(event, FunctionState) and event.state == "ready"):  # one line says it all
                        progress.show(event)
                    if isinstance(event, Deployed):
                        self._served = Served.of(reply, bundle)
                        self._terminal.note(f"Reloaded in {(time.monotonic() - started) * 1000:.0f} ms")
                        self._on_deployed(event)
        finally:
            progress.close()

    def _read(self) -> ReadReply:
        self._reader.ask(self._request)
        self._reading = True
        try:
            return self._reader.answer(READ_TIMEOUT)
        finally:
            self._reading = False

    def _promising(self, path: str) -> bool:
        """Whether a change of this file is likely to matter, so that requests should wait for what comes of it."""
        return path.endswith(".py") or path in self._served.files


class Watcher:
    """Two threads: one sees files change, the other runs the reloader's rounds, one after the other.

    A change during a round makes for another round after it; one that comes while the file is read has it read
    again at once, so that an endless loop in it can be mended.
    """

    def __init__(self, reloader: Reloader, terminal: Terminal, without: Collection[Path]) -> None:
        self._reloader = reloader
        self._terminal = terminal
        self._without = without
        self._stop = threading.Event()
        self._changed: set[str] = set()
        self._noticed = threading.Condition()
        # Both end with their process: nobody waits for what they may be waiting for.
        self._threads = [
            threading.Thread(target=self._guard, args=(run,), daemon=True) for run in (self._see, self._act)
        ]

    def start(self) -> None:
        """Begin to watch."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Watch no longer. Does not wait for a round that runs."""
        self._reloader.ended = True
        self._stop.set()

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:
            if not self._stop.is_set():
                self._terminal.warn(f"Live reload has stopped: {error}")

    def _act(self) -> None:
        while True:
            with self._noticed:
                self._noticed.wait_for(lambda: self._changed)
                changed, self._changed = sorted(self._changed), set()
            self._reloader.round(changed)

    def _notice(self, paths: Collection[str]) -> None:
        if paths:
            self._reloader.reread()
            with self._noticed:
                self._changed.update(paths)
                self._noticed.notify()

    def _see(self) -> None:
        first = True
        while not self._stop.is_set():
            self._watch(first)
            first = False

    def _watch(self, first: bool) -> None:
        """Until what must be watched changes."""
        import watchfiles  # 45 ms, in this thread and not before the URLs are printed

        watched = self._reloader.watched
        scope = Scope(watched, self._without)
        if first and not scope.complete:
            self._terminal.warn("There are too many folders to watch them all; changes far down are not noticed.")
        unsure = True
        for changes in watchfiles.watch(
            *scope.folders,
            watch_filter=lambda _, path: scope.concerns(path),
            debounce=_DEBOUNCE,
            step=_STEP,
            stop_event=self._stop,
            rust_timeout=_LOOK_UP,
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
        ):
            paths = {path for _, path in changes}
            self._notice(paths)
            if not paths and unsure:
                # Everything is surely watched by now: look once at what has changed before it was.
                unsure = False
                self._notice(self._reloader.behind())
            if self._reloader.watched != watched or scope.adds_folder(paths):
                return


def _names(paths: Collection[str]) -> str:
    first, *others = sorted(paths)
    return os.path.relpath(first) + (f" and {len(others)} more" if others else "")
