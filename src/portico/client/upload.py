"""The user's files as a bundle, and their way to the server: only what it does not have yet is sent."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from portico.client.control import ControlClient
from portico.model.errors import InvalidError
from portico.model.spec import Bundle, FileEntry

MAX_FILE = 4 << 30  # bytes
_SMALL = 8 << 20  # bytes; such a file is checked against its digest in memory before it is sent
_SETTLED = 50_000_000  # ns; a younger file may change again without a visible change of its time stamp
_ATTEMPTS = 3

_Stamp = tuple[int, int, int, int]  # mtime in ns, size, inode, mode


@dataclass(frozen=True, slots=True)
class _Hashed:
    stamp: _Stamp
    digest: str
    settled: bool


class Uploader:
    """Makes bundles and sends them. Remembers the digests of files that have not changed since."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client
        self._known: dict[str, _Hashed] = {}

    def bundle(self, sources: Mapping[str, str]) -> Bundle:
        """The bundle of these files (place in the bundle -> local path); InvalidError for one that cannot be read."""
        return Bundle(files=tuple(self._entry(place, sources[place]) for place in sorted(sources)))

    def digest(self, path: str) -> str | None:
        """The SHA-256 of a file; None when there is none that can be read."""
        try:
            return self._entry("", path).digest
        except InvalidError:
            return None

    def push(self, bundle: Bundle, sources: Mapping[str, str]) -> Bundle:
        """Send what the server lacks. Where a file changes meanwhile: a newer bundle, which is returned."""
        for attempt in range(_ATTEMPTS):
            try:
                self._send(bundle, sources)
                return bundle
            except InvalidError:
                changed = self._forget_and_bundle(sources)
                if changed.digest == bundle.digest or attempt == _ATTEMPTS - 1:
                    raise
                bundle = changed
        raise AssertionError("unreachable")

    def _forget_and_bundle(self, sources: Mapping[str, str]) -> Bundle:
        self._known.clear()
        return self.bundle(sources)

    def _send(self, bundle: Bundle, sources: Mapping[str, str]) -> None:
        entries = {entry.digest: entry for entry in bundle.files}
        if not entries:
            return
        for digest in self._client.missing_blobs(list(entries)):
            path = sources[entries[digest].path]
            try:
                with open(path, "rb") as file:
                    content, size = _checked(file, path, digest)
                    self._client.put_blob(digest, content, size)
            except OSError as error:
                raise _unreadable(path, error) from None

    def _entry(self, place: str, path: str) -> FileEntry:
        try:
            info = os.stat(path)
            if not stat.S_ISREG(info.st_mode):
                raise InvalidError(f"Not a regular file: {path}")
            if info.st_size > MAX_FILE:
                raise InvalidError(f"Larger than 4 GiB: {path}", hint="Have the app fetch it when it starts.")
            digest = self._digest(path, (info.st_mtime_ns, info.st_size, info.st_ino, info.st_mode))
        except OSError as error:
            raise _unreadable(path, error) from None
        return FileEntry(path=place, digest=digest, size=info.st_size, executable=bool(info.st_mode & stat.S_IXUSR))

    def _digest(self, path: str, stamp: _Stamp) -> str:
        known = self._known.get(path)
        if known is not None and known.settled and known.stamp == stamp:
            return known.digest
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._known[path] = _Hashed(stamp, digest, settled=time.time_ns() - stamp[0] > _SETTLED)
        return digest


def _checked(file: IO[bytes], path: str, digest: str) -> tuple[IO[bytes], int]:
    size = os.fstat(file.fileno()).st_size
    if size > _SMALL:
        return file, size
    data = file.read()
    if hashlib.sha256(data).hexdigest() != digest:
        raise InvalidError(f"The file changed while it was sent: {path}", hint="Try again.")
    return io.BytesIO(data), len(data)


def _unreadable(path: str, error: OSError) -> InvalidError:
    return InvalidError(f"Cannot read {path}: {error.strerror or error}")
