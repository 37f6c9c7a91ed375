"""The runtime layer: a folder with what a container's runtime needs, and nothing else of the server's environment.

For the server's own Python it is a folder of links, made offline in milliseconds; for another one uv installs the same
versions. Its name is a hash of all that is in it, so a changed version makes a new folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import uv

from portico.images.disk import flush_filesystem, lock_if_free, locked
from portico.images.interpreters import Interpreter
from portico.images.process import clean_environment, run
from portico.model.errors import ImageBuildError
from portico.model.ports import LineSink

RUNTIME = (
    *("fastapi", "uvicorn", "httptools", "uvloop", "websockets", "python-multipart"),
    *("msgspec", "cloudpickle", "tblib", "idna"),
)
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_NO_CODE = ("..", "__pycache__", "")


class Layers:
    """The layers below `root`, made when they are first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[str, Path] = {}
        self._lock = asyncio.Lock()

    async def ensure(self, python: Interpreter, on_line: LineSink) -> Path:
        """The folder for this interpreter; ImageBuildError when its packages cannot be had."""
        name = "own" if python.own else python.minor
        async with self._lock:
            if name not in self._made:
                try:
                    self._made[name] = await (self._link() if python.own else self._install(python, on_line))
                except OSError as error:
                    raise ImageBuildError(f"The runtime's folder could not be made: {error}") from error
        return self._made[name]

    def sweep(self) -> None:
        """Remove what crashed servers left half made."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with lock_if_free(self._root / "lock") as free:
            for leftover in self._root.glob(".making-*") if free else ():
                shutil.rmtree(leftover, ignore_errors=True)

    async def _link(self) -> Path:
        return await asyncio.to_thread(link_layer, self._root, runtime_entries())

    async def _install(self, python: Interpreter, on_line: LineSink) -> Path:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with locked(self._root / "lock", lambda: on_line("waiting for another server of this home")):
            return await self._install_alone(python, on_line)

    async def _install_alone(self, python: Interpreter, on_line: LineSink) -> Path:
        pins = sorted(f"{dist.name}=={dist.version}" for dist in runtime_distributions())
        links = _portico_entries()
        folder = self._root / _hash([python.minor, pins, _named(links)])
        if folder.is_dir():
            return folder
        said: list[str] = []

        def tell(line: str) -> None:
            said.append(line)
            on_line(line)

        with _temporary(self._root) as making:
            tell(f"Installing the runtime for Python {python.minor}")
            argv = [uv.find_uv_bin(), "pip", "install", "--no-progress", "--compile-bytecode"]
            argv += ["--python", str(python.path), "--target", str(making), "--", *pins]
            if await run(argv, env=clean_environment({"NO_COLOR": "1"}), cwd=self._root, on_line=tell):
                raise ImageBuildError(
                    f"The runtime could not be installed for Python {python.version}.", detail="\n".join(said[-20:])
                )
            for name, target in links.items():
                (making / name).symlink_to(target)
            await asyncio.to_thread(flush_filesystem, making)
            _rename(making, folder)
        return folder


def runtime_distributions() -> list[Distribution]:
    """The distributions of the runtime and all that they need, without their extras, by name."""
    found: dict[str, Distribution] = {}
    waiting = list(RUNTIME)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        # A requirement for another platform or Python is not installed, which says as much as its marker.
        with contextlib.suppress(PackageNotFoundError):
            found[name] = distribution(name)
            waiting += [required for text in found[name].requires or () if (required := _required(text))]
    return [found[name] for name in sorted(found)]


def runtime_entries() -> dict[str, Path]:
    """Top-level name -> where it is, for the whole layer."""
    entries = _portico_entries()
    for dist in runtime_distributions():
        entries |= _entries(dist)
    return entries


def link_layer(root: Path, entries: dict[str, Path]) -> Path:
    """A folder below `root` with a link for each entry; one that is there but damaged is made again."""
    folder = root / _hash(_named(entries))
    if all(_points_to(folder / name, target) for name, target in entries.items()):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    with _temporary(root) as making:
        for name, target in entries.items():
            (making / name).symlink_to(target)
        _rename(making, folder)
    return folder


def _required(text: str) -> str | None:
    requirement, _, marker = text.partition(";")
    match = _NAME.match(requirement.strip())
    return match[0] if match and "extra" not in marker else None


def _portico_entries() -> dict[str, Path]:
    # Linked from where it is, because an editable install is nowhere else.
    entries = {"portico": _package_folder("portico")}
    with contextlib.suppress(PackageNotFoundError):
        entries |= {n: p for n, p in _entries(distribution("portico")).items() if n.endswith(".dist-info")}
    return entries


def _package_folder(name: str) -> Path:
    found = find_spec(name)
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]).resolve()


def _entries(dist: Distribution) -> dict[str, Path]:
    record = dist.read_text("RECORD") or ""
    names = {line.partition(",")[0].strip('"').partition("/")[0] for line in record.splitlines()}
    if not record:  # packages of the system's own package manager have none
        names = {path.parts[0] for path in dist.files or ()} | set((dist.read_text("top_level.txt") or "").split())
    places = {name: Path(str(dist.locate_file(name))) for name in names if name not in _NO_CODE}
    return {name: place for name, place in places.items() if not name.endswith(".pth") and place.exists()}


def _points_to(link: Path, target: Path) -> bool:
    try:
        return os.readlink(link) == str(target)
    except OSError:
        return False


def _named(entries: dict[str, Path]) -> list[tuple[str, str]]:
    return sorted((name, str(target)) for name, target in entries.items())


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


@contextlib.contextmanager
def _temporary(root: Path) -> Iterator[Path]:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)  # `link_layer` is called on its own, too
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=root))
    try:
        yield making
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _rename(making: Path, folder: Path) -> None:
    try:
        making.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another server of this home has just made it, as good as ours
            raise
