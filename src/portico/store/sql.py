"""`SqlStore`: the deployed apps in an SQL database, SQLite here. SQLAlchemy's expressions only, so that another
database needs another URL and no other code; what is SQLite's own is in `open_store`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Row, Select, event, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from portico.model.errors import ConflictError, NotFoundError, StateError
from portico.model.ports import AppRecord, DeploymentRecord
from portico.store.admission import SqlAdmission
from portico.store.api_tokens import SqlApiTokens
from portico.store.calls import SqlCalls
from portico.store.check import check_database
from portico.store.domains import SqlDomains
from portico.store.environments import SqlEnvironments
from portico.store.migrate import bring_up_to_date
from portico.store.schema import apps, deployments, proofs
from portico.store.secrets import SqlSecrets
from portico.store.vault import KEY_FILE, Vault, open_vault
from portico.wire import spec as wire

# secure_delete: what is deleted or replaced is overwritten, too
_PRAGMAS = (
    *("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000", "foreign_keys = ON"),
    "secure_delete = ON",
)
_DOCUMENT, _DIGEST = ("deployments", "document"), ("deployments", "digest")
_PROOF_OF = ("proofs", "sealed")
_PROOF = "This entry opens with the key that the others were sealed with."


async def open_store(path: Path, secret_key: str | None = None) -> SqlStore:
    """The store in this SQLite file, made or brought up to date as needed; StateError when it cannot be used.

    What apps and secrets are is sealed with `secret_key` (base64) or, without one, with the key in the file beside.
    """
    await asyncio.to_thread(check_database, path)
    with suppress(FileExistsError):  # made here, so that nobody else can read it from its first moment on
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    # One connection: SQLite has one writer at a time, and waiting here is fairer than its busy handler.
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path.absolute())), pool_size=1, max_overflow=0
    )
    event.listen(engine.sync_engine, "connect", _set_up)
    event.listen(engine.sync_engine, "begin", _begin)
    try:
        async with _transaction(engine, path) as connection:
            await connection.run_sync(bring_up_to_date, path)
            vault = await connection.run_sync(_unlock, path, secret_key)
            await connection.run_sync(_seal_what_is_clear, vault)
    except BaseException:
        await engine.dispose()
        raise
    return SqlStore(engine, path, vault)


class SqlStore:
    """Implements `model.ports.Store`. Belongs to one event loop."""

    def __init__(self, engine: AsyncEngine, path: Path, vault: Vault) -> None:
        self._engine = engine
        self._path = path
        self._vault = vault
        self.environments = SqlEnvironments(self.transaction, vault)
        self.api_tokens = SqlApiTokens(self.transaction)
        self.calls = SqlCalls(self.transaction)
        self.secrets = SqlSecrets(self.transaction, vault)
        self.admission = SqlAdmission(self.transaction)
        self.domains = SqlDomains(self.transaction)

    def __repr__(self) -> str:
        return f"<SqlStore {self._path}>"

    async def apps(self, environment: str) -> list[AppRecord]:
        """All apps, the newest first; stopped ones too."""
        return [_app(row) for row in await self._rows(_newest_apps(environment))]

    async def app(self, name: str, environment: str) -> AppRecord | None:
        """The newest app of this name, living or stopped."""
        rows = await self._rows(_newest_apps(environment).where(apps.c.name == name).limit(1))
        return _app(rows[0]) if rows else None

    async def history(self, app_id: str) -> list[DeploymentRecord]:
        """All its versions, the newest first; InvalidError when one was written by another version of Portico."""
        query = select(deployments).where(deployments.c.app_id == app_id).order_by(deployments.c.version.desc())
        return [_deployment(row, self._vault) for row in await self._rows(query)]

    async def record(self, *, app: AppRecord, deployment: DeploymentRecord) -> None:
        """Store a new version and make it the current one; stores the app too when it is new.

        ConflictError when the app was stopped or has this version already; nothing is changed then.
        """
        async with self.transaction() as connection:
            await _upsert_app(connection, app, current=deployment.version)
            try:
                await connection.execute(deployments.insert().values(**_deployment_values(deployment, self._vault)))
            except IntegrityError:
                raise ConflictError(f"App {app.name} has a version {deployment.version} already.") from None

    async def stop(self, app_id: str, now: float) -> None:
        """Mark the app as stopped, for good; NotFoundError when there is none. A stopped one stays as it is."""
        living = (apps.c.id == app_id) & apps.c.stopped_at.is_(None)
        async with self.transaction() as connection:
            changed = await connection.execute(update(apps).where(living).values(stopped_at=now))
            if not changed.rowcount and (await connection.scalar(select(apps.c.id).where(apps.c.id == app_id))) is None:
                raise NotFoundError(f"There is no app {app_id}.")

    async def close(self) -> None:
        """Let go of the database."""
        await self._engine.dispose()

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction: all of it is on disk when the block ends, none of it when the block raises.

        The database's own failures become StateError.
        """
        return _transaction(self._engine, self._path)

    async def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        async with self.transaction() as connection:
            return list(await connection.execute(query))


@asynccontextmanager
async def _transaction(engine: AsyncEngine, path: Path) -> AsyncIterator[AsyncConnection]:
    try:
        async with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        raise StateError(
            f"The database {path} could not be used: {error.orig}.",
            hint="Is the disk full, or was the file changed by something else?",
        ) from error


async def _upsert_app(connection: AsyncConnection, app: AppRecord, *, current: int) -> None:
    # The update comes first: it takes SQLite's write lock at once, where a read that turns into a write may fail.
    living = (apps.c.id == app.id) & apps.c.stopped_at.is_(None)
    changed = await connection.execute(update(apps).where(living).values(current=current))
    if changed.rowcount:
        return
    try:
        await connection.execute(
            apps.insert().values(
                id=app.id,
                name=app.name,
                environment=app.environment,
                created_at=app.created_at,
                stopped_at=app.stopped_at,
                current=current,
            )
        )
    except IntegrityError:
        raise ConflictError(f"App {app.name} ({app.id}) was stopped; a stopped app stays so.") from None


def _newest_apps(environment: str) -> Select[Any]:
    return select(apps).where(apps.c.environment == environment).order_by(apps.c.created_at.desc(), apps.c.id.desc())


def _app(row: Row[Any]) -> AppRecord:
    return AppRecord(**row._mapping)


def _deployment(row: Row[Any], vault: Vault) -> DeploymentRecord:
    values = dict(row._mapping)
    of = (values["app_id"], str(values["version"]))
    values["digest"] = vault.open(values["digest"], *_DIGEST, *of)
    spec, bundle = wire.decode(vault.open(values.pop("document"), *_DOCUMENT, *of).encode())
    return DeploymentRecord(**values, spec=spec, bundle=bundle)


def _deployment_values(deployment: DeploymentRecord, vault: Vault) -> dict[str, Any]:
    of = (deployment.app_id, str(deployment.version))
    document = wire.encode(deployment.spec, deployment.bundle).decode()
    return {
        "app_id": deployment.app_id,
        "version": deployment.version,
        "created_at": deployment.created_at,
        "document": vault.seal(document, *_DOCUMENT, *of),
        "digest": vault.seal(deployment.digest, *_DIGEST, *of),
        "tag": deployment.tag,
        "rollback_of": deployment.rollback_of,
    }


def _unlock(connection: Connection, path: Path, secret_key: str | None) -> Vault:
    """The vault, after a look at whether it has the key that the database was sealed with."""
    proof = connection.scalar(select(proofs.c.sealed))
    vault = open_vault(path.parent, secret_key, make=proof is None)
    if proof is None:
        connection.execute(proofs.insert().values(id=1, sealed=vault.seal(_PROOF, *_PROOF_OF)))
        return vault
    try:
        vault.open(proof, *_PROOF_OF)
    except StateError:
        raise StateError(
            f"The database {path} was sealed with another secret key than the one that this server has.",
            hint=f"Put that key back: {path.parent / KEY_FILE}, or PORTICO_SECRET_KEY.",
        ) from None
    return vault


def _seal_what_is_clear(connection: Connection, vault: Vault) -> None:
    """Versions that were stored before there was a key. A document is a JSON object; what is sealed has no brace."""
    query = select(deployments).where(deployments.c.document.startswith("{"))
    for row in list(connection.execute(query)):
        of = (row.app_id, str(row.version))
        change = update(deployments).where(
            (deployments.c.app_id == row.app_id) & (deployments.c.version == row.version)
        )
        sealed = vault.seal(row.document, *_DOCUMENT, *of)
        connection.execute(change.values(document=sealed, digest=vault.seal(row.digest, *_DIGEST, *of)))


def _set_up(raw: Any, _record: object) -> None:
    raw.isolation_level = None  # the driver begins nothing by itself; `_begin` does, so that DDL is in it too
    cursor = raw.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
