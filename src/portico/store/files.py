"""Files that are whole or not there: each step that a power cut may fall between."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".making-"  # how the names of unfinished files and folders begin
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES)


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in `folder`, 0600; removed at the end unless it was given another name."""
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
    file = os.fdopen(descriptor, "wb")
    try:
        yield file, Path(name)
    finally:
        with contextlib.suppress(OSError):  # what is published is on disk; of what is not, a full disk need not be told
            file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def publish(file: BinaryIO, name: Path, place: Path, mode: int) -> None:
    """Give a temporary file its mode and its final name, and have all of that on disk."""
    os.fchmod(file.fileno(), mode)
    file.flush()
    os.fsync(file.fileno())
    os.replace(name, place)
    sync_folder(place.parent)


def make_private(folder: Path) -> None:
    """A folder for this user only, durably; its parents, too."""
    for place in (*reversed(folder.parents), folder):
        with contextlib.suppress(FileExistsError):
            if not place.exists():
                place.mkdir(mode=0o700)
                sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Have a folder's names on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_folder(making: Path, folder: Path) -> None:
    """Give a folder its final name; where another of that name came first, that one stays."""
    try:
        making.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    else:
        sync_folder(folder.parent)


def link(content: Path, target: Path, mode: int) -> None:
    """A hard link, or a copy with this mode where the file system has no links for us."""
    try:
        os.link(content, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        copy(content, target, mode)


def copy(content: Path, target: Path, mode: int) -> None:
    """A copy with this mode, on disk."""
    with open(content, "rb") as source, open(target, "xb") as file:
        shutil.copyfileobj(source, file)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())


def remove(path: Path) -> int:
    """Remove a file, or a folder with all that is in it; returns the number of files removed."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return 1
    count = sum(len(files) for _, _, files in os.walk(path))
    shutil.rmtree(path)
    return count
