"""Bringing apps up: from a request to a release on the data path. Runs on the control plane's loop."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import string
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from portico.core.routes import Owner
from portico.model.errors import ConflictError, InvalidError, NotFoundError, StartError
from portico.model.naming import auto_label, call_host, check_dev_suffix, check_object_name, host_label
from portico.model.policy import Scope
from portico.model.ports import AppRecord, Blobs, BuiltImage, DeploymentRecord, EnvironmentRecord, Images, Store
from portico.model.settings import Settings
from portico.model.spec import AppSpec, Bundle, ImageSpec
from portico.server.admission import AdmissionControl
from portico.server.dataplane import Bridge, Commit, DataPlane, Release
from portico.server.domains import Domains
from portico.server.durable import DurableCalls
from portico.server.environments import Environments
from portico.server.logs import LogBook
from portico.server.secrets import Secrets
from portico.wire import spec as spec_wire
from portico.wire.control import (
    BuildLine,
    Created,
    Deployed,
    DeployRequest,
    Ended,
    EndpointInfo,
    EphemeralRequest,
    Event,
    FunctionState,
    ImageState,
    Warned,
)

Emit = Callable[[Event], None]
STRATEGIES: Final = ("rolling", "recreate")
_LAST_WORDS: Final = 100  # lines of the log in which those of a container that did not start are looked for
_ID_ALPHABET: Final = string.ascii_letters + string.digits


def new_app_id() -> str:
    """ "ap-" and 22 letters and digits."""
    return "ap-" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(22))


class Rollouts:
    """Deploys, ephemeral apps and their reloads."""

    def __init__(
        self,
        settings: Settings,
        port: int,
        *,
        store: Callable[[], Awaitable[Store]],
        environments: Environments,
        secrets: Secrets,
        admission: AdmissionControl,
        domains: Domains,
        blobs: Blobs,
        images: Images,
        data: DataPlane,
        bridge: Bridge,
        logs: LogBook,
        calls: DurableCalls,
    ) -> None:
        self._settings = settings
        self._port = port
        self._store = store
        self._environments = environments
        self._secrets = secrets
        self._admission = admission
        self._domains = domains
        self._blobs = blobs
        self._images = images
        self._data = data
        self._bridge = bridge
        self._logs = logs
        self._calls = calls
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self.ephemeral_apps: dict[str, Release] = {}
        self.created_at: dict[str, float] = {}
        self.deployed: set[str] = set()  # the ids of the living deployed apps
        self.deployed_here: set[str] = set()  # those of them that were deployed since this server started
        self.server_is_ending = False
        self._claimed = asyncio.Event()

    # -- deployed apps --------------------------------------------------------------------------------------------
    def deploy(self, request: DeployRequest, environment: str) -> AsyncIterator[Event]:
        """Events until Deployed."""
        return stream(lambda emit: self._deploy(request, environment, emit))

    async def _deploy(self, request: DeployRequest, environment: str, emit: Emit) -> None:
        name = request.name or request.spec.name
        if not name:
            raise InvalidError("The app has no name.", hint='Give it one: modal.App("name"), or --name.')
        check_object_name(name, "app")
        self._check(request.spec)
        for warning in missing_gpus(request.spec):
            if not request.allow_missing_gpu:
                raise InvalidError(warning, hint="Deploy to run on the CPU all the same with --allow-missing-gpu.")
            emit(Warned(warning))
        if request.strategy not in STRATEGIES:
            raise InvalidError(f"There is no strategy {request.strategy!r}; there are {' and '.join(STRATEGIES)}.")
        spec = replace(request.spec, name=name)
        async with self.alone(environment, name):
            recreate = request.strategy == "recreate"
            await self._deploy_version(environment, spec, request.bundle, emit, tag=request.tag, recreate=recreate)

    async def redeploy(self, record: DeploymentRecord, environment: str, name: str, emit: Emit) -> None:
        """Bring an earlier version back, as a new one."""
        async with self.alone(environment, name):
            await self._deploy_version(
                environment, record.spec, record.bundle, emit, tag=record.tag, rollback_of=record.version
            )

    @asynccontextmanager
    async def alone(self, environment: str, name: str) -> AsyncIterator[None]:
        """One change of a deployed app at a time, and none before it is known which labels the others have."""
        await self._claimed.wait()
        async with self._locks.setdefault((environment, name), asyncio.Lock()):
            yield

    async def _deploy_version(
        self,
        where: str,
        spec: AppSpec,
        bundle: Bundle,
        emit: Emit,
        *,
        tag: str | None = None,
        rollback_of: int | None = None,
        recreate: bool = False,
    ) -> None:
        began = time.monotonic()
        environment = await self._environments.find(where)
        store = await self._store()
        assert spec.name is not None
        await self._domains.check(spec)
        app = await store.app(spec.name, where)
        history = await store.history(app.id) if app is not None and app.stopped_at is None else []
        state = await self._secrets.provide(spec, where, all_there=True)
        digest = hashlib.sha256(spec_wire.encode(spec, bundle) + state.encode()).hexdigest()
        current = next((d for d in history if app is not None and d.version == app.current), None)
        if app is None or app.stopped_at is not None:
            app = AppRecord(
                id=new_app_id(),
                name=spec.name,
                environment=where,
                created_at=time.time(),
                stopped_at=None,
                current=0,
            )
        elif current is not None and current.digest == digest and not _forced(spec):
            endpoints = await self.endpoints(app.id, spec, self.urls(spec, environment), where)
            emit(_deployed(app.id, spec.name, current.version, endpoints, began, unchanged=True))
            return
        version = max((d.version for d in history), default=0) + 1
        release = await self._prepare(app.id, version, environment, spec, bundle, emit)
        deployment = DeploymentRecord(
            app_id=app.id,
            version=version,
            created_at=time.time(),
            spec=spec,
            bundle=bundle,
            digest=digest,
            tag=tag,
            rollback_of=rollback_of,
        )

        async def commit() -> None:
            if await self._environments.find(where) != environment:
                raise ConflictError(f"The environment {where!r} was changed meanwhile.", hint="Deploy again.")
            await self._domains.check(spec)
            await store.record(app=replace(app, current=version), deployment=deployment)
            self.deployed.add(app.id)
            self.deployed_here.add(app.id)

        losers = await self._bridge.call(self._data.check_names, release)
        try:
            await self._roll_out(release, emit, commit, recreate=recreate)
        except StartError as error:  # nobody could follow the log: the app is not there, or still the old one
            for line in self._logs.app(app.id).tail(_LAST_WORDS, None):
                if line.container_id == error.container_id:
                    emit(line)
            raise
        self._calls.app_live(app.id)
        self._tell_of_taken_names(losers, emit)
        endpoints = await self.endpoints(app.id, spec, release.urls, where)
        emit(_deployed(app.id, spec.name, version, endpoints, began))

    async def known(self) -> None:
        """Return when it is known which labels and domains the deployed apps have."""
        await self._claimed.wait()

    async def boot(self) -> None:
        """Bring all deployed apps up again, as they were when the server ended. They have their labels at once."""
        try:
            expected = await self._claim()
        finally:
            self._claimed.set()
        await self._bridge.call(self._data.claimed)
        await asyncio.gather(*(self._bring_back(app) for app in expected))

    async def _claim(self) -> list[AppRecord]:
        """Give all apps their labels; those that are to come up."""
        expected = []
        for environment in await self._environments.all():
            for app in await (await self._store()).apps(environment.name):
                deployment = await self._current(app)
                if deployment is not None and await self._claim_app(app, deployment, environment):
                    expected.append(app)
        return expected

    async def _claim_app(self, app: AppRecord, deployment: DeploymentRecord, environment: EnvironmentRecord) -> bool:
        labels = self._addresses(deployment.spec, environment, "")[0].values()
        claimed = [*labels, *await self._domains.registered(deployment.spec)]
        owner = Owner(app.id, app.name, environment.name)
        if app.stopped_at is not None:
            for name in claimed:
                await self._bridge.call(self._data.stopped_name, owner, name)
            return False
        self.deployed.add(app.id)
        functions = deployment.spec.functions
        names = {function.name for function in functions} | {part.name for f in functions for part in f.parts}
        hosts = [call_host(environment.name, owner, name) for owner in (app.id, app.name) for name in names]
        try:
            await self._bridge.call(self._data.claim, owner, claimed, hosts)
        except ConflictError as error:  # another app answers for these labels
            self._say_absent(app.id, error)
            return False
        return True

    async def _bring_back(self, app: AppRecord) -> None:
        async with self.alone(app.environment, app.name):
            deployment = await self._current(app)
            if deployment is None or app.id in self.deployed_here or app.id not in self.deployed:
                return  # a newer version, or its end, came first
            try:
                await self._install(app, deployment, await self._environments.find(app.environment))
            except Exception as error:
                self._say_absent(app.id, error)
                await self._bridge.call(self._data.unavailable, app.id, str(error).partition("\n")[0])

    def _say_absent(self, app_id: str, error: Exception) -> None:
        self._logs.system(app_id, "", "", f"the app could not be brought up: {error}")

    async def readdress(self, app: AppRecord, environment: EnvironmentRecord) -> None:
        """Have a living app answer at the URLs that its environment gives it now."""
        async with self.alone(environment.name, app.name):
            record = await (await self._store()).app(app.name, environment.name)
            deployment = None if record is None or record.stopped_at is not None else await self._current(record)
            if record is None or deployment is None:
                return
            try:
                await self._install(record, deployment, environment)
            except Exception as error:  # what it needs was there a moment ago; the others are to be moved all the same
                self._logs.system(app.id, "", "", f"the app could not be moved to its new URLs: {error}")

    async def _install(self, app: AppRecord, deployment: DeploymentRecord, environment: EnvironmentRecord) -> None:
        await self._secrets.provide(deployment.spec, environment.name, all_there=False)
        release = await self._prepare(app.id, app.current, environment, deployment.spec, deployment.bundle, _ignore)
        await self._bridge.call(self._data.install, release)
        self._calls.app_live(app.id)

    async def _current(self, app: AppRecord) -> DeploymentRecord | None:
        history = await (await self._store()).history(app.id)
        return next((deployment for deployment in history if deployment.version == app.current), None)

    async def tidy(self) -> None:
        """Remove the files that no version of a living app needs. Only while nothing runs: at the server's end."""
        store = await self._store()
        apps = [app for environment in await self._environments.all() for app in await store.apps(environment.name)]
        living = [app for app in apps if app.stopped_at is None]
        await self._blobs.collect([d.bundle for app in living for d in await store.history(app.id)])

    # -- ephemeral apps -------------------------------------------------------------------------------------------
    async def ephemeral(self, request: EphemeralRequest, environment: str) -> AsyncIterator[Event]:
        """Events for as long as the app lives; closing the iterator ends it."""
        app_id = new_app_id()
        suffix = f"-{check_dev_suffix(request.dev_suffix)}"
        spec = replace(request.spec, name=request.name or request.spec.name or request.spec.entry.module)
        lines = self._logs.app(app_id).follow(None)
        try:
            async for event in stream(lambda emit: self._bring_up(app_id, environment, spec, request, suffix, emit)):
                yield event
            async for line in lines:
                yield line
            if self.server_is_ending:
                yield Ended("server_stopped")
        finally:
            self.ephemeral_apps.pop(app_id, None)
            self.created_at.pop(app_id, None)
            self._bridge.post(self._data.stop, app_id)
            self._calls.app_ended(app_id)
            self._logs.app(app_id).end()

    async def _bring_up(
        self, app_id: str, where: str, spec: AppSpec, request: EphemeralRequest, suffix: str, emit: Emit
    ) -> None:
        environment = await self._environments.find(where)
        assert spec.name is not None
        check_object_name(spec.name, "app")
        self._check(spec)
        await self._secrets.provide(spec, where, all_there=True)
        for warning in missing_gpus(spec):
            emit(Warned(f"{warning} Running on the CPU."))
        release = await self._prepare(app_id, 0, environment, spec, request.bundle, emit, suffix=suffix)
        await self._take_names(release, emit, quiet=not request.rouse)
        await self._bridge.call(self._data.install, release)
        if request.rouse:
            await self._bridge.call(self._data.rouse, app_id)
        self.ephemeral_apps[app_id] = release
        self.created_at[app_id] = time.time()
        endpoints = await self.endpoints(app_id, spec, release.urls, where)
        emit(Created(app_id=app_id, app=spec.name, endpoints=endpoints))

    async def _take_names(self, release: Release, emit: Emit, *, quiet: bool = False) -> None:
        """Say which names an ephemeral app takes, and which custom domains it goes without; `quiet`: not the latter."""
        missing = await self._domains.unregistered(release.spec)
        if missing and not quiet:
            emit(Warned(f"Not registered here (`portico domain add`), so not served: {', '.join(missing)}."))
        holders = await self._bridge.call(self._data.domain_holders)
        for name in release.spec.domains:
            if not quiet and name in holders and not holders[name].ephemeral:
                emit(Warned(f"{name} stays with {holders[name]}, which is deployed; this one has its own URL only."))
        self._tell_of_taken_names(await self._bridge.call(self._data.check_names, release), emit)

    def _tell_of_taken_names(self, losers: list[Owner], emit: Emit) -> None:
        """Who is newer has what it asks for; both sides learn that it was another one's."""
        for loser in losers:
            emit(Warned(f"Took over a URL from the running app {loser.app_name!r}."))
            text = "another app has taken over a URL of this one; it leads there now"
            self._logs.system(loser.app_id, "", "", text)

    def hold(self, app_id: str, environment: str) -> None:
        """New inputs of this ephemeral app wait."""
        self._ephemeral(app_id, environment)
        self._bridge.post(self._data.hold, app_id)

    def release(self, app_id: str, environment: str) -> None:
        """They wait no longer."""
        with suppress(NotFoundError):  # it has ended, and nobody waits
            self._ephemeral(app_id, environment)
            self._bridge.post(self._data.release, app_id)

    def reload(self, app_id: str, request: DeployRequest, environment: str) -> AsyncIterator[Event]:
        """Replace the app's code. Events until Deployed."""
        return stream(lambda emit: self._reload(app_id, request, environment, emit))

    async def _reload(self, app_id: str, request: DeployRequest, where: str, emit: Emit) -> None:
        began = time.monotonic()
        before = self._ephemeral(app_id, where)
        try:
            self._check(request.spec)
            spec = replace(request.spec, name=before.app_name)
            environment = await self._environments.find(where)
            await self._secrets.provide(spec, where, all_there=True)
            version = before.version + 1
            release = await self._prepare(
                app_id, version, environment, spec, request.bundle, emit, suffix=before.suffix
            )
            await self._take_names(release, emit)
            await self._roll_out(release, emit, _nothing)
        finally:
            self.release(app_id, where)
        if app_id in self.ephemeral_apps:  # it may have ended at this moment
            self.ephemeral_apps[app_id] = release
        endpoints = await self.endpoints(app_id, release.spec, release.urls, where)
        emit(_deployed(app_id, before.app_name, release.version, endpoints, began))

    def _ephemeral(self, app_id: str, environment: str) -> Release:
        found = self.ephemeral_apps.get(app_id)
        if found is None or found.environment != environment:
            raise NotFoundError(f"There is no running ephemeral app {app_id} in the environment {environment!r}.")
        return found

    # -- shared ---------------------------------------------------------------------------------------------------
    def _check(self, spec: AppSpec) -> None:
        for function in spec.functions:
            self._images.check(function.image)
        for function in spec.web_functions:
            assert function.web is not None
            for name in function.web.custom_domains:
                if (other := spec.domains[name]) != function.name:
                    raise InvalidError(f"{function.name} and {other} would both have the domain {name}.")

    def url_of(self, label: str) -> str:
        """The URL of a label."""
        return self.url_at(f"{label}.{self._settings.domain}")

    def url_at(self, host: str) -> str:
        """The URL of a host."""
        scheme, usual = ("http", 80) if self._settings.https is None else ("https", 443)
        port = "" if self._port == usual else f":{self._port}"
        return f"{scheme}://{host}{port}"

    def urls(self, spec: AppSpec, environment: EnvironmentRecord) -> dict[str, str]:
        """The URL of each web function of a deployed app."""
        return self._addresses(spec, environment, "")[1]

    async def endpoints(self, app_id: str, spec: AppSpec, urls: dict[str, str], environment: str) -> list[EndpointInfo]:
        """The functions with a URL, whether they are protected, and the custom domains that lead to them now."""
        assert spec.name is not None
        protects = self._admission.protects
        domains = await self._bridge.call(self._data.domains, app_id)
        return [
            EndpointInfo(
                function=f.name,
                url=urls[f.name],
                protected=protects(Scope(environment, spec.name, f.name), f),
                custom_urls=[self.url_at(name) for name, function in domains.items() if function == f.name],
            )
            for f in spec.web_functions
        ]

    def _addresses(
        self, spec: AppSpec, environment: EnvironmentRecord, suffix: str
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Labels and URLs, by function."""
        assert spec.name is not None
        source = self._environments.source(environment)
        labels: dict[str, str] = {}
        for function in spec.web_functions:
            assert function.web is not None
            label = function.web.label or auto_label(spec.name, function.name)
            host = host_label(source, label, suffix=suffix)
            holder = next((other for other, taken in labels.items() if taken == host), None)
            if holder is not None:
                raise InvalidError(f"{holder} and {function.name} would both have the label {host!r}.")
            labels[function.name] = host
        return labels, {name: self.url_of(label) for name, label in labels.items()}

    async def _prepare(
        self,
        app_id: str,
        version: int,
        environment: EnvironmentRecord,
        spec: AppSpec,
        bundle: Bundle,
        emit: Emit,
        *,
        suffix: str = "",
    ) -> Release:
        """Everything that its containers need, on this machine. An ephemeral app has a suffix, a deployed one none."""
        labels, urls = self._addresses(spec, environment, suffix)
        for warning in (*spec.warnings, *without_effect(spec)):
            emit(Warned(warning))
        folder, images = await asyncio.gather(self._blobs.materialize(bundle), self._build(spec, emit))
        assert spec.name is not None
        return Release(
            app_id=app_id,
            app_name=spec.name,
            version=version,
            ephemeral=bool(suffix),
            environment=environment.name,
            suffix=suffix,
            spec=spec,
            images=images,
            bundle_dir=Path(folder),
            labels=labels,
            urls=urls,
        )

    async def _build(self, spec: AppSpec, emit: Emit) -> dict[str, BuiltImage]:
        users: dict[str, list[str]] = {}
        specs: dict[str, ImageSpec] = {}
        for function in spec.functions:
            key = repr(function.image)
            users.setdefault(key, []).append(function.name)
            specs[key] = function.image
        built = await asyncio.gather(*(self._build_one(specs[key], users[key], emit) for key in specs))
        return {name: image for key, image in zip(specs, built, strict=True) for name in users[key]}

    async def _build_one(self, image: ImageSpec, functions: list[str], emit: Emit) -> BuiltImage:
        began = time.monotonic()
        name = functions[0]
        lines = 0

        def on_line(line: str) -> None:
            nonlocal lines
            if not lines:
                emit(ImageState(key=name, state="building", functions=functions))
            lines += 1
            emit(BuildLine(key=name, line=line))

        try:
            built = await self._images.ensure(image, on_line)
        except Exception:
            emit(ImageState(key=name, state="failed", functions=functions, seconds=time.monotonic() - began))
            raise
        state = "built" if lines else "cached"
        emit(ImageState(key=name, state=state, functions=functions, seconds=time.monotonic() - began))
        return built

    async def _roll_out(self, release: Release, emit: Emit, commit: Commit, *, recreate: bool = False) -> None:
        """Prove, commit on this loop, switch. Once the proof holds, nothing may come between commit and switch."""
        here = asyncio.get_running_loop()

        parts = {function.name: [part.name for part in function.parts] for function in release.spec.functions}

        def on_ready(name: str) -> None:
            for part in parts[name]:
                event = FunctionState(name=part, state="ready", url=release.urls.get(part))
                here.call_soon_threadsafe(emit, event)

        async def commit_there() -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(commit(), here))

        for name, url in release.urls.items():
            emit(FunctionState(name=name, state="starting", url=url))
        move = self._data.recreate if recreate else self._data.roll_out
        await self._bridge.run(move(release, on_ready, commit_there))


def stream(work: Callable[[Emit], Coroutine[Any, Any, None]]) -> AsyncIterator[Event]:
    """The events that `work` emits, as they come; its error is raised at the end. Closing early cancels the work."""
    return _stream(work)


async def _stream(work: Callable[[Emit], Coroutine[Any, Any, None]]) -> AsyncIterator[Event]:
    events: asyncio.Queue[Event | None] = asyncio.Queue()
    task = asyncio.ensure_future(work(events.put_nowait))
    task.add_done_callback(lambda _: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield event
        await task
    finally:
        task.cancel()
        with suppress(BaseException):
            await task


def missing_gpus(spec: AppSpec) -> list[str]:
    """What to say of functions that ask for a GPU on a machine that has none."""
    names = [function.name for function in spec.functions if function.resources.gpu]
    if not names or any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists():
        return []
    return [f"{', '.join(names)}: gpu= is set, and this machine has no GPU."]


def without_effect(spec: AppSpec) -> list[str]:
    """What to say of settings that this engine takes note of and does nothing about."""

    def said(names: list[str], what: str) -> list[str]:
        return [f"{', '.join(names)}: {what}"] if names else []

    reserved = [f.name for f in spec.functions if f.resources.cpu is not None or f.resources.memory is not None]
    limited = [f.name for f in spec.functions if f.resources.cpu_limit is not None]
    snapshots = [f.name for f in spec.functions if f.enable_memory_snapshot and f.program is not None]
    return [
        *said(reserved, "cpu= and memory= reserve nothing on one machine; a memory limit (the second number) holds."),
        *said(limited, "a limit on cpu= holds where control groups can be made: see `portico doctor`."),
        *said(snapshots, "enable_memory_snapshot= has no effect on a web_server; its program starts anew each time."),
    ]


def _forced(spec: AppSpec) -> bool:
    return any(function.image.force_build for function in spec.functions)


def _deployed(
    app_id: str, name: str, version: int, endpoints: list[EndpointInfo], began: float, *, unchanged: bool = False
) -> Deployed:
    return Deployed(
        app_id=app_id,
        app=name,
        version=version,
        endpoints=endpoints,
        unchanged=unchanged,
        seconds=time.monotonic() - began,
    )


def _ignore(event: Event) -> None:
    pass


async def _nothing() -> None:
    pass
