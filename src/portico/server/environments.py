"""The environments, as the control plane knows them: each name, and the web suffix that is in its URLs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from portico.model.errors import InvalidError, NotFoundError
from portico.model.naming import MAIN, check_environment, check_web_suffix, source_of, web_suffix_from
from portico.model.ports import EnvironmentRecord, Store


class Environments:
    """All changes of environments pass through here, so what was read once stays true."""

    def __init__(self, workspace: str, store: Callable[[], Awaitable[Store]]) -> None:
        self._workspace = workspace
        self._store = store
        self._known: dict[str, EnvironmentRecord] | None = None

    async def all(self) -> list[EnvironmentRecord]:
        """All of them, the oldest first."""
        return list((await self._load()).values())

    async def find(self, name: str) -> EnvironmentRecord:
        """The one of this name, or NotFoundError that says how to make it."""
        found = (await self._load()).get(name)
        if found is None:
            raise NotFoundError(
                f"There is no environment {name!r}.",
                hint=f"Make it with `portico environment create {name}`; `portico environment list` shows all.",
            )
        return found

    def source(self, environment: EnvironmentRecord) -> str:
        """What each of its labels begins with."""
        return source_of(self._workspace, environment.web_suffix)

    async def create(self, name: str, web_suffix: str | None) -> EnvironmentRecord:
        """One more; without a web suffix, its name is made into one."""
        check_environment(name)
        suffix = web_suffix_from(name) if web_suffix is None else check_web_suffix(web_suffix)
        record = EnvironmentRecord(name=name, web_suffix=suffix, created_at=time.time())
        known = await self._load()
        await (await self._store()).environments.create(record)
        known[name] = record
        return record

    async def change(self, name: str, new_name: str | None, web_suffix: str | None) -> EnvironmentRecord:
        """Another name, another web suffix, or both."""
        before = await self.find(name)
        if new_name not in (None, name) and name == MAIN:
            raise InvalidError(f"The environment {MAIN!r} is what everybody has by default; it keeps its name.")
        after = replace(
            before,
            name=name if new_name is None else check_environment(new_name),
            web_suffix=before.web_suffix if web_suffix is None else check_web_suffix(web_suffix),
        )
        await (await self._store()).environments.change(name, after)
        known = await self._load()
        self._known = {r.name: r for r in (after if r.name == name else r for r in known.values())}
        return after

    async def delete(self, name: str) -> None:
        """Forget one in which nothing lives."""
        await (await self._store()).environments.delete(name)
        (await self._load()).pop(name, None)

    async def _load(self) -> dict[str, EnvironmentRecord]:
        if self._known is None:
            found = await (await self._store()).environments.all()
            self._known = self._known or {record.name: record for record in found}
        return self._known
