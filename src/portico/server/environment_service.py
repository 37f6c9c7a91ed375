"""What the control API does with environments: changes of them move or stop the apps that are in them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from portico.model.errors import ConflictError, InvalidError
from portico.model.naming import MAIN
from portico.model.ports import AppRecord, EnvironmentRecord, Store
from portico.server.access import Access
from portico.server.admission import AdmissionControl
from portico.server.apps import Apps
from portico.server.environments import Environments
from portico.server.rollout import Rollouts
from portico.wire.control import EnvironmentChange, EnvironmentInfo


class EnvironmentControl:
    """Implements `api.services.EnvironmentService`. One change at a time."""

    def __init__(
        self,
        environments: Environments,
        *,
        store: Callable[[], Awaitable[Store]],
        apps: Apps,
        rollouts: Rollouts,
        access: Access,
        admission: AdmissionControl,
    ) -> None:
        self._environments = environments
        self._admission = admission
        self._store = store
        self._apps = apps
        self._rollouts = rollouts
        self._access = access
        self._changing = asyncio.Lock()

    async def environments(self) -> list[EnvironmentInfo]:
        """All of them, the oldest first."""
        return [await self._info(record) for record in await self._environments.all()]

    async def create_environment(self, name: str, web_suffix: str | None) -> EnvironmentInfo:
        """One more."""
        async with self._changing:
            return await self._info(await self._environments.create(name, web_suffix))

    async def change_environment(self, name: str, change: EnvironmentChange) -> EnvironmentInfo:
        """Another name or web suffix; returns when its deployed apps answer at their new URLs.

        Served apps get new URLs with their next reload; their environment cannot be renamed.
        """
        async with self._changing:
            served = self._served(name)
            if served and change.name not in (None, name):
                raise ConflictError(
                    f"{_named(served)} in the environment {name!r}.", hint="End it, and rename the environment then."
                )
            record = await self._environments.change(name, change.name, change.web_suffix)
            self._access.environment_changed(name, record.name)
            await self._admission.load()  # tokens and settings that name it go with it
            for app in await self._deployed(record.name):
                await self._rollouts.readdress(app, record)
            return await self._info(record)

    async def delete_environment(self, name: str, *, stop_apps: bool) -> None:
        """Forget it and what was deployed there."""
        async with self._changing:
            await self._environments.find(name)
            if name == MAIN:
                raise InvalidError(f"The environment {MAIN!r} is what everybody has by default; it cannot be deleted.")
            living = {app.id: app.name for app in await self._deployed(name)} | self._served(name)
            if living and not stop_apps:
                raise ConflictError(
                    f"{_named(living)} in the environment {name!r}.", hint="Stop what runs there first."
                )
            for app_id in living:
                await self._apps.stop_app(app_id, name)
            await self._environments.delete(name)
            self._access.environment_changed(name, None)
            await self._admission.load()  # what was about it alone is gone with it

    async def _info(self, record: EnvironmentRecord) -> EnvironmentInfo:
        return EnvironmentInfo(
            name=record.name,
            web_suffix=record.web_suffix,
            created_at=record.created_at,
            label=self._environments.source(record),
            apps=len(await self._deployed(record.name)) + len(self._served(record.name)),
        )

    async def _deployed(self, name: str) -> list[AppRecord]:
        return [app for app in await (await self._store()).apps(name) if app.stopped_at is None]

    def _served(self, name: str) -> dict[str, str]:
        apps = self._rollouts.ephemeral_apps.items()
        return {app_id: release.app_name for app_id, release in apps if release.environment == name}


def _named(apps: dict[str, str]) -> str:
    names = ", ".join(sorted(apps.values()))
    return f"The app {names} runs" if len(apps) == 1 else f"{len(apps)} apps run ({names})"
