"""Looks at a database file before anything opens it for real. Light: the server does this before it listens."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from portico.model.errors import StateError
from portico.store.revisions import REVISIONS

_HEADER = b"SQLite format 3\x00"
_BUSY = 5.0  # seconds to wait for another process
_KEEP = "Move it away or restore a copy of it; Portico never overwrites it."


def check_database(path: Path) -> None:
    """StateError, which says what to do, when this file cannot be the database. A missing or empty one can be made.

    Changes no byte of the file.
    """
    if not path.exists():
        _check_folder(path.parent)
        return
    try:
        with open(path, "r+b") as file:
            header = file.read(len(_HEADER))
    except IsADirectoryError:
        raise StateError(f"{path} is a folder, not a database.", hint=_KEEP) from None
    except OSError as error:
        raise StateError(f"The database {path} cannot be opened: {error.strerror}.", hint=_permission(path)) from None
    if header and header != _HEADER:
        raise StateError(f"{path} is not a database.", hint=_KEEP)
    if header:
        _check_content(path)


def check_revision(revisions: list[str], path: Path) -> None:
    """StateError when the stored schema revisions are not ones that this version knows."""
    if len(revisions) != 1:
        raise StateError(f"{path} is a database, but not one of Portico's.", hint=_KEEP)
    if revisions[0] not in REVISIONS:
        raise StateError(
            f"The database {path} was written by a newer version of Portico (its schema is {revisions[0]!r}).",
            hint="Use that version or a later one, or choose another PORTICO_HOME.",
        )


def damaged(path: Path, cause: str) -> StateError:
    """The error for a database that cannot be read."""
    return StateError(f"The database {path} is damaged: {cause}.", hint=_KEEP)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise StateError(f"There is no folder {folder} for the database.")
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise StateError(f"No database can be made in {folder}: Permission denied.", hint=_permission(folder))


def _check_content(path: Path) -> None:
    # Read-only: the last writer to leave would copy the journal into a file that may be broken.
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY)) as database:
            verdict = database.execute("PRAGMA quick_check(1)").fetchone()
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            known = "alembic_version" in tables
            found = database.execute("SELECT version_num FROM alembic_version").fetchall() if known else []
    except sqlite3.OperationalError as error:
        raise StateError(f"The database {path} cannot be read: {error}.", hint=_KEEP) from None
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error)) from None
    if not verdict or verdict[0] != "ok":
        raise damaged(path, str(verdict[0]).splitlines()[-1] if verdict else "it cannot be checked")
    if tables:
        check_revision([row[0] for row in found], path)


def _permission(path: Path) -> str:
    return f"The user {os.geteuid()} needs read and write permission for {path}; or set PORTICO_HOME to another folder."
