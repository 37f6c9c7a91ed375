"""Bundles and what is sent of them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import IO

import pytest

from portico.client import upload
from portico.client.upload import Uploader
from portico.model.errors import InvalidError


class Server:
    """The part of the control client that uploads use: a set of blobs."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.before_put: Callable[[], None] = lambda: None

    def missing_blobs(self, digests: list[str]) -> list[str]:
        return [digest for digest in digests if digest not in self.stored]

    def put_blob(self, digest: str, content: IO[bytes], size: int) -> None:
        self.before_put()
        data = content.read(size)
        if hashlib.sha256(data).hexdigest() != digest:
            raise InvalidError("wrong digest")
        self.stored[digest] = data


def age(path, seconds: float = 10) -> None:
    """Let the file look as if it was last written a while ago."""
    then = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(then, then))


def test_bundle_is_sorted_and_says_what_is_executable(tmp_path):
    """Places, digests, sizes and the executable bit."""
    (tmp_path / "b.py").write_text("b")
    (tmp_path / "a.sh").write_text("echo")
    (tmp_path / "a.sh").chmod(0o755)
    sources = {"b.py": str(tmp_path / "b.py"), "a.sh": str(tmp_path / "a.sh")}
    first, second = Uploader(Server()).bundle(sources).files
    assert (first.path, first.executable, first.size) == ("a.sh", True, 4)
    assert (second.path, second.executable) == ("b.py", False)
    assert second.digest == hashlib.sha256(b"b").hexdigest()


def test_only_missing_blobs_are_sent(tmp_path):
    """A second push sends what has changed, and nothing else."""
    server, file = Server(), tmp_path / "a.py"
    (tmp_path / "b.py").write_text("b")
    sources = {"a.py": str(file), "b.py": str(tmp_path / "b.py")}
    uploader = Uploader(server)
    puts: list[int] = []
    server.before_put = lambda: puts.append(1)
    file.write_text("1")
    uploader.push(uploader.bundle(sources), sources)
    file.write_text("22")
    uploader.push(uploader.bundle(sources), sources)
    assert len(puts) == 3


def test_unchanged_files_are_not_read_again(tmp_path, monkeypatch):
    """A settled file with the same stamp keeps its digest."""
    file = tmp_path / "a.py"
    file.write_text("1")
    age(file)
    uploader = Uploader(Server())
    first = uploader.bundle({"a.py": str(file)})
    monkeypatch.setattr(upload.hashlib, "file_digest", None)
    assert uploader.bundle({"a.py": str(file)}) == first


def test_young_files_are_read_again(tmp_path):
    """A second write within one tick of the clock, of the same size, is not missed."""
    file = tmp_path / "a.py"
    file.write_text("1")
    stamp = file.stat().st_mtime_ns
    uploader = Uploader(Server())
    first = uploader.bundle({"a.py": str(file)})
    file.write_text("2")
    os.utime(file, ns=(stamp, stamp))
    assert uploader.bundle({"a.py": str(file)}).digest != first.digest


def test_a_file_that_changes_while_it_is_sent(tmp_path):
    """The push starts over with what is there now, and says so in its result."""
    server, file = Server(), tmp_path / "a.py"
    file.write_text("old")
    sources = {"a.py": str(file)}
    uploader = Uploader(server)
    bundle = uploader.bundle(sources)
    file.write_text("newer")
    pushed = uploader.push(bundle, sources)
    assert pushed.files[0].digest == hashlib.sha256(b"newer").hexdigest()
    assert server.stored == {pushed.files[0].digest: b"newer"}


def test_a_refusal_that_is_not_about_a_change_is_raised(tmp_path):
    """The server's own no is passed on."""
    server, file = Server(), tmp_path / "a.py"
    file.write_text("x")

    def refuse() -> None:
        raise InvalidError("no room")

    server.before_put = refuse
    uploader = Uploader(server)
    sources = {"a.py": str(file)}
    with pytest.raises(InvalidError, match="no room"):
        uploader.push(uploader.bundle(sources), sources)


def test_large_files_are_streamed(tmp_path, monkeypatch):
    """A file above the limit is not read into memory by us."""
    monkeypatch.setattr(upload, "_SMALL", 10)
    server, file = Server(), tmp_path / "model.bin"
    file.write_bytes(b"x" * 100)
    uploader = Uploader(server)
    sources = {"model.bin": str(file)}
    uploader.push(uploader.bundle(sources), sources)
    assert list(server.stored.values()) == [b"x" * 100]


def test_unreadable_files_are_named(tmp_path):
    """A missing file or a folder is an error that names it."""
    for path in (tmp_path / "none.py", tmp_path):
        with pytest.raises(InvalidError, match=str(path)):
            Uploader(Server()).bundle({"a.py": str(path)})
