"""The tokens of the control API in the SQL database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from portico.model.ports import ApiToken
from portico.store.schema import api_tokens


class SqlApiTokens:
    """Implements `model.ports.ApiTokenStore`. `transaction` is the store's."""

    def __init__(self, transaction: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._transaction = transaction

    async def all(self) -> list[ApiToken]:
        """All that have not been revoked, the oldest first."""
        query = select(api_tokens).order_by(api_tokens.c.created_at, api_tokens.c.id)
        async with self._transaction() as connection:
            return [ApiToken(**row._mapping) for row in await connection.execute(query)]

    async def create(self, token: ApiToken) -> None:
        """One more."""
        async with self._transaction() as connection:
            await connection.execute(api_tokens.insert().values(**asdict(token)))

    async def used(self, token_id: str, at: float) -> None:
        """Remember when it was used last."""
        async with self._transaction() as connection:
            await connection.execute(update(api_tokens).where(api_tokens.c.id == token_id).values(last_used_at=at))

    async def delete(self, token_id: str) -> None:
        """Forget it."""
        async with self._transaction() as connection:
            await connection.execute(delete(api_tokens).where(api_tokens.c.id == token_id))
