"""Custom domains in the SQL database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from portico.model.errors import ConflictError
from portico.model.ports import DomainRecord
from portico.store.schema import domains


class SqlDomains:
    """Implements `model.ports.DomainStore`. `transaction` is the store's."""

    def __init__(self, transaction: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._transaction = transaction

    async def all(self) -> list[DomainRecord]:
        """All of them, by name."""
        async with self._transaction() as connection:
            rows = await connection.execute(select(domains).order_by(domains.c.name))
            return [DomainRecord(**row._mapping) for row in rows]

    async def add(self, domain: DomainRecord) -> None:
        """One more; ConflictError when it is there."""
        async with self._transaction() as connection:
            try:
                await connection.execute(domains.insert().values(**asdict(domain)))
            except IntegrityError:
                raise ConflictError(f"The domain {domain.name} is registered already.") from None

    async def remove(self, name: str) -> bool:
        """Forget it; whether it was there."""
        async with self._transaction() as connection:
            return (await connection.execute(delete(domains).where(domains.c.name == name))).rowcount > 0

    async def set_certificate(self, name: str, state: str, detail: str | None, at: float) -> None:
        """The last news of a certificate for it."""
        change = update(domains).where(domains.c.name == name)
        async with self._transaction() as connection:
            await connection.execute(
                change.values(certificate_state=state, certificate_detail=detail, certificate_at=at)
            )
