"""Brings a database's schema to the newest revision, in one transaction.

A new database gets all tables at once, and one that is up to date is left alone: neither needs Alembic, which takes
longer to import than the server takes to start.
"""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

from portico.model.naming import MAIN
from portico.store.check import check_revision
from portico.store.revisions import HEAD
from portico.store.schema import environments, metadata

MIGRATIONS = Path(__file__).parent / "migrations"
# As Alembic makes it, and in a collection of its own: Alembic must not take it for one of ours.
_stamp = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def bring_up_to_date(connection: Connection, path: Path) -> None:
    """Within the caller's transaction. StateError when the schema is not one that this version knows."""
    if not inspect(connection).get_table_names():
        metadata.create_all(connection)
        _stamp.metadata.create_all(connection)
        connection.execute(_stamp.insert().values(version_num=HEAD))
        connection.execute(environments.insert().values(name=MAIN, web_suffix="", created_at=time.time()))
        return
    known = inspect(connection).has_table(_stamp.name)
    revisions = list(connection.scalars(select(_stamp.c.version_num))) if known else []
    check_revision(revisions, path)
    if revisions != [HEAD]:
        upgrade(connection)


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations that are missing up to this revision."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, revision)
