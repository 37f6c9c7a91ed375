"""The secrets that the server keeps, on the control plane's loop; the data path knows those that living apps name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from portico.core.secrets import check_kept
from portico.model.errors import NotFoundError
from portico.model.naming import check_object_name
from portico.model.ports import SecretRecord, Store
from portico.model.spec import AppSpec, SecretSpec
from portico.model.variables import check_secret
from portico.server.dataplane import Bridge, DataPlane
from portico.server.environments import Environments
from portico.wire.control import SecretInfo, SecretList, SecretRequest


class Secrets:
    """Keeps secrets, and has the data path know what they are."""

    def __init__(
        self,
        *,
        store: Callable[[], Awaitable[Store]],
        environments: Environments,
        data: DataPlane,
        bridge: Bridge,
    ) -> None:
        self._store = store
        self._environments = environments
        self._data = data
        self._bridge = bridge
        self._order = asyncio.Lock()  # what is read last is what the data path hears last

    async def secrets(self, environment: str) -> SecretList:
        """All of an environment, by name."""
        await self._environments.find(environment)
        store = await self._store()
        return SecretList([_info(record) for record in await store.secrets.all(environment)])

    async def write_secret(self, environment: str, name: str, request: SecretRequest) -> SecretInfo:
        """Keep it; containers that start from now on have it."""
        variables = check_secret(name, request.variables)
        await self._environments.find(environment)
        store = await self._store()
        now = time.time()
        record = SecretRecord(environment=environment, name=name, created_at=now, updated_at=now)
        async with self._order:
            await store.secrets.write(record, variables, replace=request.replace)
            await self._bridge.call(self._data.secret_changed, environment, name, variables)
        return _info(record)

    async def delete_secret(self, environment: str, name: str) -> None:
        """Forget it; containers that run keep what they have, and no new one starts."""
        check_object_name(name, "secret")
        await self._environments.find(environment)
        store = await self._store()
        async with self._order:
            if not await store.secrets.delete(environment, name):
                raise NotFoundError(
                    f"There is no secret {name!r} in the environment {environment!r}.",
                    hint="portico secret list shows those that there are.",
                )
            await self._bridge.call(self._data.secret_changed, environment, name, None)

    async def provide(self, spec: AppSpec, environment: str, *, all_there: bool) -> str:
        """Have the data path know the secrets that an app names. A mark of their present state: it changes with them.

        all_there: NotFoundError where there is none of a name, InvalidError where one lacks a required key.
        """
        marks = []
        store = await self._store()
        async with self._order:
            for secret in _named(spec):
                assert secret.name is not None
                place = secret.environment or environment
                found = await store.secrets.read(place, secret.name)
                variables = None if found is None else found[1]
                if all_there:
                    check_kept(secret, place, variables)
                if found is not None:
                    marks.append(f"{place}/{secret.name}@{found[0].updated_at!r}")
                await self._bridge.call(self._data.learn_secret, place, secret.name, variables)
        return " ".join(sorted(set(marks)))


def _named(spec: AppSpec) -> Iterable[SecretSpec]:
    return (secret for function in spec.functions for secret in function.secrets if secret.name is not None)


def _info(record: SecretRecord) -> SecretInfo:
    return SecretInfo(
        name=record.name,
        environment=record.environment,
        created_at=record.created_at,
        updated_at=record.updated_at,
    )
