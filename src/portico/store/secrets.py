"""The secrets in the SQL database: their values sealed, all else in clear."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec
from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from portico.model.errors import ConflictError
from portico.model.ports import SecretRecord
from portico.store.schema import secrets
from portico.store.vault import Vault

_variables = msgspec.json.Decoder(dict[str, str])


class SqlSecrets:
    """Implements `model.ports.SecretStore`. `transaction` is the store's."""

    def __init__(self, transaction: Callable[[], AbstractAsyncContextManager[AsyncConnection]], vault: Vault) -> None:
        self._transaction = transaction
        self._vault = vault

    async def all(self, environment: str) -> list[SecretRecord]:
        """All of an environment, by name."""
        columns = (secrets.c.environment, secrets.c.name, secrets.c.created_at, secrets.c.updated_at)
        query = select(*columns).where(secrets.c.environment == environment).order_by(secrets.c.name)
        async with self._transaction() as connection:
            return [SecretRecord(**row._mapping) for row in await connection.execute(query)]

    async def read(self, environment: str, name: str) -> tuple[SecretRecord, dict[str, str]] | None:
        """It and its variables; None when there is none of this name."""
        async with self._transaction() as connection:
            row = (await connection.execute(select(secrets).where(_is(environment, name)))).one_or_none()
        if row is None:
            return None
        values = dict(row._mapping)
        variables = _variables.decode(self._vault.open(values.pop("variables"), *_identity(environment, name)))
        return SecretRecord(**values), variables

    async def write(self, secret: SecretRecord, variables: dict[str, str], *, replace: bool) -> None:
        """Keep it; one that is there keeps its time of creation. ConflictError when it is there, unless `replace`."""
        text = msgspec.json.encode(variables).decode()
        sealed = self._vault.seal(text, *_identity(secret.environment, secret.name))
        there = _is(secret.environment, secret.name)
        async with self._transaction() as connection:
            if replace:
                change = update(secrets).where(there).values(variables=sealed, updated_at=secret.updated_at)
                if (await connection.execute(change)).rowcount:
                    return
            try:
                await connection.execute(
                    secrets.insert().values(
                        environment=secret.environment,
                        name=secret.name,
                        created_at=secret.created_at,
                        updated_at=secret.updated_at,
                        variables=sealed,
                    )
                )
            except IntegrityError:
                raise ConflictError(
                    f"There is a secret {secret.name!r} already, in the environment {secret.environment!r}.",
                    hint="Replace it, with all its variables, with --force.",
                ) from None

    async def delete(self, environment: str, name: str) -> bool:
        """Forget it; whether it was there."""
        async with self._transaction() as connection:
            return (await connection.execute(delete(secrets).where(_is(environment, name)))).rowcount > 0


async def move_secrets(connection: AsyncConnection, vault: Vault, environment: str, target: str) -> None:
    """Seal the secrets of an environment anew, for the name that it has from now on."""
    if environment == target:
        return
    for row in list(await connection.execute(select(secrets).where(secrets.c.environment == environment))):
        text = vault.open(row.variables, *_identity(environment, row.name))
        change = update(secrets).where(_is(environment, row.name))
        sealed = vault.seal(text, *_identity(target, row.name))
        await connection.execute(change.values(environment=target, variables=sealed))


def _is(environment: str, name: str) -> ColumnElement[bool]:
    return (secrets.c.environment == environment) & (secrets.c.name == name)


def _identity(environment: str, name: str) -> tuple[str, ...]:
    return ("secrets", "variables", environment, name)
