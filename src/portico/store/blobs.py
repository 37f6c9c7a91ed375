"""`FolderBlobs`: the users' files by their content, in folders.

    <root>/blobs/<aa>/<digest>           a content, read-only
    <root>/bundles/<digest>/             a bundle's files: hard links to the contents
    <root>/compiled/<digest>.<tag>.pyc   a module's bytecode, linked into the bundles that have the module

Whatever has its final name is complete and on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from portico.model.errors import InvalidError, StateError
from portico.model.spec import Bundle, FileEntry
from portico.store.bytecode import (
    CACHE_TAG,
    LONG,
    MOST,
    SHORT,
    compile_long_module,
    compile_module,
    worth_compiling,
)
from portico.store.files import TEMPORARY, copy, link, make_private, publish, remove, rename_folder, temporary_file

MAX_BLOB = 4 * 1024**3  # bytes
MAX_PATH = 1000  # characters of a file's place in a bundle
MAX_NAME = 255  # bytes of one part of it: what file systems take

_BATCH = 1024**2  # bytes written at a time
_DIGEST = re.compile(r"[0-9a-f]{64}")
_READ, _RUN = 0o400, 0o500  # never writable: a content is shared by all that link it


class FolderBlobs:
    """Implements `model.ports.Blobs` below `root`, the server's home."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._bundles = root / "bundles"
        self._compiled = root / "compiled"

    async def missing(self, digests: Sequence[str]) -> list[str]:
        """Which of these are not here, each once, in their order; InvalidError for what is no digest."""
        return await asyncio.to_thread(self._missing, digests)

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        """Store the content; InvalidError when it is not what the digest says, or is larger than 4 GiB."""
        place = self._place(digest)
        with _as_state_error():
            make_private(self._blobs)
        with temporary_file(self._blobs) as (file, name):
            incoming = _Incoming(file)
            async for chunk in chunks:
                await incoming.take(chunk)
            await asyncio.to_thread(incoming.finish, name, place)

    async def materialize(self, bundle: Bundle) -> Path:
        """A folder with the bundle's files; InvalidError for a bad path and for a content that is not here or damaged.

        Modules come with their bytecode, but for very large ones.
        """
        return await asyncio.to_thread(self._materialize, bundle)

    async def collect(self, keep: Sequence[Bundle]) -> int:
        """Remove what none of these bundles needs; returns the number of files removed.

        For a server's start: what is being uploaded, or served from a bundle that is not kept, is removed too.
        """
        return await asyncio.to_thread(self._collect, keep)

    def _place(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise InvalidError(f"Not a SHA-256 digest: {digest[:80]!r}.")
        return self._blobs / digest[:2] / digest

    def _missing(self, digests: Sequence[str]) -> list[str]:
        return [digest for digest in dict.fromkeys(digests) if not self._place(digest).exists()]

    def _materialize(self, bundle: Bundle) -> Path:
        check_paths(bundle)
        folder = self._bundles / bundle.digest
        if folder.is_dir():
            return folder
        with _as_state_error():
            make_private(self._bundles)
            making = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=self._bundles))
            try:
                self._link_files(making, bundle)
                self._link_bytecode(making, bundle)
                rename_folder(making, folder)
            finally:
                shutil.rmtree(making, ignore_errors=True)
        return folder

    def _link_files(self, folder: Path, bundle: Bundle) -> None:
        for parent in sorted({os.path.dirname(entry.path) for entry in bundle.files}):
            os.makedirs(folder / parent, exist_ok=True)
        for entry in bundle.files:
            content = self._sound(entry)
            if entry.executable:  # a mode belongs to the content, and another bundle may have it without
                copy(content, folder / entry.path, _RUN)
            else:
                link(content, folder / entry.path, _READ)

    def _sound(self, entry: FileEntry) -> Path:
        content = self._place(entry.digest)
        try:
            size = content.stat().st_size
        except FileNotFoundError:
            raise InvalidError(f"The content of {entry.path} was not uploaded ({entry.digest}).") from None
        if size == entry.size:
            return content
        with open(content, "rb") as file:
            is_whole = hashlib.file_digest(file, "sha256").hexdigest() == entry.digest
        if is_whole:
            raise InvalidError(f"{entry.path} has {size} bytes, not {entry.size} as the bundle says.")
        content.unlink()  # so that the next upload brings it again
        raise InvalidError(f"The stored content of {entry.path} was damaged.", hint="Try again: it is uploaded anew.")

    def _link_bytecode(self, folder: Path, bundle: Bundle) -> None:
        compiled_now = 0
        for entry in filter(worth_compiling, bundle.files):
            place = self._compiled / f"{entry.digest}.{CACHE_TAG}.pyc"
            if not place.exists():
                if compiled_now >= MOST:
                    continue
                compiled_now += 1 if entry.size <= SHORT else LONG
                self._compile(entry, place)
            source = folder / entry.path
            with contextlib.suppress(OSError):  # it only saves time; and a bundle may have such a file itself
                source.parent.joinpath("__pycache__").mkdir(exist_ok=True)
                os.link(place, source.parent / "__pycache__" / f"{source.stem}.{CACHE_TAG}.pyc")

    def _compile(self, entry: FileEntry, place: Path) -> None:
        source = self._place(entry.digest).read_bytes()
        compiled = (compile_module if entry.size <= SHORT else compile_long_module)(source, entry.path)
        if compiled is not None:
            make_private(self._compiled)
            with temporary_file(self._compiled) as (file, name):
                file.write(compiled)
                publish(file, name, place, _READ)

    def _collect(self, keep: Sequence[Bundle]) -> int:
        bundles = {bundle.digest for bundle in keep}
        digests = {entry.digest for bundle in keep for entry in bundle.files}
        contents = [*self._blobs.glob("??/*"), *self._blobs.glob(f"{TEMPORARY}*"), *self._compiled.glob("*")]
        unneeded = [folder for folder in self._bundles.glob("*") if folder.name not in bundles]
        unneeded += [file for file in contents if file.name.partition(".")[0] not in digests]
        with _as_state_error():
            return sum(remove(path) for path in unneeded)


def check_paths(bundle: Bundle) -> None:
    """InvalidError when the places of a bundle's files are not all apart and inside the bundle."""
    files = {check_path(entry.path) for entry in bundle.files}
    if len(files) != len(bundle.files):
        raise InvalidError("The bundle has two files at one place.")
    folders = {path[:end] for path in files for end, character in enumerate(path) if character == "/"}
    if both := files & folders:
        raise InvalidError(f"The bundle has {min(both)!r} as a file and as a folder.")


def check_path(path: str) -> str:
    """`path`, or InvalidError when it is not a plain relative POSIX path of at most 1,000 characters."""
    unwanted = len(path) > MAX_PATH or "\\" in path or "\0" in path
    if unwanted or any(part in ("", ".", "..") or not _is_name(part) for part in path.split("/")):
        raise InvalidError(
            f"Not a file's place in a bundle: {path[:200]!r}.",
            hint=f"Places are relative, at most {MAX_PATH} characters, with '/' between their parts and without '..'.",
        )
    return path


def _is_name(part: str) -> bool:
    try:
        return len(part.encode()) <= MAX_NAME
    except UnicodeEncodeError:
        return False


class _Incoming:
    """A content on its way into its file: hashed, counted, and written in batches off the event loop."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0
        self._batch = bytearray()

    async def take(self, chunk: bytes) -> None:
        """The next bytes; InvalidError when they are too many."""
        self._size += len(chunk)
        if self._size > MAX_BLOB:
            raise InvalidError(f"A file has more than {MAX_BLOB // 1024**3} GiB.")
        self._batch += chunk
        if len(self._batch) >= _BATCH:
            await asyncio.to_thread(self._write)

    def finish(self, name: Path, place: Path) -> None:
        """Publish it if it is what its place says."""
        self._write()
        if self._hash.hexdigest() != place.name:
            raise InvalidError(f"The content is not what its digest says: {place.name}.")
        with _as_state_error():
            make_private(place.parent)
            publish(self._file, name, place, _READ)

    def _write(self) -> None:
        self._hash.update(self._batch)
        with _as_state_error():  # not around the whole upload: a connection that breaks is no fault of the disk
            self._file.write(self._batch)
        self._batch.clear()


@contextlib.contextmanager
def _as_state_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(
            f"The users' files could not be stored: {error}", hint="Is the disk full, or the home not writable?"
        ) from error
