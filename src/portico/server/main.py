"""One server, from its start to its end. Everything is wired here, by hand."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import logging
import os
import resource
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from portico.engines import groups
from portico.engines.folders import remove_folders
from portico.engines.groups import Groups
from portico.engines.process import ProcessEngine
from portico.ingress.admission import NewBucket
from portico.ingress.door import CALLS, FRONT, IngressOptions
from portico.ingress.front import Front
from portico.model.errors import ConflictError, Error, HomeInUseError, PortInUseError, StateError
from portico.model.settings import Settings
from portico.server.away import Share
from portico.server.control import ControlPlane, Outside
from portico.server.dataplane import Bridge, DataPlane, Sockets
from portico.server.descriptors import allow_many_descriptors
from portico.server.https import local_authority
from portico.server.ports import check_free, holder
from portico.store.check import check_database
from portico.wire.calls import SOCKET_VARIABLE
from portico.wire.container import View
from portico.wire.control import Problem, encode_event
from portico.wire.websocket import LIMIT_VARIABLE

if TYPE_CHECKING:
    from portico.server.shards import Shards

log = logging.getLogger("portico.server")

GRACE: Final = 10.0  # seconds for running requests when the server ends


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How this server was started.

    ready_fd: where to write "ready" (or the problem, as one JSON line) once it serves. lifetime_fd: when this pipe
    ends, the server ends, unless apps were deployed on it meanwhile. announce: say on stderr where it listens.
    private: files that are no container's business. max_connections: clients that may be connected at a time.
    """

    ready_fd: int | None = None
    lifetime_fd: int | None = None
    announce: bool = False
    private: tuple[Path, ...] = ()
    max_connections: int = sys.maxsize


def run(settings: Settings, options: ServerOptions) -> int:
    """Serve until SIGINT, SIGTERM or a stop by the control API; 0 after a clean end. Raises when it cannot start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        with contextlib.ExitStack() as open_:
            open_.enter_context(_home(settings.home))
            doors = open_.enter_context(_listening(settings))
            calls = open_.enter_context(_local(settings.calls_socket))
            front = None
            if settings.https is not None:
                check_free(settings.https, settings.domain)
                front = open_.enter_context(_local(settings.front_socket))
            check_database(settings.database)
            _keep_memory_to_ourselves()
            sys.setswitchinterval(0.0005)  # the control plane's thread must not keep the data path waiting
            options = replace(options, max_connections=allow_many_descriptors())
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_Server(settings, options, doors, calls, front).serve())
    except Error as error:
        if options.ready_fd is not None:
            problem = Problem(code=error.code, message=error.message, hint=error.hint, detail=error.detail)
            os.write(options.ready_fd, encode_event(problem))
            return 1
        raise


class _Server:
    """The running server: what it started, in the order of starting."""

    def __init__(
        self,
        settings: Settings,
        options: ServerOptions,
        doors: list[socket.socket],
        calls: socket.socket,
        front: socket.socket | None,
    ) -> None:
        self._settings = settings
        self._options = options
        self._door, *self._other_doors = doors
        self._calls = calls
        self._front = front
        self._ending = asyncio.Event()
        self._failure: StateError | None = None

    async def serve(self) -> int:
        """Start everything, wait for the end, end everything."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        run_dir = settings.run_dir
        bridge = Bridge(loop)
        control = ControlPlane(settings)
        told = {  # where their server lives, for look-ups and calls, and what they have to go by themselves
            "PORTICO_HOME": str(settings.home),
            SOCKET_VARIABLE: str(settings.calls_socket),
            LIMIT_VARIABLE: settings.max_websocket_message,
        }
        limits = groups.find(f"portico-{settings.mark}")
        engine = ProcessEngine(run_dir, control.logs, told=told, view=self._view(), groups=limits)
        sockets = Sockets.inside(run_dir)
        ingress = IngressOptions(
            max_message=settings.websocket_limit,
            trusted=settings.trusted_networks,
            redirect_after=settings.redirect_after,
            max_connections=self._options.max_connections,
        )
        machine = socket.gethostname().partition(".")[0].lower()
        data = DataPlane(
            settings.domain,
            sockets,
            engine,
            control.logs.system,
            settings.limits,
            ingress,
            machine,
            settings.rate_limit,
            Share(0, settings.ingress),
            self._new_bucket(),
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        host, port = self._door.getsockname()[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        front = None
        if settings.https is not None:
            port = settings.https.address(settings.domain).port
            front = Front(port, data.secures)

        shards = self._shards(data, engine, control, limits, front) if self._other_doors else None
        if shards is not None:
            bridge.settle = shards.settle
            shards.join()

        def booted(failure: StateError | None) -> None:
            self._failure = failure
            if failure is not None:
                self._ending.set()

        try:
            if self._front is not None:
                await data.ingress.listen(self._front, front=front, name=FRONT)
            starting = control.start(
                Outside(
                    settings=settings,
                    address=address,
                    port=port,
                    front=front,
                    sockets=sockets,
                    data=data,
                    bridge=bridge,
                    on_stop=lambda: bridge.post(self._ending.set),
                    on_booted=lambda failure: bridge.post(booted, failure),
                )
            )
            if shards is None:
                await starting
            else:
                await asyncio.gather(starting, shards.start())
            await data.ingress.listen(self._door)
            await data.ingress.listen(self._calls, data.calls, name=CALLS)
            self._watch_lifetime(loop, control)
            gc.freeze()  # a collection would look at all that was imported, and keep every connection waiting meanwhile
            self._announce(address)
            await self._ending.wait()
        finally:
            log.info("ending")
            control.drain()
            await data.close(GRACE)
            await control.close()
            with contextlib.suppress(OSError):  # a folder in the temporary folder is not left behind
                run_dir.rmdir()
        if self._failure is not None:
            raise self._failure
        return 0

    def _new_bucket(self) -> NewBucket | None:
        """How rate limits count: in files, where several processes do; None: as each likes."""
        if not self._other_doors:
            return None
        from portico.server.shared_buckets import SharedBuckets  # only then

        return SharedBuckets(_buckets(self._settings)).new

    def _shards(
        self, data: DataPlane, engine: ProcessEngine, control: ControlPlane, limits: Groups, front: Front | None
    ) -> Shards:
        from portico.server.shard import Begin  # a server with one process, the common case, starts without these
        from portico.server.shards import Shards

        settings = self._settings
        begin = Begin(
            process=0,
            door=-1,
            channel=-1,
            incoming=-1,
            outgoing=[],
            run_dir=str(settings.run_dir),
            buckets=str(_buckets(settings)),
            domain=settings.domain,
            machine=socket.gethostname().partition(".")[0].lower(),
            limits=settings.limits,
            max_message=settings.websocket_limit,
            trusted_proxies=settings.trusted_proxies,
            redirect_after=settings.redirect_after,
            rate_limit=settings.rate_limit,
            https_port=None if settings.https is None else settings.https.address(settings.domain).port,
            groups=limits.document,
        )
        return Shards(data, engine, control.logs.system, self._other_doors, begin, front)

    def _view(self) -> View:
        """What containers see of the machine: of our own, only where they call functions."""
        settings = self._settings
        hidden = {str(settings.home), str(settings.run_dir)}
        blank = tuple(map(str, self._options.private))
        return View(folder="", hidden=tuple(hidden), shown=(str(settings.calls_socket),), blank=blank)

    def _signalled(self) -> None:
        if self._ending.is_set():
            # asked twice: containers die with us, for their lifelines end
            os._exit(130)
        self._ending.set()

    def _watch_lifetime(self, loop: asyncio.AbstractEventLoop, control: ControlPlane) -> None:
        fd = self._options.lifetime_fd
        if fd is None:
            return

        def ended() -> None:
            loop.remove_reader(fd)
            if control.is_needed:
                log.info("the command that started this server has ended; deployed apps live here, so it goes on")
            else:
                self._ending.set()

        loop.add_reader(fd, ended)

    def _announce(self, address: str) -> None:
        log.info("listening on %s, home %s", address, self._settings.home)
        if self._options.announce:
            print("\n".join(_announcement(self._settings, address)), file=sys.stderr)
        if self._options.ready_fd is not None:
            os.write(self._options.ready_fd, b"ready\n")
            os.close(self._options.ready_fd)


def _announcement(settings: Settings, address: str) -> list[str]:
    """Where it can be reached."""
    if settings.https is None:
        return [f"Portico listens on http://{address} (home: {settings.home})."]
    https, http = settings.https.address(settings.domain), settings.https.http_address(settings.domain)
    places = [f"https://{settings.domain}{'' if https.port == 443 else f':{https.port}'}"]
    places += [f"HTTP on {http}"] if http is not None else []
    lines = [f"Portico listens on {', '.join([*places, f'http://{address}'])} (home: {settings.home})."]
    if (authority := local_authority(settings)) is not None:
        lines.append(f"Clients have to know its own authority: curl --cacert {authority} {places[0]}/healthz")
    return lines


def _keep_memory_to_ourselves() -> None:
    """Secrets are in our memory, and in that of containers, which inherit this: a crash must not write it to disk."""
    os.environ.pop("PORTICO_SECRET_KEY", None)  # nor should what we start, such as image builds, find the key
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError):  # where the system pipes dumps to a program, the limit does not count
        Path("/proc/self/coredump_filter").write_text("0")


@contextlib.contextmanager
def _home(home: Path) -> Iterator[None]:
    """The home, made and locked: one server at a time lives in it."""
    try:
        for folder in (home, home / "logs" / "apps"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        home.chmod(0o700)
        lock = os.open(home / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(
            f"Portico cannot write to its home {home}: {error.strerror}.",
            hint="Give yourself the right to write there, or set PORTICO_HOME to another folder.",
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeInUseError(
                f"A Portico server already runs with the home {home}.",
                hint="Use it, end it with `portico down`, or set PORTICO_HOME and PORTICO_LISTEN for a second one.",
            ) from None
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[list[socket.socket]]:
    """The public door's sockets, bound, one for each process; and the folder of our own sockets."""
    _private(settings.run_dir)
    remove_folders(settings.run_dir / "c")  # what a server that was killed has left
    _private(settings.run_dir / "c")
    shutil.rmtree(_buckets(settings), ignore_errors=True)
    if settings.ingress > 1:
        _private(_buckets(settings))
    with contextlib.ExitStack() as open_:
        try:
            yield [open_.enter_context(door) for door in _doors(settings)]
        finally:
            shutil.rmtree(_buckets(settings), ignore_errors=True)


def _doors(settings: Settings) -> Iterator[socket.socket]:
    """A listening socket for each process. Who shares a port shares it with all of the same user: so we look first."""
    host, port, several = settings.listen_host, settings.listen_port, settings.ingress > 1
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if several:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        for _ in range(settings.ingress):
            door = socket.socket(family, socket.SOCK_STREAM)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if several:
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                door.bind((host, port))
                door.listen(2048)
            except OSError:
                door.close()
                raise
            port = door.getsockname()[1]
            door.setblocking(False)
            _notice_the_dead(door)
            yield door
    except OSError as error:
        raise _cannot_listen(settings, error) from None


def _notice_the_dead(door: socket.socket) -> None:
    """Connections taken from this socket end some minutes after their client's machine or network has gone.

    Nothing else would end a silent stream or WebSocket. The kernel asks, and the client's kernel answers.
    """
    door.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 8)):
        if hasattr(socket, name):
            door.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@contextlib.contextmanager
def _local(path: Path) -> Iterator[socket.socket]:
    """A Unix socket, bound, for this user only."""
    path.unlink(missing_ok=True)  # the home is locked: whoever made it is gone
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        mask = os.umask(0o177)
        try:
            door.bind(str(path))
        finally:
            os.umask(mask)
        door.listen(2048)
        door.setblocking(False)
        yield door
    path.unlink(missing_ok=True)


def _buckets(settings: Settings) -> Path:
    """Where processes share what rate limits count."""
    return settings.run_dir / "buckets"


def _private(folder: Path) -> None:
    """A folder for this user only; StateError when somebody else has one of this name."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.lstat()
    if status.st_uid != os.getuid() or not folder.is_dir() or folder.is_symlink():
        raise StateError(f"The folder {folder} belongs to somebody else.", hint="Set PORTICO_HOME to a shorter path.")
    folder.chmod(0o700)


def _cannot_listen(settings: Settings, error: OSError) -> Error:
    if error.errno == errno.EADDRINUSE:
        found = holder(settings.listen_port)
        return PortInUseError(
            f"The port {settings.listen} is in use{f' by {found}' if found else ''}.",
            hint="End that program, or choose another port: PORTICO_LISTEN=127.0.0.1:7778",
        )
    return ConflictError(
        f"Portico cannot listen on {settings.listen}: {error.strerror}.", hint="Set PORTICO_LISTEN to host:port."
    )
