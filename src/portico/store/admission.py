"""Proxy tokens and policies in the SQL database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from portico.model.policy import Policy, Scope, Setting
from portico.model.ports import ProxyTokenRecord
from portico.store.schema import policies, proxy_tokens

_names = msgspec.json.Decoder(tuple[str, ...])


class SqlAdmission:
    """Implements `model.ports.AdmissionStore`. `transaction` is the store's."""

    def __init__(self, transaction: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._transaction = transaction

    async def tokens(self) -> list[ProxyTokenRecord]:
        """All proxy tokens, the oldest first."""
        query = select(proxy_tokens).order_by(proxy_tokens.c.created_at, proxy_tokens.c.id)
        async with self._transaction() as connection:
            rows = [dict(row._mapping) for row in await connection.execute(query)]
        for row in rows:
            row |= {name: _names.decode(row[name]) for name in ("environments", "endpoints")}
        return [ProxyTokenRecord(**row) for row in rows]

    async def add_token(self, token: ProxyTokenRecord) -> None:
        """One more."""
        async with self._transaction() as connection:
            await connection.execute(
                proxy_tokens.insert().values(
                    id=token.id,
                    digest=token.digest,
                    created_at=token.created_at,
                    expires_at=token.expires_at,
                    last_used_at=token.last_used_at,
                    environments=_text(token.environments),
                    endpoints=_text(token.endpoints),
                    rate_limit=token.rate_limit,
                )
            )

    async def remove_token(self, token_id: str) -> bool:
        """Forget it; whether it was there."""
        async with self._transaction() as connection:
            return (await connection.execute(delete(proxy_tokens).where(proxy_tokens.c.id == token_id))).rowcount > 0

    async def used(self, times: Mapping[str, float]) -> None:
        """When tokens were last used."""
        async with self._transaction() as connection:
            for token_id, at in times.items():
                change = update(proxy_tokens).where(proxy_tokens.c.id == token_id)
                await connection.execute(change.values(last_used_at=at))

    async def policies(self) -> list[Policy]:
        """All settings, the widest scopes first."""
        query = select(policies).order_by(*policies.primary_key.columns)
        async with self._transaction() as connection:
            return [
                Policy(Scope(row.environment, row.app, row.function), Setting(row.setting), row.value)
                for row in await connection.execute(query)
            ]

    async def set_policy(self, scope: Scope, setting: Setting, value: str | None) -> None:
        """Set it, or with None have wider scopes decide."""
        key = {"environment": scope.environment, "app": scope.app, "function": scope.function, "setting": setting.value}
        async with self._transaction() as connection:
            await connection.execute(delete(policies).where(*(policies.c[name] == text for name, text in key.items())))
            if value is not None:
                await connection.execute(policies.insert().values(**key, value=value))


async def move_admission(connection: AsyncConnection, environment: str, target: str) -> None:
    """An environment has another name from now on: what names it goes with it."""
    await connection.execute(update(policies).where(policies.c.environment == environment).values(environment=target))
    for token_id, names in await _tokens_of(connection, environment):
        await _set_environments(connection, token_id, [target if name == environment else name for name in names])


async def forget_admission(connection: AsyncConnection, environment: str) -> None:
    """An environment is gone: so are its settings, and the tokens that are for it alone.

    Else they would hold again for the next environment that somebody gives this name.
    """
    await connection.execute(delete(policies).where(policies.c.environment == environment))
    for token_id, names in await _tokens_of(connection, environment):
        if others := [name for name in names if name != environment]:
            await _set_environments(connection, token_id, others)
        else:  # without any name it would be for all
            await connection.execute(delete(proxy_tokens).where(proxy_tokens.c.id == token_id))


async def _tokens_of(connection: AsyncConnection, environment: str) -> list[tuple[str, tuple[str, ...]]]:
    """The tokens that name an environment, and all that they name."""
    rows = await connection.execute(select(proxy_tokens.c.id, proxy_tokens.c.environments))
    found = [(row.id, _names.decode(row.environments)) for row in rows]
    return [(token_id, names) for token_id, names in found if environment in names]


async def _set_environments(connection: AsyncConnection, token_id: str, names: Iterable[str]) -> None:
    row = update(proxy_tokens).where(proxy_tokens.c.id == token_id)
    await connection.execute(row.values(environments=_text(tuple(names))))


def _text(names: tuple[str, ...]) -> str:
    return msgspec.json.encode(names).decode()
