"""The control plane: a thread with an event loop of its own, for everything that may take longer than a millisecond."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn
from uvicorn.server import ServerState

from portico.api.app import make_app, make_public_app
from portico.api.desk import make_desk
from portico.api.web_desk import make_web_desk
from portico.images.build import UvImages
from portico.ingress.front import Front
from portico.model.errors import StateError
from portico.model.ports import CallStore, Store
from portico.model.settings import Settings
from portico.model.version import VERSION
from portico.server.access import Access
from portico.server.admission import AdmissionControl
from portico.server.apps import Apps
from portico.server.call_places import CallPlaces
from portico.server.dataplane import Bridge, DataPlane, Sockets
from portico.server.domains import Domains
from portico.server.durable import DurableCalls
from portico.server.environment_service import EnvironmentControl
from portico.server.environments import Environments
from portico.server.functions import Functions
from portico.server.https import HttpsControl, local_authority
from portico.server.logs import LogBook
from portico.server.rollout import Rollouts
from portico.server.secrets import Secrets
from portico.store.blobs import FolderBlobs
from portico.store.bodies import FolderBodies
from portico.wire.control import ServerInfo

log = logging.getLogger("portico.control")

CLOSING: Final = 5.0  # seconds for the last answers of the control API


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What the control plane needs of the main thread: plain values and thread-safe callables."""

    settings: Settings
    address: str  # host:port of the public door, as bound
    port: int  # that of the endpoints' URLs
    front: Front | None  # who speaks HTTPS
    sockets: Sockets
    data: DataPlane
    bridge: Bridge
    on_stop: Callable[[], None]  # end the server
    on_booted: Callable[[StateError | None], None]  # all apps are up again, or why they cannot be


class ControlPlane:
    """Its loop, its logs, and the services behind the API."""

    def __init__(self, settings: Settings) -> None:
        self.loop = asyncio.new_event_loop()
        self.logs = LogBook(settings.home / "logs" / "apps", self.loop)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()
        self._listening: list[tuple[asyncio.Server, Path | None]] = []
        self._answering = ServerState()
        self._booting: asyncio.Task[None] | None = None
        self._store: asyncio.Task[Store] | None = None
        self._rollouts: Rollouts | None = None
        self._admission: AdmissionControl | None = None
        self._calls: DurableCalls | None = None
        self._https: HttpsControl | None = None

    async def start(self, outside: Outside) -> None:
        """Listen, and begin to bring the deployed apps up (called from the main thread's loop)."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._start(outside), self.loop))

    def drain(self) -> None:
        """The server is ending (called from the main thread)."""
        self.loop.call_soon_threadsafe(self._drain)

    async def close(self) -> None:
        """End the API, the logs and the store (called from the main thread's loop)."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._close(), self.loop))
        self.loop.call_soon_threadsafe(self.loop.stop)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    @property
    def is_needed(self) -> bool:
        """Whether an app was deployed since the server started, and lives."""
        return self._rollouts is not None and bool(self._rollouts.deployed_here)

    # -- on the control plane's thread ----------------------------------------------------------------------------
    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    async def _start(self, outside: Outside) -> None:
        settings = outside.settings
        store = self._store = asyncio.create_task(_open_store(settings))

        async def opened() -> Store:
            return await asyncio.shield(store)

        async def calls_opened() -> CallStore:
            return (await opened()).calls

        bodies = FolderBodies(settings.home)
        calls = self._calls = DurableCalls(calls_opened, bodies, outside.data, outside.bridge)
        blobs = FolderBlobs(settings.home)
        images = UvImages(settings.home)
        await images.sweep()
        environments = Environments(settings.workspace, opened)
        secrets = Secrets(store=opened, environments=environments, data=outside.data, bridge=outside.bridge)
        self._admission = AdmissionControl(
            settings.rate_limit, store=opened, environments=environments, data=outside.data, bridge=outside.bridge
        )
        domains = Domains(settings, store=opened, data=outside.data, bridge=outside.bridge)
        self._rollouts = Rollouts(
            settings,
            outside.port,
            store=opened,
            environments=environments,
            secrets=secrets,
            admission=self._admission,
            domains=domains,
            blobs=blobs,
            images=images,
            data=outside.data,
            bridge=outside.bridge,
            logs=self.logs,
            calls=calls,
        )
        apps = Apps(
            store=opened,
            environments=environments,
            rollouts=self._rollouts,
            data=outside.data,
            bridge=outside.bridge,
            logs=self.logs,
            calls=calls,
        )
        service = Server(outside, self._rollouts)
        access = Access(opened, environments)
        places = EnvironmentControl(
            environments, store=opened, apps=apps, rollouts=self._rollouts, access=access, admission=self._admission
        )
        app = make_app(service, apps, self._rollouts, blobs, places, access, secrets, self._admission, domains)
        await self._listen(app, settings.control_socket)
        functions = Functions(outside.data, outside.bridge)
        called = CallPlaces(functions, opened, self._rollouts)
        public = make_public_app(app, access, settings.calls_socket, called)
        await self._listen(public, outside.sockets.public)
        await self._listen(make_desk(calls, functions), outside.sockets.desk)
        await self._listen(make_web_desk(calls, functions), outside.sockets.web_desk)
        self._booting = asyncio.create_task(self._boot(outside, self._rollouts, self._admission, domains))
        if settings.https is not None:
            assert outside.front is not None
            self._https = HttpsControl(
                settings,
                settings.https,
                outside.front,
                data=outside.data,
                bridge=outside.bridge,
                domains=domains,
                known=self._rollouts.known,
            )
            await self._https.start(self._serve_ask)

    async def _boot(self, outside: Outside, rollouts: Rollouts, admission: AdmissionControl, domains: Domains) -> None:
        try:
            assert self._calls is not None
            await self._calls.begin()
            outside.data.on_tokens_used = lambda: self._save_uses(admission)
            await admission.load()  # before there is a route that it protects
            await domains.known()
            await rollouts.boot()
            await self._calls.booted(rollouts.deployed)
        except StateError as error:
            outside.on_booted(error)
        except Exception:
            log.exception("the deployed apps could not be brought up")
            outside.on_booted(StateError("The deployed apps could not be brought up.", hint="See the server's log."))
        else:
            outside.on_booted(None)

    def _save_uses(self, admission: AdmissionControl) -> None:
        """On the main thread's loop."""
        asyncio.run_coroutine_threadsafe(admission.save(), self.loop)

    async def _listen(self, app: object, path: Path) -> None:
        """Serve an ASGI application on a Unix socket."""
        path.unlink(missing_ok=True)
        server = await self.loop.create_unix_server(self._protocol(app), path, backlog=2048)
        os.chmod(path, 0o600)
        self._listening.append((server, path))

    async def _serve_ask(self, app: object) -> int:
        """Serve one on a free port of this machine: Caddy asks no Unix socket."""
        server = await self.loop.create_server(self._protocol(app), "127.0.0.1", 0)
        self._listening.append((server, None))
        port: int = server.sockets[0].getsockname()[1]
        return port

    def _protocol(self, app: object) -> Callable[[], asyncio.Protocol]:
        """Makes a connection's protocol: uvicorn's, without its once-a-tick main loop."""
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=3600,
        )
        config.load()
        return lambda: config.http_protocol_class(config=config, server_state=self._answering, app_state={})  # type: ignore[call-arg]

    def _drain(self) -> None:
        if self._rollouts is not None:
            self._rollouts.server_is_ending = True
        if self._calls is not None:
            self._calls.drain()
        if self._https is not None:
            self._https.drain()

    async def _close(self) -> None:
        if self._https is not None:
            await self._https.close()
        for server, path in self._listening:
            if path is not None:
                path.unlink(missing_ok=True)
            server.close()
        if self._booting is not None:
            self._booting.cancel()
        if self._rollouts is not None:
            self._rollouts.server_is_ending = True
        self.logs.close()
        if self._answering.tasks:
            await asyncio.wait(self._answering.tasks, timeout=CLOSING)
        if self._calls is not None:
            await self._calls.close()
        if self._store is not None:
            if self._store.done() and not self._store.cancelled() and self._store.exception() is None:
                if self._rollouts is not None:
                    await self._rollouts.tidy()
                if self._admission is not None:
                    await self._admission.save()
                await self._store.result().close()
            else:
                self._store.cancel()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=CLOSING)


class Server:
    """The server itself, for its API."""

    def __init__(self, outside: Outside, rollouts: Rollouts) -> None:
        self._outside = outside
        self._rollouts = rollouts

    def info(self) -> ServerInfo:
        """Who answers."""
        settings = self._outside.settings
        authority = local_authority(settings)
        return ServerInfo(
            version=VERSION,
            pid=os.getpid(),
            workspace=settings.workspace,
            domain=settings.domain,
            listen=self._outside.address,
            url=self._rollouts.url_of("{label}"),
            home=str(settings.home),
            deployed_apps=len(self._rollouts.deployed),
            https_listen=None if settings.https is None else str(settings.https.address(settings.domain)),
            authority=None if authority is None else str(authority),
        )

    def stop(self) -> None:
        """End the server."""
        self._outside.on_stop()


async def _open_store(settings: Settings) -> Store:
    # SQLAlchemy takes a third of a second to import: in a thread, while the door is already open
    module = await asyncio.to_thread(importlib.import_module, "portico.store.sql")
    store: Store = await module.open_store(settings.database, settings.secret_key)
    return store
