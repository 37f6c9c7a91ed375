"""The peers, each as a program that runs until the end of a block."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from bench.load import Side
from bench.results import ROOT
from bench.stand import APPS, free_port, get_when_up, os_path, plain_env, running, uvicorn_command

PEERS = Path(__file__).with_name("peers")
BIN = ROOT / ".venv-bench" / "bin"
PYTHON = BIN / "python"


@contextlib.contextmanager
def bare(module: str, *options: str) -> Iterator[Side]:
    """uvicorn with this application, and nothing in front of it."""
    port = free_port()
    with running(uvicorn_command(module, "--port", str(port), *options), cwd=APPS, env=plain_env()) as process:
        get_when_up(port)
        yield Side(port, processes={"app": [process]})


@contextlib.contextmanager
def behind(kinds: Sequence[str], module: str) -> Iterator[dict[str, Side]]:
    """One uvicorn with this application on a Unix socket, and each of these proxies in front of it."""
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder, contextlib.ExitStack() as stack:
        upstream = Path(folder) / "app.sock"
        command = uvicorn_command(module, "--uds", str(upstream))
        app = stack.enter_context(running(command, cwd=APPS, env=plain_env()))
        get_when_up(upstream)
        yield {f"{kind} → uvicorn": stack.enter_context(proxy(kind, upstream, [app])) for kind in kinds}


@contextlib.contextmanager
def proxy(kind: str, upstream: Path, app: Sequence[psutil.Process] = ()) -> Iterator[Side]:
    """nginx, HAProxy or Caddy in front of what listens on this Unix socket, passing bodies on as they come."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder:
        command = _proxy_command(kind, folder)
        template = (PEERS / Path(command[-1]).name).read_text()
        Path(command[-1]).write_text(template.format(port=port, upstream=upstream, folder=folder))
        with running(command, env=plain_env(HOME=folder, XDG_DATA_HOME=folder, XDG_CONFIG_HOME=folder)) as process:
            get_when_up(port)
            yield Side(port, processes={kind: [process], "app": app})


def _proxy_command(kind: str, folder: str) -> list[str]:
    if kind == "nginx":
        return [_program("nginx"), "-p", folder, "-e", "stderr", "-c", f"{folder}/nginx.conf"]
    if kind == "HAProxy":
        return [_program("haproxy"), "-q", "-db", "-f", f"{folder}/haproxy.cfg"]
    return [str(installed("caddy")), "run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile"]


@contextlib.contextmanager
def ray_serve(cold: int = 0) -> Iterator[Side]:
    """Ray Serve with an endpoint at `/`, and so many at `/cold0` and so on without a replica."""
    port = free_port()
    command = [str(installed("python")), str(PEERS / "ray_serve.py"), str(port), str(cold)]
    with ray_env() as env, running(command, env=env) as process:
        get_when_up(port, limit=180)
        yield Side(port, processes={"all": [process, *process.children(recursive=True)]})


@contextlib.contextmanager
def ray_env() -> Iterator[dict[str, str]]:
    """The environment of a Ray that leaves nothing behind. Its folder's name is short: sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="pb-", ignore_cleanup_errors=True) as folder:
        yield plain_env(RAY_USAGE_STATS_ENABLED="0", RAY_TMPDIR=folder)


@contextlib.contextmanager
def bentoml() -> Iterator[Side]:
    """BentoML with one worker. Its endpoints take only POST."""
    port = free_port()
    command = [str(installed("bentoml")), "serve", "-q", "bento_service:Hello", "--host", "127.0.0.1"]
    command += ["--port", str(port)]
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder:
        env = plain_env(BENTOML_DO_NOT_TRACK="True", BENTOML_HOME=folder, PYTHONPATH=str(PEERS))
        with running(command, cwd=PEERS, env=env) as process:
            get_when_up(port, "/readyz")
            yield _posting(port, "/hello", process)


@contextlib.contextmanager
def litserve() -> Iterator[Side]:
    """LitServe with one worker. Its endpoints take only POST."""
    port = free_port()
    with running([str(installed("python")), str(PEERS / "lit_server.py"), str(port)], env=plain_env()) as process:
        get_when_up(port, "/health")
        yield _posting(port, "/predict", process)


SERVERS = {"Ray Serve": ray_serve, "BentoML": bentoml, "LitServe": litserve}


def _posting(port: int, path: str, process: psutil.Process) -> Side:
    family = [process, *process.children(recursive=True)]
    return Side(port, path=path, script=PEERS / "post.lua", processes={"all": family})


def installed(program: str) -> Path:
    """A program of the peers' environment."""
    if not (BIN / program).exists():
        raise SystemExit(f"{program} is what this is measured against, and is not installed: make bench-peers")
    return BIN / program


def _program(name: str) -> str:
    found = shutil.which(name, path=os_path())
    if found is None:
        raise SystemExit(f"{name} is what this is measured against, and is not installed: make bench-packages")
    return found
