"""`UvImages`: builds images as virtual environments made by uv, each once.

    home/images/<folder key>/manifest.json   which build counts; written last, so without it there is no image
                             <token>/        an environment
                             lock            held by the server that builds
    home/images/logs/<folder key>.log        what the last build said
    home/layers/…                            see layer.py

A build is made in the place where it stays, because scripts that pip writes contain that path; what makes it count is
the manifest. A forced build leaves the one that containers run from in peace until `sweep`. Tokens are random, so what
an orphan of a crashed server still writes goes where nobody reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from portico.images.disk import flush_filesystem, lock_if_free, locked, write_durably
from portico.images.interpreters import Interpreters, interpreter_at
from portico.images.layer import Layers
from portico.images.plan import Plan, check, plan, settings, step_name
from portico.images.process import clean_environment, run
from portico.images.steps import commands, environment, venv_command
from portico.model.errors import ImageBuildError
from portico.model.ports import BuiltImage, LineSink
from portico.model.spec import ImageSpec, ImageStep

_LAST_WORDS = 30  # lines of a failed command that go into the error
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Which build of an image counts: the `number`th, in `folder`.

    python: its version, "3.11.7". site_packages: relative to the environment.
    """

    number: int
    folder: str
    python: str
    site_packages: tuple[str, ...]


class UvImages:
    """Images on this machine, below `home`; implements `model.ports.Images`. Belongs to one event loop."""

    def __init__(self, home: Path) -> None:
        self._root = home / "images"
        self._interpreters = Interpreters(self._root)
        self._layers = Layers(home / "layers")
        self._building: dict[str, _Build] = {}

    def check(self, image: ImageSpec) -> None:
        """UnsupportedError when an image needs what an environment cannot give; InvalidError when it makes no sense."""
        check(image)

    def key(self, image: ImageSpec) -> str:
        """What names an image before it is built."""
        return plan(image).key

    def cached(self, image: ImageSpec) -> bool:
        """Whether `ensure` has nothing to build."""
        return not image.force_build and self._manifest(plan(image).folder_key) is not None

    async def ensure(self, image: ImageSpec, on_line: LineSink) -> BuiltImage:
        """The image, built now if need be; ImageBuildError when that fails.

        Who asks for an image that is being built gets all of that build's lines. The build ends when nobody waits
        for it any more.
        """
        wanted = plan(image)
        manifest = None if image.force_build else self._manifest(wanted.folder_key)
        if manifest is None:
            manifest = await self._join(wanted, image.force_build, on_line)
        return await self._built(wanted, manifest, on_line)

    async def sweep(self) -> None:
        """Remove what crashed builds left, and builds that forced ones have replaced. For a server's start."""
        await asyncio.to_thread(self._sweep)

    async def _built(self, wanted: Plan, manifest: Manifest, on_line: LineSink) -> BuiltImage:
        folder = self._root / wanted.folder_key / manifest.folder
        python = interpreter_at(folder / "bin" / "python", manifest.python)
        return BuiltImage(
            key=wanted.key if manifest.number == 1 else f"{wanted.key}-{manifest.number}",
            python=python.path,
            site_packages=tuple(folder / place for place in manifest.site_packages),
            runtime_path=(await self._layers.ensure(python, on_line),),
            env=wanted.env,
            workdir=wanted.workdir,
        )

    async def _join(self, wanted: Plan, force: bool, on_line: LineSink) -> Manifest:
        build = self._building.get(wanted.folder_key)
        if build is None:
            build = self._building[wanted.folder_key] = _Build()
            build.task = asyncio.create_task(self._build(wanted, force, build.tell))
        build.join(on_line)
        try:
            return await asyncio.shield(build.task)
        finally:
            build.sinks.remove(on_line)
            if (build.task.done() or not build.sinks) and self._building.get(wanted.folder_key) is build:
                del self._building[wanted.folder_key]
            if not build.sinks and build.task.cancel():
                await asyncio.gather(build.task, return_exceptions=True)

    async def _build(self, wanted: Plan, force: bool, tell: LineSink) -> Manifest:
        place = self._root / wanted.folder_key
        try:
            _make_private(place)
            async with locked(place / "lock", lambda: tell("waiting for another server that builds this image")):
                current = self._manifest(wanted.folder_key)
                if current is not None and not force:
                    return current
                with _log(self._root / "logs" / f"{wanted.folder_key}.log", tell) as log:
                    return await self._build_alone(wanted, place, log)
        except OSError as error:
            raise ImageBuildError(f"The image could not be built in {place}: {error}") from error

    async def _build_alone(self, wanted: Plan, place: Path, tell: LineSink) -> Manifest:
        previous = _read(place)
        folder = place / secrets.token_hex(4)
        python = await self._interpreters.find(wanted.python, tell)
        scratch = Path(tempfile.mkdtemp(prefix=".scratch-", dir=place))
        try:
            await _Steps(folder, scratch, python.path, tell).run(wanted.building)
            await asyncio.to_thread(flush_filesystem, folder)
            found = sorted(str(found.relative_to(folder)) for found in folder.glob("lib/python*/site-packages"))
            manifest = Manifest(
                number=previous.number + 1 if previous else 1,
                folder=folder.name,
                python=python.version,
                site_packages=tuple(found),
            )
            write_durably(place / _MANIFEST, json.dumps(asdict(manifest)).encode())
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        return manifest

    def _manifest(self, folder_key: str) -> Manifest | None:
        place = self._root / folder_key
        manifest = _read(place)
        # The link to the interpreter dangles when that Python was removed from the machine: then the image is gone.
        return manifest if manifest and (place / manifest.folder / "bin" / "python").exists() else None

    def _sweep(self) -> None:
        self._layers.sweep()
        for place in self._root.glob("[0-9a-f]*/"):
            with lock_if_free(place / "lock") as free:
                manifest = _read(place)
                kept = {"lock", _MANIFEST, manifest.folder if manifest else ""}
                for entry in place.iterdir() if free else ():
                    if entry.name not in kept:
                        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


class _Steps:
    """One run of an image's building steps, from an empty folder to a complete environment."""

    def __init__(self, folder: Path, scratch: Path, python: Path, tell: LineSink) -> None:
        self._folder = folder
        self._scratch = scratch
        self._python = python
        self._tell = tell

    async def run(self, steps: tuple[ImageStep, ...]) -> None:
        """All of them, in order; ImageBuildError at the first that fails."""
        with_pip = any(step.kind == "run_commands" for step in steps)
        argv = venv_command(self._python, self._folder, with_pip=with_pip)
        await self._command("Making the environment", argv, clean_environment({"NO_COLOR": "1"}), self._scratch)
        for index, step in enumerate(steps):
            env, workdir = settings(steps[:index])
            for argv in commands(step, python=self._folder / "bin" / "python", scratch=self._scratch):
                name = f"run_commands({argv[-1]})" if step.kind == "run_commands" else step_name(step)
                variables = environment(step, folder=self._folder, image_env=env)
                await self._command(name, argv, variables, self._where(step, workdir))

    def _where(self, step: ImageStep, workdir: str | None) -> Path:
        if step.kind != "run_commands" or workdir is None:
            return self._scratch
        place = Path("/") / workdir
        if place.is_dir():
            return place
        self._tell(f"there is no folder {place} on this machine: the command runs in an empty one")
        return self._scratch

    async def _command(self, name: str, argv: list[str], env: dict[str, str], cwd: Path) -> None:
        last: deque[str] = deque(maxlen=_LAST_WORDS)

        def tell(line: str) -> None:
            last.append(line)
            self._tell(line)

        self._tell(f"=> {name}")
        code = await run(argv, env=env, cwd=cwd, on_line=tell)
        if code:
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise ImageBuildError(f"{name} failed while the image was built ({how}).", detail="\n".join(last))


class _Build:
    """A build under way and who listens to it."""

    task: asyncio.Task[Manifest]

    def __init__(self) -> None:
        self.sinks: list[LineSink] = []
        self._lines: list[str] = []

    def join(self, on_line: LineSink) -> None:
        """Give `on_line` all lines, from the first on."""
        for line in self._lines:
            on_line(line)
        self.sinks.append(on_line)

    def tell(self, line: str) -> None:
        """A new line, for everybody."""
        self._lines.append(line)
        for sink in self.sinks:
            sink(line)


def _read(place: Path) -> Manifest | None:
    try:
        document = json.loads((place / _MANIFEST).read_bytes())
        return Manifest(**document | {"site_packages": tuple(document["site_packages"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None  # as if it had never been built


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


@contextlib.contextmanager
def _log(path: Path, tell: LineSink) -> Iterator[LineSink]:
    _make_private(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", buffering=1, errors="replace") as file:
        yield lambda line: _both(file, line, tell)


def _both(file: TextIO, line: str, tell: LineSink) -> None:
    file.write(f"{line}\n")
    tell(line)
