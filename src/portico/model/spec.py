"""What a user's file says, as frozen values: one `AppSpec`, made by the SDK, read by the server and by containers.

All of it is data that goes through JSON unchanged (see `wire/spec.py`). Sizes are MiB, times are seconds, unless said.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum


class WebKind(StrEnum):
    """Which of the four web decorators made an endpoint."""

    FASTAPI_ENDPOINT = "fastapi_endpoint"
    ASGI_APP = "asgi_app"
    WSGI_APP = "wsgi_app"
    WEB_SERVER = "web_server"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSpec:
    """How a function is reached over HTTP."""

    kind: WebKind
    method: str = "GET"  # fastapi_endpoint only
    docs: bool = False  # fastapi_endpoint only: /docs and /openapi.json
    label: str | None = None  # the user's own label, already checked
    custom_domains: tuple[str, ...] = ()
    requires_proxy_auth: bool = False
    port: int | None = None  # web_server only
    startup_timeout: float = 5.0  # web_server only


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaler:
    """How many containers a function may have, and how long an idle one stays."""

    min_containers: int = 0
    max_containers: int | None = None
    buffer_containers: int = 0
    scaledown_window: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a call that has failed is tried again. Delays are in seconds."""

    max_retries: int
    backoff_coefficient: float = 1.0
    initial_delay: float = 1.0
    max_delay: float = 60.0

    def delay(self, failures: int) -> float | None:
        """How long to wait after so many failures (1: the first); None when that was the last attempt."""
        if failures > self.max_retries:
            return None
        return min(self.initial_delay * self.backoff_coefficient ** min(failures - 1, 100), self.max_delay)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """How many inputs one container takes at a time, and how many the autoscaler aims at."""

    max_inputs: int = 1
    target_inputs: int | None = None

    @property
    def target(self) -> int:
        """Inputs per container that scaling aims at."""
        return self.target_inputs or self.max_inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a container asks for. `None` means: no wish. Memory is in MiB."""

    cpu: float | None = None
    cpu_limit: float | None = None
    memory: int | None = None
    memory_limit: int | None = None
    gpu: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStep:
    """One step of an image's build, in the order in which the user wrote them.

    kind: `pip_install` (arguments: requirement strings; options: index_url, extra_index_url, find_links, pre,
    extra_options), `requirements` (text: the content of a requirements file; same options), `run_commands`
    (arguments: shell lines, run inside the environment), `env` (options: the variables), `workdir` (arguments: one
    path), or the name of a builder that needs a root filesystem (`apt_install`, `from_registry`, …), which the
    process engine refuses.
    """

    kind: str
    arguments: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """What a container has installed. Local files that were added are not here: they travel in the bundle."""

    python_version: str | None = None  # "3.12"; None: the server's own
    steps: tuple[ImageStep, ...] = ()
    force_build: bool = False


class ParameterKind(StrEnum):
    """The types that a parameter of a class can have."""

    STR = "str"
    INT = "int"
    BOOL = "bool"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """A parameter of a class. `default` is the value's text (see `model/parameters.py`); None: it has to be given."""

    name: str
    kind: ParameterKind
    default: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSpec:
    """A method of a class that is called, or has a URL."""

    name: str
    web: WebSpec | None = None
    is_generator: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSpec:
    """What makes a class of a function. All methods share its containers, each has a socket of its own in them."""

    methods: tuple[MethodSpec, ...] = ()
    parameters: tuple[ParameterSpec, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSpec:
    """Variables for a function: a secret that the server keeps, by its name, or values that the file has itself.

    environment: where the named one is kept; None: where the app is. required_keys: what it must have.
    """

    name: str | None = None
    environment: str | None = None
    required_keys: tuple[str, ...] = ()
    values: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSpec:
    """One function of an app, or one class: whatever has containers of its own."""

    name: str  # unique in its app: "square", or "Class"
    module: str  # importable in the container
    qualname: str  # where to find it in that module
    image: ImageSpec = field(default_factory=ImageSpec)
    web: WebSpec | None = None
    autoscaler: Autoscaler = field(default_factory=Autoscaler)
    concurrency: Concurrency = field(default_factory=Concurrency)
    resources: Resources = field(default_factory=Resources)
    timeout: int = 300  # one input
    startup_timeout: float | None = None  # None: as `timeout`
    secrets: tuple[SecretSpec, ...] = ()  # of the app, then of the function; later wins
    env: dict[str, str] = field(default_factory=dict, repr=False)  # wins over all secrets
    is_generator: bool = False
    retries: RetryPolicy | None = None
    serialized: bytes | None = None  # the function by value, for serialized=True
    enable_memory_snapshot: bool = False
    single_use_containers: bool = False
    cls: ClassSpec | None = None

    @property
    def slots(self) -> int:
        """How many inputs a container takes at once."""
        return 1 if self.single_use_containers else self.concurrency.max_inputs

    @property
    def program(self) -> WebSpec | None:
        """The `web_server` that it is, or whose class it is: a program of the user's own takes its inputs."""
        if self.cls is None:
            return self.web if self.web is not None and self.web.kind is WebKind.WEB_SERVER else None
        return next((part.program for part in self.parts if part.program is not None), None)

    @property
    def parts(self) -> tuple[FunctionSpec, ...]:
        """What of it is called or has a URL, each as a function: itself, or the methods of a class, "Class.method"."""
        if self.cls is None:
            return (self,)
        return tuple(
            replace(
                self,
                name=f"{self.name}.{m.name}",
                web=m.web,
                is_generator=m.is_generator,
                cls=None,
                retries=None if m.is_generator or m.web is not None else self.retries,
            )
            for m in self.cls.methods
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySpec:
    """The file that the user named. `path` is its place in the bundle; None where it was given as a module (-m).

    `app` is the variable that holds the app, for a file that has several.
    """

    module: str
    path: str | None = None
    app: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSpec:
    """Everything that a user's file says about one app."""

    name: str | None
    entry: EntrySpec
    functions: tuple[FunctionSpec, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # said once by `serve` and `deploy`

    @property
    def web_functions(self) -> tuple[FunctionSpec, ...]:
        """The functions and methods that have a URL."""
        return tuple(part for function in self.functions for part in function.parts if part.web is not None)

    @property
    def domains(self) -> dict[str, str]:
        """The custom domains that are asked for, and the function or method that each is to lead to."""
        return {name: f.name for f in self.web_functions if f.web is not None for name in f.web.custom_domains}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a bundle: its place (POSIX, relative), the SHA-256 of its content in hex, its size in bytes."""

    path: str
    digest: str
    size: int
    executable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The user's files, by content. Sorted by path."""

    files: tuple[FileEntry, ...] = ()

    @property
    def digest(self) -> str:
        """One name for the whole content (hex)."""
        import hashlib  # 4 ms that `import modal` need not pay

        lines = (f"{f.path}\0{f.digest}\0{int(f.executable)}\n" for f in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()
