"""The look at a database file before the server listens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from portico.model.errors import StateError
from portico.store.check import check_database
from portico.store.sql import open_store


def test_a_database_that_is_not_there_can_be_made(tmp_path: Path) -> None:
    """A first start has no file, and the check makes none."""
    check_database(tmp_path / "portico.db")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_can_become_the_database(tmp_path: Path) -> None:
    """A power cut right after the file was made leaves it empty; there is nothing in it to lose."""
    (tmp_path / "portico.db").touch()
    check_database(tmp_path / "portico.db")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The home itself is the server's to make."""
    with pytest.raises(StateError, match="nowhere"):
        check_database(tmp_path / "nowhere" / "portico.db")


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    """The error says what is in the way."""
    with pytest.raises(StateError, match="is a folder"):
        check_database(tmp_path)


def test_half_a_header_is_no_database(tmp_path: Path) -> None:
    """A file that begins like SQLite and ends too early is refused."""
    (tmp_path / "portico.db").write_bytes(b"SQLite fo")
    with pytest.raises(StateError, match="is not a database"):
        check_database(tmp_path / "portico.db")


async def test_a_truncated_database_is_damaged(tmp_path: Path) -> None:
    """Pages that the header counts and the file does not have are found."""
    path = tmp_path / "portico.db"
    await (await open_store(path)).close()
    os.truncate(path, path.stat().st_size - 4096)
    with pytest.raises(StateError, match="damaged"):
        check_database(path)


async def test_the_check_changes_no_byte(tmp_path: Path) -> None:
    """Not even of a database with a journal that a killed server left."""
    path, killed = tmp_path / "portico.db", tmp_path / "killed" / "portico.db"
    store = await open_store(path)
    killed.parent.mkdir()
    for name in ("portico.db", "portico.db-wal"):
        shutil.copy(tmp_path / name, killed.parent / name)
    await store.close()
    before = [file.read_bytes() for file in (killed, killed.with_name("portico.db-wal"))]
    check_database(killed)
    assert [file.read_bytes() for file in (killed, killed.with_name("portico.db-wal"))] == before


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users can reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        Path(name).chmod(0o700)


def says_as_another_user(path: Path) -> str:
    """What the check of `path` says to somebody who is not root."""
    near, far = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 65534)
            check_database(path)
        except StateError as error:
            os.write(far, f"{error} {error.hint}".encode())
        finally:
            os._exit(0)
    os.close(far)
    with open(near) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.parametrize("exists", [False, True])
def test_without_permission_it_says_what_is_needed(public_folder: Path, exists: bool) -> None:
    """Whether the file cannot be read or the folder not be written, the error names it and the way out."""
    path = public_folder / "portico.db"
    if exists:
        path.touch(mode=0o400)
    public_folder.chmod(0o555)
    said = says_as_another_user(path)
    assert str(path if exists else public_folder) in said
    assert "Permission denied" in said
    assert "PORTICO_HOME" in said


def test_the_check_loads_no_database_library() -> None:
    """The server makes it before it listens, so it must be quick to import."""
    program = (
        "import sys, portico.store.check; print([m for m in ('sqlalchemy', 'alembic', 'asyncio') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "sqlalchemy" not in run.stdout
    assert "alembic" not in run.stdout
