"""Containers as processes of this machine, forked from an image's template process or from a function's snapshot."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from portico.engines.container import ProcessContainer
from portico.engines.folders import remove_folder
from portico.engines.groups import Groups
from portico.engines.snapshot import Snapshot
from portico.engines.template import Template
from portico.model.errors import StartError
from portico.model.ports import BuiltImage, ContainerEvents, ContainerStart, OutputSink, StartFailure
from portico.wire.container import View

_EVERYTHING = View(folder="")
_UNLIMITED = Groups({})
_PATIENCE = 5.0  # seconds that killed processes may take to vanish


class ProcessEngine:
    """See `model.ports.Engine`. All of it runs on one loop.

    run_dir: the folder for containers' own folders, kept short: a socket's path has at most 107 bytes. sink: takes what
    containers print. idle_template_seconds: how long a template that is not kept stays without containers. told:
    variables for the environment of containers. view: what they see of the machine, besides what each one needs.
    groups: where control groups for them can be made.
    """

    def __init__(
        self,
        run_dir: Path,
        sink: OutputSink,
        *,
        idle_template_seconds: float = 600.0,
        told: Mapping[str, str] = {},
        view: View = _EVERYTHING,
        groups: Groups = _UNLIMITED,
    ) -> None:
        self._folder = run_dir / "c"
        self._sink = sink
        self._idle_seconds = idle_template_seconds
        self._told = dict(told)
        self._view = view
        self._groups = groups
        self._current: dict[str, Template] = {}  # image key -> the one that takes new containers
        self._templates: set[Template] = set()  # all of which anything is left
        self._kept: frozenset[str] = frozenset()
        self._current_snapshots: dict[str, Snapshot] = {}  # by the name that starts have for them
        self._snapshots: set[Snapshot] = set()  # all of which anything is left
        self._unfit: set[str] = set()  # names of those that could not be forked
        self._removals: set[asyncio.Future[None]] = set()  # of folders
        self._closed = False

    def __repr__(self) -> str:
        return f"<ProcessEngine {sorted(map(repr, self._templates))}>"

    def start(self, start: ContainerStart, events: ContainerEvents) -> ProcessContainer:
        """See `model.ports.Engine`."""
        folder = str(self._folder / start.container_id)
        try:
            template = self._template(start.image)
        except (OSError, StartError) as error:
            container = ProcessContainer(start, folder, self._groups, events, on_gone=lambda container: None)
            asyncio.get_running_loop().call_soon(container.fail, StartFailure(str(error)))
            return container
        container = ProcessContainer(start, folder, self._groups, events, on_gone=self._forget, beside=self._containers)
        if start.snapshot is None or start.snapshot in self._unfit:
            template.fork(container)
        else:
            snapshot = self._snapshot(start.snapshot, start, template)
            container.move(snapshot.next_folder())
            snapshot.fork(container)
        return container

    def dismiss(self, snapshot: str) -> None:
        """See `model.ports.Engine`."""
        self._unfit.discard(snapshot)
        if (current := self._current_snapshots.get(snapshot)) is not None:
            current.dismiss()

    async def warm(self, image: BuiltImage) -> None:
        """See `model.ports.Engine`. StartError, with what the image's Python said, when that cannot be."""
        await self._template(image).warm()

    def keep(self, keys: Collection[str]) -> None:
        """See `model.ports.Engine`."""
        self._kept = frozenset(keys)

    async def close(self) -> None:
        """See `model.ports.Engine`."""
        self._closed = True
        for snapshot in list(self._snapshots):
            snapshot.close()
        for template in list(self._templates):
            template.close()
        await self._finish()
        for template in list(self._templates):
            template.kill()
        await self._finish()
        if self._removals:
            await asyncio.wait(self._removals)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _template(self, image: BuiltImage) -> Template:
        if self._closed:
            raise StartError("The server is ending.")
        template = self._current.get(image.key)
        if template is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            template = Template(
                image,
                self._sink,
                told=self._told,
                view=self._view,
                groups=self._groups,
                idle_seconds=self._idle_seconds,
                is_kept=lambda: image.key in self._kept,
                retired=lambda: self._current.pop(image.key),
            )
            template.ended.add_done_callback(lambda _: self._templates.discard(template))
            self._current[image.key] = template
            self._templates.add(template)
            template.start()
        return template

    def _containers(self) -> Iterator[ProcessContainer]:
        for origin in (*self._templates, *self._snapshots):
            yield from origin.containers

    def _snapshot(self, name: str, start: ContainerStart, template: Template) -> Snapshot:
        current = self._current_snapshots.get(name)
        if current is not None and current.fits(start):
            return current
        if current is not None:
            current.dismiss()
        snapshot = Snapshot(
            name,
            start,
            template,
            str(self._folder),
            self._sink,
            self._groups,
            place_gone=self._forget_place,
            retired=lambda: self._current_snapshots.pop(name),
            unfit=self._does_not_fit,
        )
        snapshot.ended.add_done_callback(lambda _: self._finished(snapshot))
        self._current_snapshots[name] = snapshot
        self._snapshots.add(snapshot)
        snapshot.begin()
        return snapshot

    def _does_not_fit(self, snapshot: Snapshot) -> None:
        """Its containers are started without it, now and from now on."""
        self._unfit.add(snapshot.name)
        image = snapshot.start.image
        with contextlib.suppress(OSError, StartError):  # then they fail with their snapshot
            snapshot.hand_on(lambda: self._template(image), lambda container: str(self._folder / container.id))

    def _forget(self, container: ProcessContainer) -> None:
        self._groups.remove(container.id)
        self._remove(container.folder)
        container.origin.forget(container)

    def _forget_place(self, place: ProcessContainer) -> None:
        """A snapshot's process is gone. Its containers may be there, and their folders are in its own."""
        self._groups.remove(place.id)
        place.origin.forget(place)

    def _finished(self, snapshot: Snapshot) -> None:
        self._snapshots.discard(snapshot)
        self._remove(snapshot.folder)

    def _remove(self, folder: str) -> None:
        gone = f"{folder}.gone"
        with contextlib.suppress(FileNotFoundError):  # it has not come so far as to be made
            os.rename(folder, gone)  # nobody connects from now on
            removal = asyncio.get_running_loop().run_in_executor(None, remove_folder, gone)
            self._removals.add(removal)
            removal.add_done_callback(self._removals.discard)

    async def _finish(self) -> None:
        if going := [each.ended for each in (*self._snapshots, *self._templates)]:
            await asyncio.wait(going, timeout=_PATIENCE)
