"""What is known of apps, stored and ephemeral: their versions, states and logs. On the control plane's loop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable

from portico.model.errors import InvalidError, NotFoundError
from portico.model.ports import AppRecord, DeploymentRecord, Store
from portico.model.spec import AppSpec
from portico.server.dataplane import Bridge, DataPlane, Release
from portico.server.durable import DurableCalls
from portico.server.environments import Environments
from portico.server.logs import LogBook
from portico.server.rollout import Rollouts, stream
from portico.server.supervisor import Counts
from portico.wire.control import AppInfo, Event, FunctionInfo, History, LogLine, RollbackRequest, VersionInfo

_NONE = Counts(0, 0, 0, 0)


class Apps:
    """Answers about apps, and ends them."""

    def __init__(
        self,
        *,
        store: Callable[[], Awaitable[Store]],
        environments: Environments,
        rollouts: Rollouts,
        data: DataPlane,
        bridge: Bridge,
        logs: LogBook,
        calls: DurableCalls,
    ) -> None:
        self._store = store
        self._environments = environments
        self._rollouts = rollouts
        self._data = data
        self._bridge = bridge
        self._logs = logs
        self._calls = calls

    async def apps(self, environment: str) -> list[AppInfo]:
        """All apps of an environment, the newest first."""
        await self._environments.find(environment)
        store = await self._store()
        deployed = [await self._deployed_info(app) for app in await store.apps(environment)]
        ephemeral = [await self._ephemeral_info(*known) for known in self._ephemeral(environment)]
        return sorted([*deployed, *ephemeral], key=lambda app: app.created_at, reverse=True)

    async def app(self, ref: str, environment: str) -> AppInfo:
        """One app of an environment, by name or id; a living one before a stopped one."""
        await self._environments.find(environment)
        for app_id, release, created_at in self._ephemeral(environment):
            if ref == app_id or (ref == release.app_name and await self._living(ref, environment) is None):
                return await self._ephemeral_info(app_id, release, created_at)
        return await self._deployed_info(await self._record(ref, environment))

    async def stop_app(self, ref: str, environment: str) -> AppInfo:
        """Stop it for good; an ephemeral one ends for its `serve`, too."""
        info = await self.app(ref, environment)
        if info.state == "ephemeral":
            await self._bridge.call(self._data.stop, info.id)
            self._logs.app(info.id).end()
            return info
        async with self._rollouts.alone(environment, info.name):
            if (await self._record(info.id, environment)).stopped_at is not None:
                raise InvalidError(f"The app {info.name!r} is stopped already.")
            await (await self._store()).stop(info.id, time.time())
            self._rollouts.deployed.discard(info.id)
            self._rollouts.deployed_here.discard(info.id)
            await self._bridge.call(self._data.stop, info.id)
            self._calls.app_ended(info.id)
        self._logs.app(info.id).end()
        return await self._deployed_info(await self._record(info.id, environment))

    async def history(self, ref: str, environment: str) -> History:
        """Its versions, the newest first."""
        app = await self._record(ref, environment)
        return History(
            [
                VersionInfo(
                    version=deployment.version,
                    created_at=deployment.created_at,
                    current=deployment.version == app.current and app.stopped_at is None,
                    tag=deployment.tag,
                    rollback_of=deployment.rollback_of,
                    functions=[function.name for function in deployment.spec.functions],
                )
                for deployment in await (await self._store()).history(app.id)
            ]
        )

    def rollback(self, ref: str, request: RollbackRequest, environment: str) -> AsyncIterator[Event]:
        """Events until Deployed."""

        async def work(emit: Callable[[Event], None]) -> None:
            app = await self._record(ref, environment)
            if app.stopped_at is not None:
                raise InvalidError(f"The app {app.name!r} is stopped.", hint="Deploy it again.")
            history = await (await self._store()).history(app.id)
            await self._rollouts.redeploy(_target(history, app, request.version), environment, app.name, emit)

        return stream(work)

    async def logs(
        self, ref: str, environment: str, *, follow: bool, tail: int, function: str | None
    ) -> AsyncIterator[LogLine]:
        """The last lines, then, with `follow`, what comes until the app ends."""
        info = await self.app(ref, environment)
        log = self._logs.app(info.id)
        for line in log.tail(tail, function):
            yield line
        if follow and info.state != "stopped":
            async for line in log.follow(function):
                yield line

    # -- inside ---------------------------------------------------------------------------------------------------
    async def _living(self, name: str, environment: str) -> AppRecord | None:
        app = await (await self._store()).app(name, environment)
        return app if app is not None and app.stopped_at is None else None

    async def _record(self, ref: str, environment: str) -> AppRecord:
        await self._environments.find(environment)
        store = await self._store()
        app = await store.app(ref, environment)
        if app is None:
            records = await store.apps(environment)
            app = next((record for record in records if record.id == ref), None)
        if app is None:
            raise NotFoundError(
                f"There is no app {ref!r} in the environment {environment!r}.",
                hint="`portico app list` shows those that there are; --env names another environment.",
            )
        return app

    def _ephemeral(self, environment: str) -> list[tuple[str, Release, float]]:
        """Id, release and time of creation of those that live now; they may end while they are looked at."""
        created_at = self._rollouts.created_at
        return [
            (app_id, release, created_at[app_id])
            for app_id, release in self._rollouts.ephemeral_apps.items()
            if release.environment == environment
        ]

    async def _ephemeral_info(self, app_id: str, release: Release, created_at: float) -> AppInfo:
        return AppInfo(
            id=app_id,
            name=release.app_name,
            environment=release.environment,
            state="ephemeral",
            version=release.version,
            created_at=created_at,
            functions=await self._functions(app_id, release.spec, release.urls, release.environment),
        )

    async def _deployed_info(self, app: AppRecord) -> AppInfo:
        history = await (await self._store()).history(app.id)
        current = next((deployment for deployment in history if deployment.version == app.current), None)
        functions: list[FunctionInfo] = []
        if current is not None and app.stopped_at is None:
            environment = await self._environments.find(app.environment)
            urls = self._rollouts.urls(current.spec, environment)
            functions = await self._functions(app.id, current.spec, urls, app.environment)
        return AppInfo(
            id=app.id,
            name=app.name,
            environment=app.environment,
            state="deployed" if app.stopped_at is None else "stopped",
            version=app.current,
            created_at=app.created_at,
            stopped_at=app.stopped_at,
            functions=functions,
        )

    async def _functions(
        self, app_id: str, spec: AppSpec, urls: dict[str, str], environment: str
    ) -> list[FunctionInfo]:
        found = await self._rollouts.endpoints(app_id, spec, urls, environment)
        endpoints = {endpoint.function: endpoint for endpoint in found}
        counts = await self._bridge.run(self._data.counts(app_id))
        rows: list[FunctionInfo] = []

        def row(name: str, c: Counts) -> None:
            endpoint = endpoints.get(name)
            rows.append(
                FunctionInfo(
                    name=name,
                    url=None if endpoint is None else endpoint.url,
                    protected=endpoint is not None and endpoint.protected,
                    custom_urls=[] if endpoint is None else endpoint.custom_urls,
                    containers=c.ready,
                    running=c.running,
                    queued=c.queued,
                )
            )

        for function in spec.functions:
            row(function.name, counts.get(function.name, _NONE))
            for part in function.parts if function.cls is not None else ():  # its methods share what it has
                row(part.name, _NONE)
        return rows


def _target(history: list[DeploymentRecord], app: AppRecord, version: int | None) -> DeploymentRecord:
    """The version to go back to: the named one, or the one before the current."""
    older = [deployment for deployment in history if deployment.version < app.current]
    if version is None:
        if not older:
            raise InvalidError(f"The app {app.name!r} has no earlier version.")
        return max(older, key=lambda deployment: deployment.version)
    if version == app.current:
        raise InvalidError(f"Version {version} is the current one.")
    for deployment in history:
        if deployment.version == version:
            return deployment
    known = ", ".join(str(deployment.version) for deployment in history)
    raise NotFoundError(f"The app {app.name!r} has no version {version}.", hint=f"It has: {known}")
