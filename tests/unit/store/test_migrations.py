"""The schema, the migrations and the list of revisions say the same."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine

from portico.store.migrate import MIGRATIONS, bring_up_to_date, upgrade
from portico.store.revisions import HEAD, REVISIONS
from portico.store.schema import metadata


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path / 'portico.db'}")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def shape(path: Path) -> list[tuple[str, ...]]:
    """Tables, columns and indexes as SQLite has them."""
    with sqlite3.connect(path) as database:
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master ORDER BY name")]
        columns = [(name, *map(str, row)) for name in names for row in database.execute(f"PRAGMA table_info({name})")]
    database.close()
    return columns


def test_the_known_revisions_are_alembics() -> None:
    """The server trusts the constant, because reading the scripts takes too long at each start."""
    script = ScriptDirectory(str(MIGRATIONS))
    assert script.get_heads() == [HEAD]
    assert tuple(revision.revision for revision in script.walk_revisions())[::-1] == REVISIONS


def test_the_migrations_make_the_schema(connection: Connection) -> None:
    """What all migrations build from nothing is what schema.py says."""
    upgrade(connection)
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    assert compare_metadata(context, metadata) == []


def test_a_new_database_is_one_that_was_migrated(tmp_path: Path) -> None:
    """Both ways to a new schema end in the same columns, and at the same revision."""
    for name, make in (("made.db", lambda c: bring_up_to_date(c, tmp_path)), ("migrated.db", upgrade)):
        engine = create_engine(f"sqlite:///{tmp_path / name}")
        with engine.begin() as connection:
            make(connection)
            revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        engine.dispose()
        assert revision == HEAD
    assert shape(tmp_path / "made.db") == shape(tmp_path / "migrated.db")


def test_a_database_that_is_up_to_date_is_left_alone(connection: Connection, tmp_path: Path) -> None:
    """A second start changes nothing."""
    bring_up_to_date(connection, tmp_path)
    before = connection.exec_driver_sql("SELECT sql FROM sqlite_master").all()
    bring_up_to_date(connection, tmp_path)
    assert connection.exec_driver_sql("SELECT sql FROM sqlite_master").all() == before


def test_opening_a_database_loads_no_alembic(tmp_path: Path) -> None:
    """Neither the first start nor a later one pays for it."""
    program = (
        "import asyncio, sys; from pathlib import Path; from portico.store.sql import open_store\n"
        "async def main():\n"
        "    for _ in range(2): await (await open_store(Path(sys.argv[1]))).close()\n"
        "asyncio.run(main()); print('alembic' in sys.modules)"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "portico.db")]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "False\n"


def test_what_was_deployed_before_there_were_environments_is_in_main(connection: Connection) -> None:
    """The first schema's apps say "main", and after the migration that is an environment without a suffix."""
    upgrade(connection, "0001")
    connection.exec_driver_sql("INSERT INTO apps VALUES ('ap-1', 'seed', 'main', 1.0, NULL, 1)")
    upgrade(connection)
    found = connection.exec_driver_sql("SELECT e.web_suffix FROM apps a JOIN environments e ON e.name = a.environment")
    assert found.all() == [("",)]
