"""Doubles of the services behind the control API, for tests: they keep in memory what they are asked for."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from portico.model.errors import InvalidError, NotFoundError
from portico.model.naming import auto_label
from portico.model.spec import AppSpec, Bundle
from portico.wire.control import (
    AppInfo,
    Created,
    Deployed,
    DeployRequest,
    EndpointInfo,
    EphemeralRequest,
    Event,
    FunctionInfo,
    History,
    LogLine,
    RollbackRequest,
    ServerInfo,
    VersionInfo,
)


@dataclass
class FakeServices:
    """All four services in one object.

    calls: what was asked, as words. lines: what logs and ephemeral apps say, after which they wait. fail: raised by
    the next deploy, reload or rollback. closed: set when a stream that waited has been closed.
    """

    info_document: ServerInfo
    calls: list[str] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    living: dict[str, AppInfo] = field(default_factory=dict)
    lines: list[LogLine] = field(default_factory=list)
    before_deployed: list[Event] = field(default_factory=list)
    fail: Exception | None = None
    closed: threading.Event = field(default_factory=threading.Event)
    stopped: dict[str, asyncio.Event] = field(default_factory=dict)
    on_stop: Callable[[], None] = lambda: None

    # -- ServerService ---------------------------------------------------------------------------------------
    def info(self) -> ServerInfo:
        return self.info_document

    def stop(self) -> None:
        self.calls.append("stop server")
        self.on_stop()

    # -- Blobs -----------------------------------------------------------------------------------------------
    async def missing(self, digests: Sequence[str]) -> list[str]:
        return [digest for digest in digests if digest not in self.stored]

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        data = b"".join([chunk async for chunk in chunks])
        if hashlib.sha256(data).hexdigest() != digest:
            raise InvalidError("The content is not what its digest says.")
        self.calls.append("put")
        self.stored[digest] = data

    async def materialize(self, bundle: Bundle) -> Path:
        raise NotFoundError("Nothing is kept in files here.")

    async def collect(self, keep: Sequence[Bundle]) -> int:
        return 0

    # -- AppService ------------------------------------------------------------------------------------------
    async def apps(self) -> list[AppInfo]:
        return list(self.living.values())

    async def app(self, ref: str) -> AppInfo:
        for app in self.living.values():
            if ref in (app.name, app.id):
                return app
        raise NotFoundError(f"No app {ref!r}.", hint="See `portico app list`.")

    async def stop_app(self, ref: str) -> AppInfo:
        app = await self.app(ref)
        self.calls.append(f"stop {app.name}")
        if app.id in self.stopped:
            self.stopped[app.id].set()
        return self.living.pop(app.id)

    async def history(self, ref: str) -> History:
        app = await self.app(ref)
        return History([VersionInfo(version=app.version, created_at=app.created_at, current=True)])

    async def rollback(self, ref: str, request: RollbackRequest) -> AsyncIterator[Event]:
        app = await self.app(ref)
        self._raise()
        self.calls.append(f"rollback {app.name} to {request.version}")
        yield Deployed(app_id=app.id, app=app.name, version=app.version + 1, endpoints=[])

    async def logs(self, ref: str, *, follow: bool, tail: int, function: str | None) -> AsyncIterator[LogLine]:
        await self.app(ref)
        chosen = [line for line in self.lines if function in (None, line.function)]
        for line in chosen[len(chosen) - min(tail, len(chosen)) :]:
            yield line
        if follow:
            await self._wait(asyncio.Event())

    # -- DeployService ---------------------------------------------------------------------------------------
    async def deploy(self, request: DeployRequest) -> AsyncIterator[Event]:
        for event in self.before_deployed:
            yield event
        self._raise()
        self.calls.append("deploy")
        yield self._deployed(request.name or request.spec.name or "", request.spec, "deployed")

    async def ephemeral(self, request: EphemeralRequest) -> AsyncIterator[Event]:
        self._raise()
        app = self._deployed(request.name or request.spec.name or "served", request.spec, "ephemeral")
        try:
            yield Created(app_id=app.app_id, app=app.app, endpoints=app.endpoints)
            for line in self.lines:
                yield line
            self.stopped[app.app_id] = asyncio.Event()
            await self._wait(self.stopped[app.app_id])
        finally:
            self.living.pop(app.app_id, None)

    def hold(self, app_id: str) -> None:
        self.calls.append("hold")

    def release(self, app_id: str) -> None:
        self.calls.append("release")

    async def reload(self, app_id: str, request: DeployRequest) -> AsyncIterator[Event]:
        self._raise()
        self.calls.append("reload")
        yield self._deployed(self.living[app_id].name, request.spec, "ephemeral")

    def _deployed(self, name: str, spec: AppSpec, state: str) -> Deployed:
        known = [app for app in self.living.values() if app.name == name and app.state == state]
        version = known[0].version + 1 if known else 1
        app_id = known[0].id if known else f"ap-{len(self.living):022}"
        endpoints = [self._endpoint(name, function.name, state) for function in spec.web_functions]
        self.living[app_id] = AppInfo(
            id=app_id,
            name=name,
            environment="main",
            state=state,
            version=version,
            created_at=time.time(),
            functions=[FunctionInfo(name=endpoint.function, url=endpoint.url) for endpoint in endpoints],
        )
        return Deployed(app_id=app_id, app=name, version=version, endpoints=endpoints, seconds=0.5)

    def _endpoint(self, app: str, function: str, state: str) -> EndpointInfo:
        suffix = "-dev" if state == "ephemeral" else ""
        label = f"{self.info_document.workspace}--{auto_label(app, function)}{suffix}"
        return EndpointInfo(function=function, url=self.info_document.url.format(label=label))

    def _raise(self) -> None:
        if self.fail is not None:
            error, self.fail = self.fail, None
            raise error

    async def _wait(self, event: asyncio.Event) -> None:
        try:
            await event.wait()
        finally:
            self.closed.set()
