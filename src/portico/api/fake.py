"""Doubles of the services behind the control API, for tests: they keep in memory what they are asked for."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from portico.model.errors import AuthError, ConflictError, InvalidError, NotFoundError
from portico.model.naming import auto_label
from portico.model.spec import AppSpec, Bundle
from portico.wire.control import (
    AppInfo,
    Created,
    Deployed,
    DeployRequest,
    DnsRecord,
    DomainCheck,
    DomainInfo,
    DomainList,
    EndpointInfo,
    EnvironmentChange,
    EnvironmentInfo,
    EphemeralRequest,
    Event,
    FunctionInfo,
    History,
    LogLine,
    NewProxyToken,
    NewToken,
    ProxyTokenInfo,
    ProxyTokenList,
    ProxyTokenRequest,
    RollbackRequest,
    SecretInfo,
    SecretList,
    SecretRequest,
    ServerInfo,
    SettingInfo,
    SettingList,
    TokenInfo,
    TokenSecret,
    VersionInfo,
)


def _place(name: str, web_suffix: str) -> EnvironmentInfo:
    label = f"acme-{web_suffix}".removesuffix("-")
    return EnvironmentInfo(name=name, web_suffix=web_suffix, created_at=0.0, label=label)


@dataclass
class FakeServices:
    """All nine services in one object.

    calls: what was asked, as words. lines: what logs and ephemeral apps say, after which they wait. fail: raised by
    the next deploy, reload or rollback. closed: set when a stream that waited has been closed.
    """

    info_document: ServerInfo
    calls: list[str] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    living: dict[str, AppInfo] = field(default_factory=dict)
    lines: list[LogLine] = field(default_factory=list)
    before_deployed: list[Event] = field(default_factory=list)
    places: dict[str, EnvironmentInfo] = field(default_factory=lambda: {"main": _place("main", "")})
    kept: dict[tuple[str, str], tuple[SecretInfo, dict[str, str]]] = field(default_factory=dict)
    set: dict[tuple[str | None, ...], SettingInfo] = field(default_factory=dict)
    proxies: dict[str, ProxyTokenInfo] = field(default_factory=dict)
    named: dict[str, DomainInfo] = field(default_factory=dict)
    issued: dict[str, TokenInfo] = field(default_factory=dict)
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
    async def apps(self, environment: str) -> list[AppInfo]:
        self._find(environment)
        return [app for app in self.living.values() if app.environment == environment]

    async def app(self, ref: str, environment: str) -> AppInfo:
        for app in await self.apps(environment):
            if ref in (app.name, app.id):
                return app
        raise NotFoundError(f"No app {ref!r}.", hint="See `portico app list`.")

    async def stop_app(self, ref: str, environment: str) -> AppInfo:
        app = await self.app(ref, environment)
        self.calls.append(f"stop {app.name}")
        if app.id in self.stopped:
            self.stopped[app.id].set()
        return self.living.pop(app.id)

    async def history(self, ref: str, environment: str) -> History:
        app = await self.app(ref, environment)
        return History([VersionInfo(version=app.version, created_at=app.created_at, current=True)])

    async def rollback(self, ref: str, request: RollbackRequest, environment: str) -> AsyncIterator[Event]:
        app = await self.app(ref, environment)
        self._raise()
        self.calls.append(f"rollback {app.name} to {request.version}")
        yield Deployed(app_id=app.id, app=app.name, version=app.version + 1, endpoints=[])

    async def logs(
        self, ref: str, environment: str, *, follow: bool, tail: int, function: str | None
    ) -> AsyncIterator[LogLine]:
        await self.app(ref, environment)
        chosen = [line for line in self.lines if function in (None, line.function)]
        for line in chosen[len(chosen) - min(tail, len(chosen)) :]:
            yield line
        if follow:
            await self._wait(asyncio.Event())

    # -- SecretService ---------------------------------------------------------------------------------------
    async def secrets(self, environment: str) -> SecretList:
        self._find(environment)
        return SecretList([info for info, _ in self.kept.values() if info.environment == environment])

    async def write_secret(self, environment: str, name: str, request: SecretRequest) -> SecretInfo:
        self._find(environment)
        if (environment, name) in self.kept and not request.replace:
            raise ConflictError(f"There is a secret {name!r}.", hint="--force")
        info = SecretInfo(name=name, environment=environment, created_at=0.0, updated_at=0.0)
        self.kept[environment, name] = (info, request.variables)
        return info

    async def delete_secret(self, environment: str, name: str) -> None:
        if self.kept.pop((environment, name), None) is None:
            raise NotFoundError(f"No secret {name!r}.")

    # -- AdmissionService ---------------------------------------------------------------------------------------
    async def settings(self) -> SettingList:
        return SettingList(list(self.set.values()), {})

    async def change_setting(self, change: SettingInfo) -> SettingList:
        key = (change.setting, change.environment, change.app, change.function)
        self.set.pop(key, None)
        if change.value is not None:
            self.set[key] = change
        return await self.settings()

    async def proxy_tokens(self) -> ProxyTokenList:
        return ProxyTokenList(list(self.proxies.values()))

    async def create_proxy_token(self, request: ProxyTokenRequest) -> NewProxyToken:
        new = NewProxyToken(id=f"wk-{len(self.proxies):022}", secret=f"ws-{0:022}")
        self.proxies[new.id] = ProxyTokenInfo(id=new.id, created_at=0.0, environments=request.environments)
        return new

    async def revoke_proxy_token(self, token_id: str) -> None:
        if self.proxies.pop(token_id, None) is None:
            raise NotFoundError(f"No token {token_id!r}.")

    # -- DomainService ---------------------------------------------------------------------------------------
    async def domains(self) -> DomainList:
        return DomainList(list(self.named.values()))

    async def add_domain(self, text: str, token: str | None) -> DomainInfo:
        by = "jo" if token is None else f"token {token}"
        return self.named.setdefault(text, DomainInfo(name=text, created_at=0.0, created_by=by))

    async def remove_domain(self, text: str, *, force: bool) -> DomainInfo:
        if text not in self.named:
            raise NotFoundError(f"The domain {text} is not registered.")
        if self.named[text].used_by and not force:
            raise ConflictError(f"The domain {text} is used.", hint="--force")
        return self.named.pop(text)

    async def check_domain(self, text: str) -> DomainCheck:
        record = DnsRecord(type="A", name=text, value="192.0.2.7")
        return DomainCheck(name=text, verdict="missing", message=f"{text} leads nowhere yet.", records=[record])

    # -- DeployService ---------------------------------------------------------------------------------------
    async def deploy(self, request: DeployRequest, environment: str) -> AsyncIterator[Event]:
        for event in self.before_deployed:
            yield event
        self._raise()
        self.calls.append("deploy")
        yield self._deployed(request.name or request.spec.name or "", request.spec, "deployed", environment)

    async def ephemeral(self, request: EphemeralRequest, environment: str) -> AsyncIterator[Event]:
        self._raise()
        app = self._deployed(request.name or request.spec.name or "served", request.spec, "ephemeral", environment)
        try:
            yield Created(app_id=app.app_id, app=app.app, endpoints=app.endpoints)
            for line in self.lines:
                yield line
            self.stopped[app.app_id] = asyncio.Event()
            await self._wait(self.stopped[app.app_id])
        finally:
            self.living.pop(app.app_id, None)

    def hold(self, app_id: str, environment: str) -> None:
        self.calls.append("hold")

    def release(self, app_id: str, environment: str) -> None:
        self.calls.append("release")

    async def reload(self, app_id: str, request: DeployRequest, environment: str) -> AsyncIterator[Event]:
        self._raise()
        self.calls.append("reload")
        yield self._deployed(self.living[app_id].name, request.spec, "ephemeral", environment)

    def _deployed(self, name: str, spec: AppSpec, state: str, environment: str) -> Deployed:
        self._find(environment)
        key = (name, state, environment)
        known = [app for app in self.living.values() if (app.name, app.state, app.environment) == key]
        version = known[0].version + 1 if known else 1
        app_id = known[0].id if known else f"ap-{len(self.living):022}"
        endpoints = [self._endpoint(name, function.name, state) for function in spec.web_functions]
        self.living[app_id] = AppInfo(
            id=app_id,
            name=name,
            environment=environment,
            state=state,
            version=version,
            created_at=time.time(),
            functions=[FunctionInfo(name=endpoint.function, url=endpoint.url) for endpoint in endpoints],
        )
        return Deployed(app_id=app_id, app=name, version=version, endpoints=endpoints, seconds=0.5)

    # -- EnvironmentService ----------------------------------------------------------------------------------
    async def environments(self) -> list[EnvironmentInfo]:
        return list(self.places.values())

    async def create_environment(self, name: str, web_suffix: str | None) -> EnvironmentInfo:
        if name in self.places:
            raise ConflictError(f"There is an environment {name!r} already.")
        self.places[name] = _place(name, name if web_suffix is None else web_suffix)
        return self.places[name]

    async def change_environment(self, name: str, change: EnvironmentChange) -> EnvironmentInfo:
        found = self._find(name)
        suffix = found.web_suffix if change.web_suffix is None else change.web_suffix
        del self.places[name]
        return self.places.setdefault(change.name or name, _place(change.name or name, suffix))

    async def delete_environment(self, name: str, *, stop_apps: bool) -> None:
        self._find(name)
        if not stop_apps and await self.apps(name):
            raise ConflictError(f"Apps run in the environment {name!r}.")
        del self.places[name]

    # -- AccessService ---------------------------------------------------------------------------------------
    async def admit(self, authorization: str) -> TokenInfo:
        token = next((t for t in self.issued.values() if authorization == f"Bearer {t.id}.as-{t.id}"), None)
        if token is None:
            raise AuthError("This server's control API asks for a token.")
        return token

    @contextmanager
    def using(self, token_id: str) -> Iterator[None]:
        self.calls.append(f"used {token_id}")
        yield

    async def tokens(self) -> list[TokenInfo]:
        return list(self.issued.values())

    async def create_token(self, wanted: NewToken) -> TokenSecret:
        token_id = f"ak-{len(self.issued)}"
        self.issued[token_id] = TokenInfo(id=token_id, name=wanted.name, environment=wanted.environment, created_at=0.0)
        return TokenSecret(id=token_id, secret=f"as-{token_id}", name=wanted.name, environment=wanted.environment)

    async def revoke_token(self, ref: str) -> TokenInfo:
        if ref not in self.issued:
            raise NotFoundError(f"There is no token {ref!r}.")
        return self.issued.pop(ref)

    # -- CallPlaceService ------------------------------------------------------------------------------------
    async def environment_of_call(self, host: str, path: str) -> str:
        return "main"

    def _find(self, environment: str) -> EnvironmentInfo:
        if environment not in self.places:
            raise NotFoundError(f"There is no environment {environment!r}.")
        return self.places[environment]

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
