"""Which of the user's files travel to the containers, and which are watched while the app is served."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from portico.model.errors import InvalidError
from portico.runtime.tracebacks import is_user_file
from portico.sdk.mounts import LocalMount
from portico.sdk.patterns import FilePatternMatcher

MAX_FILES = 2_000
MAX_BYTES = 50 * 1024 * 1024
MAX_ENTRIES = 20_000  # that a walk looks at: a project has fewer, a home folder has more

_NEVER = frozenset({"__pycache__", "node_modules", "site-packages"})
_MARKS = ("pyvenv.cfg", "portico.db")  # a virtual environment, Portico's own home
_BUILT = frozenset({"build", "dist"})  # unless they are packages


@dataclass(frozen=True)
class Sources:
    """files: place in the bundle -> absolute local path. watch: files and folders whose change may change the app."""

    files: dict[str, str] = field(default_factory=dict)
    watch: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def project_sources(root: Path, entry: Path, *, package: str | None = None, max_entries: int = MAX_ENTRIES) -> Sources:
    """The Python files of a project: those below `root`, or only below its top-level `package`; always the entry.

    Where that is too much for a project, the modules that have been imported from below the root stand for it.
    """
    top = root / package if package is not None else root
    found = _walk(top, max_entries)
    files = _placed(root, [*(found or ()), *imported_files(root), entry])
    if found is not None:
        elsewhere = (path for path in files.values() if not path.startswith(os.path.join(top, "")))
        return Sources(files=files, watch=[str(top), *elsewhere])
    return Sources(
        files=files,
        watch=sorted(files.values()),
        warnings=[
            f"{top} has too many files to take all of its modules along; only those that {entry.name} imports go. "
            "Put the app into a folder of its own."
        ],
    )


def entry_source(root: Path, entry: Path) -> Sources:
    """The entry alone: what include_source=False leaves, and what is known of a file that cannot be read."""
    return Sources(files=_placed(root, [entry]), watch=[str(entry)])


def add_mounts(sources: Sources, mounts: tuple[LocalMount, ...]) -> Sources:
    """The sources with the files that images add. InvalidError when two files want the same place."""
    files = dict(sources.files)
    for mount in mounts:
        for path in _mounted(mount):
            inside = path.relative_to(mount.local).as_posix()
            place = "/".join(part for part in (mount.place, inside) if part not in ("", "."))
            if not _is_text(place):
                continue
            other = files.setdefault(place, str(path))
            if other != str(path) and os.path.realpath(other) != os.path.realpath(path):
                raise InvalidError(f"Two files for the same place {place!r}: {other} and {path}.")
    watch = dict.fromkeys([*sources.watch, *(str(mount.local) for mount in mounts)])
    return Sources(files=files, watch=list(watch), warnings=sources.warnings)


def imported_files(root: Path) -> list[Path]:
    """The source files of the modules that this process has imported from below `root`; not of installed packages."""
    paths = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    below = os.path.join(root, "")
    return [
        Path(path) for path in paths if path and path.startswith(below) and path.endswith(".py") and is_user_file(path)
    ]


def _walk(top: Path, max_entries: int) -> list[Path] | None:
    """The Python files below `top` that belong to a project, or None when there are more than a project has.

    Names with a dot in front are not those of modules but of editors' own files.
    """
    found: list[Path] = []
    size = looked = 0
    seen: set[tuple[int, int]] = set()
    folders = deque([top])
    while folders:
        folder = folders.popleft()
        for item in _scan(folder, max_entries + 1):
            looked += 1
            if looked > max_entries:
                return None
            try:
                if item.name.endswith(".py") and not item.name.startswith(".") and item.is_file():
                    found.append(Path(item.path))
                    size += item.stat().st_size
                elif item.is_dir() and _may_hold_sources(item):
                    status = item.stat()
                    if (status.st_dev, status.st_ino) not in seen:  # a link may lead back
                        seen.add((status.st_dev, status.st_ino))
                        folders.append(Path(item.path))
            except OSError:
                continue  # a link to nothing, or gone in between
            if len(found) > MAX_FILES or size > MAX_BYTES:
                return None
    return found


def _scan(folder: Path, most: int) -> list[os.DirEntry[str]]:
    """What is in a folder, in order of names, so that the same project always gives the same answer."""
    try:
        with os.scandir(folder) as entries:
            return sorted(islice(entries, most), key=lambda entry: entry.name)
    except OSError:
        return []  # not ours to read


def _may_hold_sources(folder: os.DirEntry[str]) -> bool:
    name = folder.name
    if name.startswith(".") or name in _NEVER:
        return False
    if any(os.path.exists(os.path.join(folder.path, mark)) for mark in _MARKS):
        return False
    return name not in _BUILT or os.path.exists(os.path.join(folder.path, "__init__.py"))


def _mounted(mount: LocalMount) -> Iterator[Path]:
    """The files of a mount."""
    if not mount.local.is_dir():
        yield mount.local
        return
    prunes = isinstance(mount.ignore, FilePatternMatcher) and mount.ignore.prunes
    for folder, subfolders, names in os.walk(mount.local, followlinks=False):
        here = Path(folder)
        subfolders[:] = sorted(name for name in subfolders if name != "__pycache__")
        if prunes and mount.ignore is not None:
            subfolders[:] = [name for name in subfolders if not mount.ignore((here / name).relative_to(mount.local))]
        for name in sorted(names):
            path = here / name
            if path.is_file() and not (mount.ignore is not None and mount.ignore(path.relative_to(mount.local))):
                yield path


def _placed(root: Path, paths: list[Path]) -> dict[str, str]:
    places = {path.relative_to(root).as_posix(): str(path) for path in paths}
    return {place: path for place, path in places.items() if _is_text(place)}


def _is_text(place: str) -> bool:
    """False for a name that is not UTF-8: it could not travel in JSON."""
    try:
        place.encode()
    except UnicodeEncodeError:
        return False
    return True
