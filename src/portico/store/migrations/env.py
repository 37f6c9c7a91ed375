"""Alembic runs this for each command. The connection and its transaction are the caller's: see `store/migrate.py`."""

from __future__ import annotations

from alembic import context

from portico.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter most of a table in place
    transactional_ddl=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
