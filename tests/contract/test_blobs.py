"""What every blob store must do, on a real file system."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from portico.model.errors import InvalidError
from portico.model.spec import Bundle, FileEntry
from portico.store import blobs as blobs_module
from portico.store.blobs import FolderBlobs


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def chunked(data: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def upload(blobs: FolderBlobs, data: bytes) -> str:
    for digest in await blobs.missing([digest_of(data)]):
        await blobs.put(digest, chunked(data, 65536))
    return digest_of(data)


async def bundle_of(blobs: FolderBlobs, files: dict[str, bytes], executable: Iterable[str] = ()) -> Bundle:
    entries = [
        FileEntry(path=path, digest=await upload(blobs, data), size=len(data), executable=path in executable)
        for path, data in sorted(files.items())
    ]
    return Bundle(files=tuple(entries))


def all_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path)


async def test_what_was_put_is_no_longer_missing(blobs: FolderBlobs) -> None:
    """`missing` names each absent digest once, in the order asked."""
    here, there = await upload(blobs, b"here"), digest_of(b"there")
    assert await blobs.missing([there, here, there]) == [there]


async def test_a_wrong_digest_stores_nothing(blobs: FolderBlobs, tmp_path: Path) -> None:
    """The content must be what its name says, and no temporary file stays behind."""
    with pytest.raises(InvalidError, match="not what its digest says"):
        await blobs.put(digest_of(b"a"), chunked(b"b"))
    assert await blobs.missing([digest_of(b"a")]) == [digest_of(b"a")]
    assert all_files(tmp_path) == []


async def test_an_upload_that_breaks_off_stores_nothing(blobs: FolderBlobs, tmp_path: Path) -> None:
    """The reader's error comes through, and no part of the content is kept."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await blobs.put(digest_of(b"half a content"), broken())
    assert all_files(tmp_path) == []


async def test_a_large_content_arrives_in_batches(blobs: FolderBlobs, tmp_path: Path) -> None:
    """Three megabytes in small chunks are the same three megabytes on disk, readable by this user only."""
    data = os.urandom(3_000_000)
    await blobs.put(digest_of(data), chunked(data, 10_000))
    (place,) = tmp_path.glob(f"blobs/??/{digest_of(data)}")
    assert place.read_bytes() == data
    assert place.stat().st_mode & 0o377 == 0
    assert place.parent.stat().st_mode & 0o077 == 0


async def test_a_content_over_the_limit_is_refused(blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds while the bytes come, not after."""
    monkeypatch.setattr(blobs_module, "MAX_BLOB", 1000)
    with pytest.raises(InvalidError, match="GiB"):
        await blobs.put(digest_of(b"x" * 1001), chunked(b"x" * 1001))


@pytest.mark.parametrize("digest", ["", "abc", "../../etc/passwd", "A" * 64, "a" * 64 + "\n"])
async def test_what_is_no_digest_is_refused(blobs: FolderBlobs, digest: str) -> None:
    """A digest becomes a file's name, so nothing else may."""
    with pytest.raises(InvalidError, match="SHA-256"):
        await blobs.missing([digest])
    with pytest.raises(InvalidError, match="SHA-256"):
        await blobs.put(digest, chunked(b""))


async def test_a_bundle_becomes_a_folder_with_its_files(blobs: FolderBlobs) -> None:
    """Contents, folders and the executable bit are as the bundle says; the same bundle is the same folder."""
    bundle = await bundle_of(blobs, {"app.txt": b"1", "pkg/data.bin": b"\0", "run.sh": b"1"}, executable=["run.sh"])
    folder = await blobs.materialize(bundle)
    assert all_files(folder) == ["app.txt", "pkg/data.bin", "run.sh"]
    assert (folder / "pkg/data.bin").read_bytes() == b"\0"
    assert [bool((folder / name).stat().st_mode & stat.S_IXUSR) for name in ("app.txt", "run.sh")] == [False, True]
    assert await blobs.materialize(bundle) == folder


async def test_files_are_linked_and_not_copied(blobs: FolderBlobs) -> None:
    """Two bundles with the same file share its bytes on disk, and nobody may write to them."""
    one = await blobs.materialize(await bundle_of(blobs, {"same.bin": b"data"}))
    two = await blobs.materialize(await bundle_of(blobs, {"same.bin": b"data", "more.bin": b"more"}))
    assert (one / "same.bin").samefile(two / "same.bin")
    assert (one / "same.bin").stat().st_mode & 0o222 == 0


async def test_where_links_are_impossible_files_are_copied(blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have no hard links."""

    def no_links(*_: object) -> None:
        raise OSError(95, "not supported")

    bundle = await bundle_of(blobs, {"a.py": b"x = 1\n"})
    monkeypatch.setattr(os, "link", no_links)
    folder = await blobs.materialize(bundle)
    assert all_files(folder) == ["a.py"]
    assert (folder / "a.py").read_bytes() == b"x = 1\n"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "../x",
        "a/../../x",
        "a//b",
        "a/",
        "./a",
        "a\0b",
        "a\\b",
        "x" * 300,
        "a/" * 500 + "b",
        "\ud800",
    ],
)
async def test_a_path_that_leaves_the_bundle_is_refused(blobs: FolderBlobs, tmp_path: Path, path: str) -> None:
    """Absolute, climbing, empty, over-long and unwritable places are all InvalidError, and make nothing."""
    entry = FileEntry(path=path, digest=await upload(blobs, b"x"), size=1)
    bundle = Bundle(files=(entry,))
    with pytest.raises(InvalidError, match="Not a file's place"):
        await blobs.materialize(bundle)
    assert not list(tmp_path.glob("bundles/*"))


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b")])
async def test_two_files_at_one_place_are_refused(blobs: FolderBlobs, paths: tuple[str, str]) -> None:
    """Neither twice the same file, nor a file that is also a folder."""
    digest = await upload(blobs, b"x")
    bundle = Bundle(files=tuple(FileEntry(path=path, digest=digest, size=1) for path in paths))
    with pytest.raises(InvalidError, match="bundle has"):
        await blobs.materialize(bundle)


async def test_a_missing_content_is_named(blobs: FolderBlobs, tmp_path: Path) -> None:
    """No folder is made of a bundle that is not all here."""
    bundle = await bundle_of(blobs, {"a.txt": b"a"})
    absent = FileEntry(path="b.txt", digest=digest_of(b"b"), size=1)
    with pytest.raises(InvalidError, match=r"b\.txt was not uploaded"):
        await blobs.materialize(Bundle(files=(*bundle.files, absent)))
    assert not list(tmp_path.glob("bundles/*"))


async def test_a_damaged_content_is_asked_for_again(blobs: FolderBlobs, tmp_path: Path) -> None:
    """A content of the wrong size is not served; after the error it counts as missing."""
    bundle = await bundle_of(blobs, {"a.txt": b"hello"})
    (place,) = tmp_path.glob("blobs/??/*")
    place.chmod(0o600)
    place.write_bytes(b"hel")
    with pytest.raises(InvalidError, match="damaged"):
        await blobs.materialize(bundle)
    assert await blobs.missing([digest_of(b"hello")]) == [digest_of(b"hello")]


async def test_a_wrong_size_in_the_bundle_is_refused(blobs: FolderBlobs) -> None:
    """When the content is right and the bundle is not, the content stays."""
    entry = FileEntry(path="a.txt", digest=await upload(blobs, b"hello"), size=99)
    with pytest.raises(InvalidError, match="not 99"):
        await blobs.materialize(Bundle(files=(entry,)))
    assert await blobs.missing([entry.digest]) == []


async def test_a_bundle_may_be_asked_for_twice_at_once(blobs: FolderBlobs, tmp_path: Path) -> None:
    """Both askers get the one folder, and nothing half made is left."""
    bundle = await bundle_of(blobs, {f"{name}.py": f"x = '{name}'\n".encode() for name in "abcdefgh"})
    folders = await asyncio.gather(*(blobs.materialize(bundle) for _ in range(8)))
    assert len(set(folders)) == 1
    assert [path.name for path in tmp_path.glob("bundles/*")] == [bundle.digest]


@pytest.mark.parametrize("more", [b"", b"x = 1\n" * 10_000], ids=["short", "long"])
async def test_modules_come_with_bytecode_that_python_uses(blobs: FolderBlobs, more: bytes) -> None:
    """Python loads the compiled module without compiling it, and tracebacks name the real file."""
    source = b"def f():\n    return f.__code__.co_filename\n" + more
    folder = await blobs.materialize(await bundle_of(blobs, {"pkg/mod.py": source}))
    program = "import sys; sys.path.insert(0, sys.argv[1]); import pkg.mod as m; print(m.f())"
    run = subprocess.run([sys.executable, "-v", "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(folder / "pkg/mod.py")
    assert "mod.cpython" in run.stderr
    assert "# code object from '" not in "".join(line for line in run.stderr.splitlines() if "pkg/mod.py" in line)


async def test_a_module_with_an_error_is_left_for_the_container(blobs: FolderBlobs) -> None:
    """A syntax error is the container's to show; the bundle is made all the same."""
    folder = await blobs.materialize(await bundle_of(blobs, {"bad.py": b"def (:\n", "good.py": b"x = 1\n"}))
    tag = sys.implementation.cache_tag
    assert all_files(folder) == [f"__pycache__/good.{tag}.pyc", "bad.py", "good.py"]


async def test_an_unchanged_module_is_compiled_once(blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload with one changed file compiles that file only."""
    await blobs.materialize(await bundle_of(blobs, {"a.py": b"x = 1\n", "b.py": b"y = 1\n"}))
    compiled: list[str] = []

    def spy(source: bytes, name: str) -> None:
        compiled.append(name)

    monkeypatch.setattr(blobs_module, "compile_module", spy)
    await blobs.materialize(await bundle_of(blobs, {"a.py": b"x = 2\n", "b.py": b"y = 1\n"}))
    assert compiled == ["a.py"]


async def test_collecting_keeps_what_is_needed_and_no_more(blobs: FolderBlobs, tmp_path: Path) -> None:
    """Contents, folders and bytecode of other bundles go, and so do the leftovers of a crash."""
    kept = await bundle_of(blobs, {"app.py": b"x = 1\n", "shared.txt": b"s"})
    gone = await bundle_of(blobs, {"old.py": b"x = 0\n", "shared.txt": b"s"})
    folder = await blobs.materialize(kept)
    await blobs.materialize(gone)
    (tmp_path / "blobs/.making-abc").write_bytes(b"half")
    before = all_files(folder)
    # old.py as content, as file and as bytecode in two places; shared.txt in the folder; and the leftover
    assert await blobs.collect([kept]) == 6
    assert all_files(folder) == before
    assert await blobs.missing([entry.digest for entry in (*kept.files, *gone.files)]) == [gone.files[0].digest]
    assert not (tmp_path / "bundles" / gone.digest).exists()
    assert await blobs.collect([kept]) == 0
