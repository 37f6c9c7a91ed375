"""The environments in the SQL database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from portico.model.errors import ConflictError, NotFoundError
from portico.model.ports import EnvironmentRecord
from portico.store.admission import forget_admission, move_admission
from portico.store.schema import api_tokens, apps, deployments, environments, secrets
from portico.store.secrets import move_secrets
from portico.store.vault import Vault


class SqlEnvironments:
    """Implements `model.ports.EnvironmentStore`. `transaction` is the store's."""

    def __init__(self, transaction: Callable[[], AbstractAsyncContextManager[AsyncConnection]], vault: Vault) -> None:
        self._transaction = transaction
        self._vault = vault

    async def all(self) -> list[EnvironmentRecord]:
        """All of them, the oldest first."""
        query = select(environments).order_by(environments.c.created_at, environments.c.name)
        async with self._transaction() as connection:
            return [EnvironmentRecord(**row._mapping) for row in await connection.execute(query)]

    async def create(self, environment: EnvironmentRecord) -> None:
        """One more; ConflictError when its name or its web suffix is taken."""
        async with self._transaction() as connection:
            try:
                await connection.execute(environments.insert().values(**_values(environment)))
            except IntegrityError:
                raise await _taken(connection, environment) from None

    async def change(self, name: str, environment: EnvironmentRecord) -> None:
        """Give one another name or web suffix; its apps and secrets go with it."""
        async with self._transaction() as connection:
            row = update(environments).where(environments.c.name == name)
            try:
                changed = await connection.execute(row.values(**_values(environment)))
            except IntegrityError:
                raise await _taken(connection, environment) from None
            if not changed.rowcount:
                raise NotFoundError(f"There is no environment {name!r}.")
            for table in (apps, api_tokens):
                moved = update(table).where(table.c.environment == name)
                await connection.execute(moved.values(environment=environment.name))
            await move_secrets(connection, self._vault, name, environment.name)
            await move_admission(connection, name, environment.name)

    async def delete(self, name: str) -> None:
        """Forget one and what has been deployed there; ConflictError while an app lives there."""
        inside = apps.c.environment == name
        async with self._transaction() as connection:
            found = await connection.execute(delete(environments).where(environments.c.name == name))
            if not found.rowcount:
                raise NotFoundError(f"There is no environment {name!r}.")
            living = await connection.scalar(select(apps.c.name).where(inside & apps.c.stopped_at.is_(None)).limit(1))
            if living is not None:
                raise ConflictError(f"The app {living!r} lives in the environment {name!r}.")
            gone = select(apps.c.id).where(inside).scalar_subquery()
            await connection.execute(delete(deployments).where(deployments.c.app_id.in_(gone)))
            await connection.execute(delete(apps).where(inside))
            await connection.execute(delete(api_tokens).where(api_tokens.c.environment == name))
            await connection.execute(delete(secrets).where(secrets.c.environment == name))
            await forget_admission(connection, name)


async def _taken(connection: AsyncConnection, environment: EnvironmentRecord) -> ConflictError:
    query = select(environments.c.name).where(environments.c.web_suffix == environment.web_suffix)
    holder = await connection.scalar(query)
    if holder is None or holder == environment.name:
        return ConflictError(f"There is an environment {environment.name!r} already.")
    return ConflictError(
        f"The environment {holder!r} has the web suffix {environment.web_suffix!r} already.",
        hint="Choose another one with --web-suffix or --set-web-suffix.",
    )


def _values(environment: EnvironmentRecord) -> dict[str, object]:
    return {
        "name": environment.name,
        "web_suffix": environment.web_suffix,
        "created_at": environment.created_at,
    }
