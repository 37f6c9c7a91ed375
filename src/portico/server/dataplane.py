"""The data path: which label leads where, and the live apps behind. All of it runs on the ingress's loop.

The control plane, on its own thread, reaches it only through `Bridge`; the verbs here take and return plain values.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from portico.core.calling import CallTable
from portico.core.domains import covering
from portico.core.routes import Claim, Owner, RouteTable
from portico.core.secrets import SecretTable
from portico.core.tokens import ProxyToken
from portico.ingress import pages
from portico.ingress.admission import Admission, NewBucket
from portico.ingress.door import Ingress, IngressOptions
from portico.ingress.ports import Endpoint, Refusal, Route
from portico.model.errors import NotFoundError, StartError
from portico.model.limits import DEFAULT_LIMITS, Limits
from portico.model.naming import call_host
from portico.model.policy import Policies, Scope
from portico.model.ports import BuiltImage, ContainerStart, Engine
from portico.model.spec import AppSpec, FunctionSpec
from portico.server.away import AwayEndpoint, Keeper, OtherShards, Share
from portico.server.endpoint import FunctionEndpoint, Gate, MethodEndpoint, NotCalled, Passage, Unavailable
from portico.server.pools import Pools
from portico.server.seat import Seat
from portico.server.supervisor import SHUTTING_DOWN, STOP_GRACE, Counts, Supervisor
from portico.wire.calls import CONTROL_DOMAIN, SPAWN_DOMAIN, STORED_HOST, calls_host, other_host

log = logging.getLogger("portico.dataplane")

NOT_UP: Final = Refusal(503, "modal-http: this app is not up", retry_after=30)
TELL_USES_AFTER: Final = 30.0  # seconds from the use of a proxy token until it is stored
CUT_GRACE: Final = 2.0  # seconds for inputs of a version that is not to run beside the next one
LAST_WORDS: Final = 2.0  # seconds for inputs to end that were cut off when the server ended
ALONE: Final = Share()
PROOFS_AT_ONCE: Final = 8  # containers that one moment's deploys start side by side

P = ParamSpec("P")
R = TypeVar("R")
Served = FunctionEndpoint | MethodEndpoint | AwayEndpoint
Commit = Callable[[], Coroutine[Any, Any, None]]
SystemLog = Callable[[str, str, str, str], None]  # app id, function, container id, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One version of an app, with everything on this machine that its containers need."""

    app_id: str
    app_name: str
    version: int
    ephemeral: bool
    environment: str
    spec: AppSpec
    images: dict[str, BuiltImage]  # by function
    bundle_dir: Path
    labels: dict[str, str]  # function -> label
    urls: dict[str, str]  # function -> URL
    suffix: str = ""  # what ends its labels: "-dev", as an ephemeral app has it

    @property
    def owner(self) -> Owner:
        """Who has its names."""
        return Owner(self.app_id, self.app_name, self.environment, self.ephemeral)


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where the control plane answers what comes in through the data path."""

    public: Path  # the bare domain
    desk: Path  # calls to be stored, and questions about functions
    web_desk: Path  # requests to be stored, and questions about them

    @staticmethod
    def inside(run_dir: Path) -> Sockets:
        """Where they are in a server's folder of sockets."""
        return Sockets(run_dir / "public.sock", run_dir / "desk.sock", run_dir / "web-desk.sock")


@dataclass(slots=True)
class LiveApp:
    """An app that has routes."""

    release: Release
    endpoints: dict[str, FunctionEndpoint] = field(default_factory=dict)
    parts: dict[str, Served] = field(default_factory=dict)  # what is called or has a URL
    away: dict[str, AwayEndpoint] = field(default_factory=dict)  # functions and classes in other processes


@dataclass(frozen=True, slots=True)
class Expected:
    """An app that comes up: where those wait who ask for it meanwhile, by label or domain, and by host of calls."""

    owner: Owner
    names: dict[str, Gate]
    hosts: dict[str, Gate]


class Bridge:
    """How the control plane's thread calls into the data path's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.settle: Callable[[], Coroutine[Any, Any, None]] | None = None  # waits until other processes know, too

    async def call(self, verb: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a quick verb there; its result or its exception here."""

        async def run() -> R:
            result = verb(*args, **kwargs)
            if self.settle is not None:
                await self.settle()
            return result

        return await self.run(run())

    async def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine there. Cancelled, it has it cancelled there too, and returns when it has ended."""
        here = asyncio.get_running_loop()
        ended: asyncio.Future[None] = here.create_future()
        tasks: list[asyncio.Task[R]] = []

        def start() -> None:
            task = self._loop.create_task(coroutine)
            task.add_done_callback(lambda _: here.call_soon_threadsafe(_settle, ended))
            tasks.append(task)

        def cancel() -> None:
            tasks[0].cancel()

        self._loop.call_soon_threadsafe(start)
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            self._loop.call_soon_threadsafe(cancel)
            await asyncio.shield(ended)
            raise
        return tasks[0].result()

    def post(self, verb: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have it run there soon; nobody waits for it."""
        self._loop.call_soon_threadsafe(lambda: verb(*args, **kwargs))


class CallDirectory:
    """The directory of the calls' socket: each host is a function, or leads to the desk, where calls are stored and
    functions are asked about. Before it is known which there are, callers wait."""

    def __init__(self, desk: str) -> None:
        self.table: CallTable[Endpoint] = CallTable()
        self._desk = Passage(desk)
        self._gates: dict[str, Gate] | None = {}

    def find(self, host: str) -> Route | Refusal:
        """See `ingress.ports.Directory`."""
        found = self.table.get(host) or self._at_desk(host)
        if found is None and host == STORED_HOST and self._gates is None:
            found = self._desk
        if found is None and self._gates is not None:
            found = self._gates.setdefault(host, Gate())
        return pages.INVALID_CALL if found is None else Route(found)

    def _at_desk(self, host: str) -> Endpoint | None:
        """The desk, where this is another host of a function that is up, and the function takes such calls."""
        if not host.endswith((SPAWN_DOMAIN, CONTROL_DOMAIN)):
            return None
        function = self.table.get(calls_host(host))
        takes = isinstance(function, Served) or (isinstance(function, NotCalled) and host.endswith(CONTROL_DOMAIN))
        return self._desk if takes else function

    def claimed(self) -> None:
        """It is known which functions there are."""
        gates, self._gates = self._gates or {}, None
        for host, gate in gates.items():
            gate.open(self.find(host))

    def close(self) -> None:
        """Nobody needs to wait any longer."""
        for gate in (self._gates or {}).values():
            gate.open(SHUTTING_DOWN)


class DataPlane:
    """Routes, endpoints and supervisors of all live apps."""

    def __init__(
        self,
        domain: str,
        sockets: Sockets,
        engine: Engine,
        system_log: SystemLog,
        limits: Limits = DEFAULT_LIMITS,
        ingress: IngressOptions | None = None,
        machine: str = "",
        rate_limit: float | None = None,
        share: Share = ALONE,
        new_bucket: NewBucket | None = None,
    ) -> None:
        self.share = share
        self.shards: OtherShards | None = None
        self.keeper: Keeper | None = None  # of seats there
        self._domain = domain
        self._limits = limits
        self._machine = machine
        self._control = Route(Passage(str(sockets.public)))
        self._web_desk = Passage(str(sockets.web_desk))
        self._engine = engine
        self._system_log = system_log
        self._loop = asyncio.get_running_loop()
        self._routes: RouteTable[Endpoint] = RouteTable()
        self._registered: frozenset[str] = frozenset()  # custom domains
        self._secrets = SecretTable()
        self._apps: dict[str, LiveApp] = {}
        self._expected: dict[str, Expected] = {}  # by app id
        self._background: set[asyncio.Task[None]] = set()
        self._leaving: dict[asyncio.Task[None], Supervisor | Pools] = {}  # replaced, or of apps that have ended
        self._snapshots: dict[Supervisor | Pools, str] = {}  # what their containers are forked from
        self._gates: dict[str, Gate] | None = {}
        self._proving = asyncio.Semaphore(PROOFS_AT_ONCE)
        self._committing = asyncio.Lock()  # from the look at the labels to the switch that takes them
        self.on_tokens_used: Callable[[], None] = lambda: None  # some time after a use of a proxy token
        ingress = ingress or IngressOptions()
        self._admission = Admission(
            rate_limit,
            now=self._loop.time,
            redirect_after=ingress.redirect_after,
            on_token_use=self._token_used,
            new_bucket=new_bucket,
        )
        self.calls = CallDirectory(str(sockets.desk))
        self.ingress = Ingress(self, self._loop, ingress)

    # -- the ingress's directory ----------------------------------------------------------------------------------
    def find(self, host: str) -> Route | Refusal:
        """Where a host leads: labels and domains to endpoints; the server's own names and addresses to the API."""
        if host in (self._domain, "localhost") or _is_address(host):
            return self._control
        claim = self._claim_of(host)
        if claim is not None:
            return self._route_of(claim)
        label, dot, _ = host.partition(".")
        if label == self._machine:
            return self._control
        if not dot or self._gates is None:
            return pages.INVALID_CALL
        return Route(self._gates.setdefault(host, Gate()))

    def is_live(self, host: str) -> bool:
        """Whether this host leads to a living app now, by its label or by a custom domain, exact or by a wildcard."""
        claim = self._claim_of(host)
        return claim is not None and claim.target is not None

    def secures(self, host: str) -> bool:
        """Whether HTTPS is for this host: the server's own domain, and what leads, or may lead, to a living app."""
        unknown = self._gates is not None and not _is_address(host)
        return host == self._domain or unknown or self.is_live(host)

    def claimed(self) -> None:
        """It is known which labels there are: those who came before may go on."""
        gates, self._gates = self._gates or {}, None
        self.ingress.routes_changed()
        for host, gate in gates.items():
            gate.open(self.find(host))
        self.calls.claimed()

    # -- verbs for the control plane ------------------------------------------------------------------------------
    def check_names(self, release: Release) -> list[Owner]:
        """ConflictError where it may not have its labels or, deployed, its domains; else those who lose some to it."""
        names = self._names(release)
        if not release.ephemeral:
            names = {**names, **release.spec.domains}
        taken = self._routes.check(names, release.owner)
        return list(dict.fromkeys(claim.owner for claim in taken))

    def set_domains(self, registered: Collection[str]) -> None:
        """These custom domains are registered, and no others: living apps that name one have it, as far as they may."""
        self._registered = frozenset(registered)
        self._routes.drop([name for name in self._routes.domains() if covering(name, self._registered) is None])
        for app in self._apps.values():
            self._routes.assign(app.release.owner, self._targets(app))
        self.ingress.routes_changed()

    def domain_holders(self) -> dict[str, Owner]:
        """The custom domains that lead to apps, and who has each."""
        return self._routes.domains()

    def domains(self, app_id: str) -> dict[str, str]:
        """The custom domains that lead to this app, and the function that each leads to."""
        app = self._apps.get(app_id)
        holders = self._routes.domains()
        asked = {} if app is None else app.release.spec.domains
        return {name: f for name, f in asked.items() if name in holders and holders[name].app_id == app_id}

    def claim(self, owner: Owner, names: list[str], hosts: list[str]) -> None:
        """An app will come up: it has its names, and who asks waits. ConflictError where it may not have them."""
        hosts += [other_host(host, domain) for host in hosts for domain in (SPAWN_DOMAIN, CONTROL_DOMAIN)]
        waiting = Expected(owner, {name: Gate() for name in names}, {host: Gate() for host in hosts})
        self._lead(owner, dict(waiting.names), dict(waiting.hosts))
        self._expected[owner.app_id] = waiting

    def install(self, release: Release) -> None:
        """Bring an app up, or its next version, without proof; its containers start when they are asked for."""
        self._switch(release, self._supervisors(release))

    async def recreate(self, release: Release, on_ready: Callable[[str], None], commit: Commit) -> None:
        """As `roll_out`, but no two versions run side by side: the one before ends first. If the next one fails, it
        is started again; what asks meanwhile waits.
        """
        app = self._apps.get(release.app_id)
        try:
            if app is not None:
                await self._cut(app)
            await self.roll_out(release, on_ready, commit)
        except BaseException:
            if app is not None and self._apps.get(release.app_id) is app and app.release is not release:
                self.install(app.release)
            raise

    async def roll_out(self, release: Release, on_ready: Callable[[str], None], commit: Commit) -> None:
        """Replace, prove ready, then retire. `commit` runs between the proof and the switch.

        An app that serves already (an ephemeral one) proves only the functions that are in use.
        """
        supervisors = await self.prove(release, on_ready)
        # whoever asked may leave from here on: what is committed is also switched to
        finishing = self._loop.create_task(self._finish(release, supervisors, commit))
        try:
            await asyncio.shield(finishing)
        except asyncio.CancelledError:
            await asyncio.wait([finishing])
            raise

    async def prove(self, release: Release, on_ready: Callable[[str], None]) -> dict[str, Supervisor | Pools]:
        """Have a version's functions ready, here and elsewhere; those that are here. StartError when one cannot be."""
        supervisors = self._supervisors(release)
        try:
            async with asyncio.TaskGroup() as proofs:
                if self.shards is not None:
                    proofs.create_task(self.shards.prove(release, on_ready))
                for name in self._in_use(release):
                    proofs.create_task(self._prove(supervisors[name], on_ready))
        except BaseExceptionGroup as errors:
            self._discard(release, supervisors)
            raise errors.exceptions[0] from None
        except BaseException:
            self._discard(release, supervisors)
            raise
        return supervisors

    def rouse(self, app_id: str) -> None:
        """Have a first container of each function with a URL come up in the background."""
        self._tell_shards("rouse", app_id)
        app = self._apps.get(app_id)
        for endpoint in app.endpoints.values() if app else ():
            if any(part.web is not None for part in endpoint.supervisor.function.parts):
                endpoint.supervisor.rouse()

    def hold(self, app_id: str) -> None:
        """New inputs of this app wait."""
        self._tell_shards("hold", app_id)
        if app := self._apps.get(app_id):
            for endpoint in app.endpoints.values():
                endpoint.hold()

    def release(self, app_id: str) -> None:
        """They wait no longer."""
        self._tell_shards("release", app_id)
        if app := self._apps.get(app_id):
            for endpoint in app.endpoints.values():
                endpoint.release()

    def stop(self, app_id: str) -> None:
        """The app's names answer that it is stopped; running inputs end."""
        self._tell_shards("stop", app_id)
        app = self._apps.pop(app_id, None)
        returned = self._routes.stop(app_id)
        self.calls.table.remove(app_id)
        self.ingress.routes_changed()
        self._open_gates(app_id)
        for owner in sorted(set(returned.values())):
            self._system_log(owner, "", "", "the app that had taken over a URL of this one has ended; it is back")
        if app is not None:
            for endpoint in app.endpoints.values():
                self._let_go(endpoint.stop(pages.STOPPED))
            self._keep_templates()

    def stopped_name(self, owner: Owner, name: str) -> None:
        """Remember, after a restart, that a name belonged to an app that was stopped."""
        if self._routes.get(name) is None:
            self._routes.assign(owner, {name: Unavailable(pages.STOPPED)})
            self._routes.stop(owner.app_id)

    def unavailable(self, app_id: str, cause: str) -> None:
        """An app that was to come up cannot: whoever asks for it is told the cause, with 503."""
        waiting = self._expected.get(app_id)
        if waiting is None:
            return  # it has come up otherwise
        text = f"modal-http: this app could not be brought up: {cause}"
        target = Unavailable(Refusal(503, text, retry_after=30, code="start_failed"))
        names, hosts = dict.fromkeys(waiting.names, target), dict.fromkeys(waiting.hosts, target)
        self._lead(waiting.owner, dict(names), dict(hosts))

    def learn_secret(self, environment: str, name: str, variables: Mapping[str, str] | None) -> None:
        """What a secret has that an app names; None: there is none."""
        self._secrets.put(environment, name, variables)

    def secret_changed(self, environment: str, name: str, variables: Mapping[str, str] | None) -> None:
        """What a secret has from now on; None: it is gone. Containers that start hereafter go by it."""
        self._secrets.change(environment, name, variables)

    def set_policies(self, policies: Policies) -> None:
        """They hold for all requests from now on."""
        if self.shards is not None:
            self.shards.set_policies(policies)
        self._admission.set_policies(policies)
        self.ingress.routes_changed()

    def set_tokens(self, tokens: Iterable[tuple[ProxyToken, float | None]]) -> None:
        """These proxy tokens are valid from now on, and no others; each with its rate limit."""
        if self.shards is not None:
            self.shards.remove_tokens(None)
        self._admission.tokens.clear()
        for token, rate_limit in tokens:
            self.put_token(token, rate_limit)

    def put_token(self, token: ProxyToken, rate_limit: float | None) -> None:
        """A proxy token that is valid from now on."""
        if self.shards is not None:
            self.shards.put_token(token, rate_limit)
        self._admission.put_token(token, rate_limit)

    def remove_token(self, token_id: str) -> None:
        """A proxy token that is valid no longer."""
        if self.shards is not None:
            self.shards.remove_tokens([token_id])
        self._admission.tokens.remove(token_id)

    async def used_tokens(self) -> dict[str, float]:
        """When each proxy token was last used that was used since this was asked last."""
        if self.shards is not None:
            for used in await self.shards.used_tokens():
                self._admission.tokens.have_been_used(used)
        return self._admission.tokens.take_used()

    def tokens_used(self, used: Mapping[str, float]) -> None:
        """Elsewhere."""
        self._admission.tokens.have_been_used(used)

    def seat(self, seat: Seat, app_id: str, function: str, input_id: str) -> None:
        """Have a stored call queue up for its function. Refused with a code of its own while the app is not up."""
        endpoint = self.endpoint(app_id, function)
        if endpoint is not None:
            seat.ask(endpoint, input_id)
        else:
            seat.refused(pages.INVALID_CALL if app_id in self._apps else NOT_UP)

    def function(self, app_id: str, function: str) -> FunctionSpec | None:
        """What the live version of an app says about a function or a method."""
        endpoint = self.endpoint(app_id, function)
        return endpoint.function if endpoint is not None else None

    def requested_at(self, host: str) -> Served | None:
        """The function that answers requests at this host."""
        found = self.find(host)
        target = found.endpoint if isinstance(found, Route) else None
        return target if isinstance(target, Served) else None

    def endpoint(self, app_id: str, function: str) -> Served | None:
        """A function of a living app, a class, or a method, "Class.method"."""
        app = self._apps.get(app_id)
        if app is None:
            return None
        return app.parts.get(function) or app.endpoints.get(function) or app.away.get(function)

    def url(self, app_id: str, function: str) -> str | None:
        """Where a function of a living app answers requests; None when it does not."""
        app = self._apps.get(app_id)
        return None if app is None else app.release.urls.get(function)

    def called_at(self, host: str) -> Served | None:
        """The function that this host of the calls' socket means."""
        target = self.calls.table.get(host)
        if isinstance(target, NotCalled):
            target = target.function
        return target if isinstance(target, Served) else None

    async def counts(self, app_id: str) -> dict[str, Counts]:
        """How each function of an app is doing."""
        app = self._apps.get(app_id)
        found = {name: endpoint.counts for name, endpoint in app.endpoints.items()} if app else {}
        return found if self.shards is None else found | await self.shards.counts(app_id)

    def living(self) -> list[Release]:
        """The version of each app that answers."""
        return [app.release for app in self._apps.values()]

    def with_secrets(self, start: ContainerStart) -> ContainerStart:
        """What an engine needs, with what its function's secrets have now. NotFoundError when one is not there."""
        function = start.function
        env = self._secrets.variables(function, start.environment)
        return replace(start, function=replace(function, secrets=(), env=env))

    async def close(self, grace: float) -> None:
        """End all: first the door, then the apps, then what runs them."""
        gates = [*(self._gates or {}).values()]
        for waiting in self._expected.values():
            gates += [*waiting.names.values(), *waiting.hosts.values()]
        for gate in gates:
            gate.open(SHUTTING_DOWN)
        self.calls.close()
        began = self._loop.time()
        ends = None
        if self.shards is not None:
            self.ingress.refuse()
            await self.shards.refuse()
            ends = self._loop.create_task(self.shards.finish(grace))
        await self.ingress.close(grace)
        for app_id in list(self._apps):
            self.stop(app_id)
        left = max(LAST_WORDS, began + grace - self._loop.time())
        for supervisor in self._leaving.values():
            supervisor.finish(left)  # what runs where the ingress does not see it: WebSockets
        if self._leaving:  # others run their exit handlers
            await asyncio.wait(list(self._leaving), timeout=STOP_GRACE)
        if ends is not None:
            await ends
        await self._engine.close()
        for task in (*self._background, *self._leaving):
            task.cancel()

    # -- inside ---------------------------------------------------------------------------------------------------
    async def _cut(self, app: LiveApp) -> None:
        """End what runs of it, and return when that has gone. Requests that may be repeated wait for what comes."""
        elsewhere = None if self.shards is None else self._loop.create_task(self.shards.cut(app.release.app_id))
        ending = [endpoint.cut() for endpoint in app.endpoints.values()]
        for supervisor in ending:
            self._dismiss_snapshot(supervisor)
        for supervisor in ending:
            supervisor.finish(CUT_GRACE)
        for supervisor in ending:
            await supervisor.gone()
        if elsewhere is not None:
            await elsewhere

    async def _finish(self, release: Release, supervisors: dict[str, Supervisor | Pools], commit: Commit) -> None:
        async with self._committing:
            try:
                self.check_names(release)
                await commit()
                if release.ephemeral and release.app_id not in self._apps:
                    raise NotFoundError(f"The app {release.app_name!r} has ended meanwhile.")
            except BaseException:
                self._discard(release, supervisors)
                raise
            self._switch(release, supervisors)
        if self.shards is not None:
            await self.shards.settle()

    def _discard(self, release: Release, supervisors: dict[str, Supervisor | Pools]) -> None:
        if self.shards is not None:
            self.shards.discard(release)
        for supervisor in supervisors.values():
            supervisor.drain()
            self._let_go(supervisor)

    def _tell_shards(self, verb: str, app_id: str) -> None:
        if self.shards is not None:
            self.shards.tell(verb, app_id)

    def _supervisors(self, release: Release) -> dict[str, Supervisor | Pools]:
        functions = [f for f in release.spec.functions if self.share.has(release, f.name)]
        return {f.name: self._supervise(release, f) for f in functions}

    def _supervise(self, release: Release, function: FunctionSpec) -> Supervisor | Pools:
        snapshot = f"{release.app_id}-{secrets.token_hex(8)}" if _may_have_snapshot(function) else None
        supervisor: Supervisor | Pools
        if function.cls is not None and function.cls.parameters:
            supervisor = Pools(
                function, lambda text: self._supervisor(release, function, text, snapshot), self._limits.queue
            )
        else:
            supervisor = self._supervisor(release, function, "", snapshot)
        if snapshot is not None:
            self._snapshots[supervisor] = snapshot
        return supervisor

    def _supervisor(
        self, release: Release, function: FunctionSpec, parameters: str | None, snapshot: str | None
    ) -> Supervisor:
        def make_start() -> ContainerStart:
            start = ContainerStart(
                container_id=f"ct-{secrets.token_hex(8)}",
                app_id=release.app_id,
                app_name=release.app_name,
                version=release.version,
                ephemeral=release.ephemeral,
                environment=release.environment,
                entry=release.spec.entry,
                function=function,
                image=release.images[function.name],
                bundle_dir=release.bundle_dir,
                urls=release.urls,
                parameters=parameters,
                snapshot=snapshot,
            )
            return self.with_secrets(start)

        def notify(container_id: str, text: str) -> None:
            self._system_log(release.app_id, function.name, container_id, text)

        return Supervisor(function, make_start, self._engine, notify, self._loop, self._limits)

    def _in_use(self, release: Release) -> list[str]:
        every = [function.name for function in release.spec.functions]
        names = [name for name in every if self.share.has(release, name)]
        app = self._apps.get(release.app_id)
        if not release.ephemeral or app is None:
            return names
        used = [n for n in names if n in app.endpoints and app.endpoints[n].supervisor.in_use]
        return used or [n for n in every[:1] if n in names]

    async def _prove(self, supervisor: Supervisor | Pools, on_ready: Callable[[str], None]) -> None:
        async with self._proving:
            await supervisor.prove()
        on_ready(supervisor.function.name)

    def _switch(self, release: Release, supervisors: dict[str, Supervisor | Pools]) -> None:
        app = self._apps.setdefault(release.app_id, LiveApp(release))
        app.release = release
        for name in [name for name in app.endpoints if name not in supervisors]:
            self._let_go(app.endpoints.pop(name).stop(pages.INVALID_CALL))
        for name, supervisor in supervisors.items():
            place = Scope(release.environment, release.app_name, name)
            endpoint = app.endpoints.get(name)
            if endpoint is None:
                desk = self._web_desk if supervisor.function.web is not None else None
                app.endpoints[name] = FunctionEndpoint(supervisor, place, release.app_id, desk)
            else:
                endpoint.place = place
                self._let_go(endpoint.switch(supervisor))
            supervisor.keep_minimum()
        if self.shards is not None:
            self._send_away(app)
        app.parts = self._parts(app)
        self._lead(release.owner, self._targets(app), _callable(release, app))
        self._keep_templates()

    def _send_away(self, app: LiveApp) -> None:
        """Have the other processes bring up what lives there."""
        assert self.shards is not None
        assert self.keeper is not None
        release = app.release
        owners = {f.name: (self.share.owner(release, f.name), f) for f in release.spec.functions}
        app.away = {
            name: AwayEndpoint(process, function, function, release.app_id, self.keeper)
            for name, (process, function) in owners.items()
            if process != self.share.process
        }
        self.shards.install(release)

    def _parts(self, app: LiveApp) -> dict[str, Served]:
        parts: dict[str, Served] = {}
        for function in app.release.spec.functions:
            if (away := app.away.get(function.name)) is not None:
                assert self.keeper is not None
                for part in function.parts:
                    parts[part.name] = AwayEndpoint(away.process, part, function, app.release.app_id, self.keeper)
                continue
            if function.name not in app.endpoints:
                continue  # it is not ours
            endpoint = app.endpoints[function.name]
            if function.cls is None:
                parts[function.name] = endpoint
                continue
            for part in function.parts:
                is_web = part.web is not None
                desk = self._web_desk if is_web else None
                parts[part.name] = MethodEndpoint(endpoint, part, called=not is_web, desk=desk)
        return parts

    def _names(self, release: Release) -> dict[str, str]:
        """Labels and custom domains that an app has, and the function that each leads to."""
        labels = {label: function for function, label in release.labels.items()}
        return labels | {
            domain: function
            for domain, function in release.spec.domains.items()
            if covering(domain, self._registered) is not None and self._routes.may_have(domain, release.owner)
        }

    def _targets(self, app: LiveApp) -> dict[str, Endpoint]:
        return {name: app.parts[f] for name, f in self._names(app.release).items() if f in app.parts}

    def _claim_of(self, host: str) -> Claim[Endpoint] | None:
        """Whose host this is, by its label or by a custom domain. A wildcard leaves the machine's name to the server:
        whoever deploys from elsewhere may use it, and sends a token there.
        """
        label, _, domain = host.partition(".")
        if domain == self._domain:
            return self._routes.get(label)
        return self._routes.get(host) if domain and label == self._machine else self._routes.at(host)

    def _route_of(self, claim: Claim[Endpoint]) -> Route | Refusal:
        target = claim.target
        if isinstance(target, FunctionEndpoint | MethodEndpoint):
            return self._admission.route(target, target.place, protected=target.is_protected)
        return pages.STOPPED if target is None else Route(target)

    def _lead(self, owner: Owner, names: dict[str, Endpoint], hosts: dict[str, Endpoint]) -> None:
        """From now on the app's labels and domains, and the hosts of its functions, lead there."""
        self._routes.assign(owner, names)
        self.calls.table.assign(owner.app_id, hosts, ephemeral=owner.ephemeral)
        self.ingress.routes_changed()
        self._open_gates(owner.app_id)

    def _open_gates(self, app_id: str) -> None:
        """Those who waited for the app to come up go on."""
        waiting = self._expected.pop(app_id, None)
        if waiting is not None:
            for name, gate in waiting.names.items():
                claim = self._routes.get(name)
                gate.open(pages.INVALID_CALL if claim is None else self._route_of(claim))
            for host, gate in waiting.hosts.items():
                gate.open(self.calls.find(host))

    def _token_used(self) -> None:
        self._loop.call_later(TELL_USES_AFTER, self.on_tokens_used)

    def _keep_templates(self) -> None:
        """Have the template of each image that a live app uses, so that every start is a fork."""
        images = {image.key: image for app in self._apps.values() for image in app.release.images.values()}
        self._engine.keep(images)
        for image in images.values():
            task = self._loop.create_task(self._warm(image))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _warm(self, image: BuiltImage) -> None:
        try:
            await self._engine.warm(image)
        except StartError as error:
            log.warning("no template for the image %s: %s", image.key[:12], error)

    def _let_go(self, supervisor: Supervisor | Pools) -> None:
        """Keep a replaced version, which drains, until its last container is gone."""
        self._dismiss_snapshot(supervisor)
        task = self._loop.create_task(supervisor.gone(), name=repr(supervisor))
        self._leaving[task] = supervisor
        task.add_done_callback(self._leaving.pop)

    def _dismiss_snapshot(self, supervisor: Supervisor | Pools) -> None:
        if (snapshot := self._snapshots.pop(supervisor, None)) is not None:
            self._engine.dismiss(snapshot)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _may_have_snapshot(function: FunctionSpec) -> bool:
    """Not a program of the user's: what starts it has to run below what watches its ports."""
    return function.enable_memory_snapshot and function.program is None


def _is_address(host: str) -> bool:
    return host.startswith("[") or host.replace(".", "").isdigit()


def _callable(release: Release, app: LiveApp) -> dict[str, Endpoint]:
    """Where each function of an app is called. One that has a URL answers with it: it is no call that it takes."""
    hosts: dict[str, Endpoint] = {}
    for name, endpoint in {**app.endpoints, **app.away, **app.parts}.items():
        target: Endpoint = endpoint
        if (url := release.urls.get(name)) is not None:
            target = NotCalled(endpoint, Refusal(405, url, code="invalid"))
        elif endpoint.function.cls is not None:
            target = NotCalled(endpoint, pages.INVALID_CALL)
        for owner in (release.app_id, release.app_name):
            hosts[call_host(release.environment, owner, name)] = target
    return hosts
