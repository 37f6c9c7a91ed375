"""Which changes of which files matter to a served app."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Collection, Iterable
from pathlib import Path

MAX_FOLDERS = 5000  # each costs the kernel a watch; more than this is a home folder, not a project

_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})  # and all that begin with a dot
_FILES = (
    "4913",  # vim tries whether it may write
    "*.sw?",
    "*.swpx",
    "*~",
    ".#*",
    "#*#",
    "*.tmp",
    "*.tmp.*",
    "*.temp",
    "*.bak",
    "*.orig",
    "*.crswap",
    "*.kate-swp",
    "*___jb_???___",
    ".goutputstream-*",
    ".DS_Store",
    "*.py[co]",
)


def ignored_file(name: str) -> bool:
    """Whether editors and tools make files of this name for themselves."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _FILES)


def ignored_folder(path: str) -> bool:
    """Whether the folder holds something else than the user's source: tools' state, or a virtual environment."""
    name = os.path.basename(path)
    return name in _FOLDERS or name.startswith(".") or os.path.exists(os.path.join(path, "pyvenv.cfg"))


class Scope:
    """The folders and files that are watched.

    Folders are listed one by one, so that what is ignored costs no kernel watch; a file is watched through its
    folder, since editors replace files. `without` are folders that are never looked into (Portico's own home).
    """

    def __init__(self, paths: Iterable[str], without: Collection[Path] = ()) -> None:
        self._without = {os.path.realpath(path) for path in without}
        real = {os.path.realpath(path) for path in paths}
        self._files = {path for path in real if os.path.isfile(path)}
        self._roots = {path for path in real if os.path.isdir(path)}
        self._below = self._walk()

    @property
    def folders(self) -> list[str]:
        """What to watch, each folder without those below it."""
        return sorted(self._below | {os.path.dirname(path) for path in self._files})

    @property
    def complete(self) -> bool:
        """Whether there were not too many folders to watch them all."""
        return len(self._below) < MAX_FOLDERS

    def concerns(self, path: str) -> bool:
        """Whether a change of this path may change the app."""
        if path in self._files:
            return True
        if os.path.dirname(path) not in self._below or ignored_file(os.path.basename(path)):
            return False
        return not (os.path.isdir(path) and self._skipped(path))

    def adds_folder(self, paths: Iterable[str]) -> bool:
        """Whether one of these changed paths is a folder that is not watched yet."""
        return any(os.path.isdir(path) and path not in self._below and not self._skipped(path) for path in paths)

    def _walk(self) -> set[str]:
        found: set[str] = set()
        waiting = sorted(self._roots)
        for folder in waiting:  # grows while it is walked: the upper levels come first
            if len(found) >= MAX_FOLDERS:
                break
            if folder not in found:
                found.add(folder)
                waiting += sorted(path for path in _subfolders(folder) if not self._skipped(path))
        return found

    def _skipped(self, path: str) -> bool:
        return path in self._without or ignored_folder(path)


def _subfolders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
