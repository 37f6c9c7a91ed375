"""The ports between the server's rooms: what each room asks of another. `server/` joins them.

Everything of the data path (engine, containers and their events) runs on the ingress's loop and must not block it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from portico.model.calls import CallRecord, Change
from portico.model.policy import Policy, Scope, Setting
from portico.model.spec import AppSpec, Bundle, EntrySpec, FunctionSpec, ImageSpec

LineSink = Callable[[str], None]  # takes one line of text, without its newline


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """An image that is ready on this machine.

    key: its content key. python: the interpreter of its environment. site_packages: what the user installed, in
    `sys.path` order. runtime_path: folders with the runtime's own dependencies, after the user's. env and workdir:
    as the image says.
    """

    key: str
    python: Path
    site_packages: tuple[Path, ...] = ()
    runtime_path: tuple[Path, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    workdir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStart:
    """All that an engine needs to start one container of a function."""

    container_id: str  # "ct-" and 16 hex digits
    app_id: str
    app_name: str
    version: int  # of the deployment; 0 for an ephemeral app
    ephemeral: bool
    environment: str
    entry: EntrySpec
    function: FunctionSpec
    image: BuiltImage
    bundle_dir: Path  # the user's files, read-only
    urls: dict[str, str] = field(default_factory=dict)  # function name -> URL, of this app
    parameters: str | None = ""  # the canonical text of a class's parameters; None: only see whether it loads
    snapshot: str | None = None  # what it is forked from, with all that have the same here; None: the template


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Why a container did not become ready: the cause's first line, and what there is beside it (a traceback).

    killed: somebody else ended its process, which says nothing of the function.
    """

    cause: str
    detail: str = ""
    killed: bool = False


class Container(Protocol):
    """One worker, as its engine shows it."""

    id: str
    # Where it serves HTTP once it is ready: the path of a Unix socket, or "host:port". Each method of a class has a
    # socket of its own, whose path has `door_of` the method behind this.
    address: str
    takes_connections: bool  # whether it may be handed those of clients
    was_killed: bool  # whether it has ended by SIGKILL, which no process sends by itself

    def hand_over(self, input_id: str, descriptor: int, head: bytes) -> None:
        """Give it the client's connection of a WebSocket that it has accepted, and the answer that is due there.

        The descriptor is the container's from now on. It answers with `finished` when the input has ended.
        """

    @property
    def overran(self) -> bool:
        """Whether it ends, or has ended, because it took more memory than it may."""

    def cancel(self, input_id: str) -> None:
        """Ask it to end one input; it answers with `finished`, at once if it has no such input."""

    def stop(self, grace: float) -> None:
        """Ask it to finish what it does and exit; after `grace` seconds it is killed. Ends with `exited`."""

    def kill(self) -> None:
        """End it and its children now. Ends with `exited`."""


class ContainerEvents(Protocol):
    """What an engine reports of a container, on the ingress's loop. After `exited` nothing more comes."""

    def ready(self, container: Container) -> None:
        """It accepts requests at its address."""

    def failed(self, container: Container, failure: StartFailure) -> None:
        """It could not become ready; `exited` follows."""

    def finished(self, container: Container, input_id: str) -> None:
        """An input whose end the response did not show (held, or cancelled) has ended."""

    def exited(self, container: Container, status: str) -> None:
        """It is gone: "exit code 0", "signal 9 (SIGKILL)", …"""


class Engine(Protocol):
    """What starts containers."""

    def start(self, start: ContainerStart, events: ContainerEvents) -> Container:
        """Begin to start a container; returns at once, the rest comes as events (also every failure)."""

    async def warm(self, image: BuiltImage) -> None:
        """Have a template process of this image ready, so that the next start is a fork."""

    def keep(self, keys: Collection[str]) -> None:
        """Templates of these image keys stay, however idle; those of others go when nobody has used them for long."""

    def dismiss(self, snapshot: str) -> None:
        """No start will ask for this snapshot any more: it ends with its last container."""

    async def close(self) -> None:
        """End all containers, snapshots and templates; returns when no process is left."""


class OutputSink(Protocol):
    """Takes the output of containers."""

    def attach(self, start: ContainerStart, stdout: int, stderr: int) -> None:
        """Own these two pipe read ends from now on: read them to their end and close them. Any thread may call."""


class Images(Protocol):
    """What builds images."""

    def check(self, image: ImageSpec) -> None:
        """UnsupportedError when this machine can never build it. No I/O."""

    async def ensure(self, image: ImageSpec, on_line: LineSink) -> BuiltImage:
        """The image, built now if it has not been; raises ImageBuildError. Built at most once at a time."""


class Blobs(Protocol):
    """Content by its SHA-256 (hex). Writes are atomic and durable; a wrong digest raises InvalidError."""

    async def missing(self, digests: Sequence[str]) -> list[str]:
        """Which of these are not here."""

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        """Store the content, if it is what the digest says."""

    async def materialize(self, bundle: Bundle) -> Path:
        """A folder with the bundle's files, complete when it exists; the same folder for the same bundle."""

    async def collect(self, keep: Sequence[Bundle]) -> int:
        """Remove what none of these bundles needs; returns the number of files removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRecord:
    """One version of a deployed app, as it is stored. Times are seconds since the epoch."""

    app_id: str
    version: int
    created_at: float
    spec: AppSpec
    bundle: Bundle
    digest: str  # of everything that makes it differ from another version
    tag: str | None = None
    rollback_of: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRecord:
    """A deployed app, as it is stored. `stopped_at` is None while it lives; `current` is its live version."""

    id: str
    name: str
    environment: str
    created_at: float
    stopped_at: float | None
    current: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRecord:
    """An environment, as it is stored. No two have the same web suffix; `main` is always there."""

    name: str
    web_suffix: str
    created_at: float


class EnvironmentStore(Protocol):
    """The environments. Each verb is one transaction, as in `Store`."""

    async def all(self) -> list[EnvironmentRecord]:
        """All of them, the oldest first."""

    async def create(self, environment: EnvironmentRecord) -> None:
        """One more; ConflictError when its name or its web suffix is taken."""

    async def change(self, name: str, environment: EnvironmentRecord) -> None:
        """Give one another name or web suffix, with all that is in it; ConflictError when either is taken."""

    async def delete(self, name: str) -> None:
        """Forget one and all that is in it; ConflictError while apps live there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token of the control API, as it is stored. Its secret is not: `digest` is its SHA-256, in hex.

    environment: the only one that it is for; None: all, and the server itself. Times are seconds since the epoch.
    """

    id: str
    name: str
    digest: str = field(repr=False)
    environment: str | None
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None


class ApiTokenStore(Protocol):
    """The tokens of the control API. Each verb is one transaction, as in `Store`."""

    async def all(self) -> list[ApiToken]:
        """All that have not been revoked, the oldest first."""

    async def create(self, token: ApiToken) -> None:
        """One more."""

    async def used(self, token_id: str, at: float) -> None:
        """Remember when it was used last."""

    async def delete(self, token_id: str) -> None:
        """Forget it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRecord:
    """A secret that the server keeps, without its values. Times are seconds since the epoch."""

    environment: str
    name: str
    created_at: float
    updated_at: float


class SecretStore(Protocol):
    """The secrets, at most one of a name in an environment. Each verb is one transaction, as in `Store`."""

    async def all(self, environment: str) -> list[SecretRecord]:
        """All of an environment, by name."""

    async def read(self, environment: str, name: str) -> tuple[SecretRecord, dict[str, str]] | None:
        """It and its variables; None when there is none of this name."""

    async def write(self, secret: SecretRecord, variables: dict[str, str], *, replace: bool) -> None:
        """Keep it; one that is there keeps its time of creation. ConflictError when it is there, unless `replace`."""

    async def delete(self, environment: str, name: str) -> bool:
        """Forget it; whether it was there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyTokenRecord:
    """A proxy token, as it is stored: of its secret only the SHA-256, in hex. Times are seconds since the epoch.

    environments and endpoints ("app" or "app/function") are those that it opens; all, where there are none.
    rate_limit: its own, in requests a second.
    """

    id: str
    digest: str
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None
    environments: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    rate_limit: float | None = None


class AdmissionStore(Protocol):
    """Who may call endpoints, and how much. Each verb is one transaction, as in `Store`."""

    async def tokens(self) -> list[ProxyTokenRecord]:
        """All proxy tokens, the oldest first."""

    async def add_token(self, token: ProxyTokenRecord) -> None:
        """One more."""

    async def remove_token(self, token_id: str) -> bool:
        """Forget it; whether it was there."""

    async def used(self, times: Mapping[str, float]) -> None:
        """When tokens were last used."""

    async def policies(self) -> list[Policy]:
        """All settings, the widest scopes first."""

    async def set_policy(self, scope: Scope, setting: Setting, value: str | None) -> None:
        """Set it, or with None have wider scopes decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRecord:
    """A custom domain that is registered, as it is stored. Times are seconds since the epoch.

    name: "api.example.com", or "*.example.com", in ASCII. created_by: who registered it. The rest is the last news of a
    certificate for it, or for a host below it; None while there is none.
    """

    name: str
    created_at: float
    created_by: str
    certificate_state: str | None = None  # "issued", "failed", "unrenewed": there is one
    certificate_detail: str | None = None  # for which host, or why not
    certificate_at: float | None = None


class DomainStore(Protocol):
    """The registered custom domains. Each verb is one transaction, as in `Store`."""

    async def all(self) -> list[DomainRecord]:
        """All of them, by name."""

    async def add(self, domain: DomainRecord) -> None:
        """One more; ConflictError when it is there."""

    async def remove(self, name: str) -> bool:
        """Forget it; whether it was there."""

    async def set_certificate(self, name: str, state: str, detail: str | None, at: float) -> None:
        """The last news of a certificate for it."""


class Store(Protocol):
    """The deployed apps. Each verb is one transaction; when it returns, the change survives a power cut."""

    @property
    def calls(self) -> CallStore:
        """The stored calls."""

    @property
    def environments(self) -> EnvironmentStore:
        """What apps are in."""

    @property
    def api_tokens(self) -> ApiTokenStore:
        """Who may use the control API from elsewhere."""

    @property
    def secrets(self) -> SecretStore:
        """Variables by name."""

    @property
    def admission(self) -> AdmissionStore:
        """Proxy tokens and policies."""

    @property
    def domains(self) -> DomainStore:
        """The registered custom domains."""

    async def apps(self, environment: str) -> list[AppRecord]:
        """All apps, the newest first; stopped ones too."""

    async def app(self, name: str, environment: str) -> AppRecord | None:
        """The newest app of this name, living or stopped."""

    async def history(self, app_id: str) -> list[DeploymentRecord]:
        """All its versions, the newest first."""

    async def record(self, *, app: AppRecord, deployment: DeploymentRecord) -> None:
        """Store a new version and make it the current one; stores the app too when it is new."""

    async def stop(self, app_id: str, now: float) -> None:
        """Mark the app as stopped."""

    async def close(self) -> None:
        """Let go of the database."""


class CallStore(Protocol):
    """The stored calls."""

    async def write(self, changes: Sequence[Change]) -> list[CallRecord]:
        """All of it in one transaction; when it returns, it survives a power cut. The accepted ones, with positions."""

    async def call(self, call_id: str) -> CallRecord | None:
        """One call, if it is kept."""

    async def queued(self, app_id: str, function: str, after: int, limit: int) -> list[CallRecord]:
        """The calls of a function that wait, in order, from the first one behind this position."""

    async def waiting(self) -> list[tuple[str, str]]:
        """App id and function of all calls that wait."""

    async def started(self) -> list[CallRecord]:
        """The calls that have been started and have not ended."""

    async def expire(self, before: float, limit: int) -> list[str]:
        """Remove calls that ended before then; their ids."""


class Bodies(Protocol):
    """Large requests and responses of stored calls, each a file of its own."""

    async def write(self, name: str, chunks: AsyncIterator[bytes]) -> int:
        """Store it durably; its size. It is whole or not there."""

    def read(self, name: str) -> AsyncIterator[bytes]:
        """Its bytes, in pieces."""

    async def remove(self, call_ids: Collection[str]) -> None:
        """Remove all that belongs to these calls."""

    async def sweep(self, is_kept: Callable[[str], Awaitable[bool]], before: float) -> None:
        """Remove what was written before then and belongs to calls that are not kept."""
