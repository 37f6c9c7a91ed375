"""Requests that fail while versions and containers change under load: none of at least 20,000.

Each request is counted by who asked. Streams and WebSockets are open across each change, and have to end as they began.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket

from bench.clients import Connection, kept
from bench.results import Goal, Run, Table
from bench.stand import APPS, PORTICO, Stand, get, host_of, quantile, stand

ENOUGH: Final = 20_000
ROUNDS: Final = 5  # of all changes, at least
CLIENTS: Final = 12  # for each app
TIDE: Final = 6  # clients that come and go
HELD: Final = 3  # streams, and as many WebSockets, across each change
LONGEST: Final = 300.0  # seconds; with fewer requests then, it has failed
PATIENCE: Final = 30.0  # seconds for one answer, or one change


def main(run: Run) -> Iterator[Table]:
    """Deploys, rollbacks, reloads and scaling down, one after the other; `--requests` says how many are enough."""
    enough, rounds = run.requests or (500 if run.quick else ENOUGH), 1 if run.quick else ROUNDS
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder, stand() as here:
        yield asyncio.run(Rollouts(here, Path(folder)).run(enough, rounds))


class Rollouts:
    """Two apps: one is deployed, the other one served, with live reload."""

    def __init__(self, here: Stand, folder: Path) -> None:
        self._here, self._folder = here, folder
        self._numbers = itertools.count(1)
        self._versions = {"bench-rollouts": [0], "bench-reloads": [0]}  # of each app, the latest last
        self._ending = asyncio.Event()
        self.answers = 0
        self.failed: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.changes: Counter[str] = Counter()
        self.held: Counter[str] = Counter()

    async def run(self, enough: int, rounds: int) -> Table:
        """All changes in turn, at least so many rounds, until there are enough answers."""
        hosts = self._here.deploy(self._write("bench-rollouts", 0))
        self._web, self._tide = hosts["web"], hosts["tide"]
        async with self._served() as self._reloaded:
            for host in (self._web, self._tide, self._reloaded):
                get(self._here.port, host)
            load = [asyncio.create_task(self._ask(host)) for host in (self._web, self._reloaded) * CLIENTS]
            began = time.monotonic()
            try:
                async with asyncio.timeout(LONGEST):
                    while self.answers < enough or self.changes["recreate"] < rounds:
                        for name, step in self._steps.items():
                            async with asyncio.timeout(PATIENCE):
                                await step()
                            self.changes[name] += 1
            finally:
                self._ending.set()
                await asyncio.gather(*load)
        return self._table(time.monotonic() - began)

    @property
    def _steps(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "deploy": self._deploy,
            "rollback": self._roll_back,
            "reload": self._reload,
            "scale down": self._scale_down,
            "recreate": self._recreate,
        }

    # -- changes --------------------------------------------------------------------------------------------------
    async def _deploy(self) -> None:
        async with self._across("bench-rollouts", self._web):
            await self._portico("deploy", str(self._next("bench-rollouts")))

    async def _roll_back(self) -> None:
        async with self._across("bench-rollouts", self._web):
            await self._portico("app", "rollback", "bench-rollouts", "--yes")
            versions = self._versions["bench-rollouts"]
            versions.append(versions[-2])

    async def _reload(self) -> None:
        async with self._across("bench-reloads", self._reloaded):
            self._next("bench-reloads")

    async def _recreate(self) -> None:
        await self._portico("deploy", "--strategy", "recreate", str(self._next("bench-rollouts")))
        await self._until("bench-rollouts", self._web)

    async def _scale_down(self) -> None:
        """A crowd comes, and leaves but for one, who asks on while the containers go."""
        there, gone = asyncio.Event(), asyncio.Event()
        crowd = [asyncio.create_task(self._ask(self._tide, there)) for _ in range(TIDE - 1)]
        last = asyncio.create_task(self._ask(self._tide, gone))
        try:
            await self._containers(lambda number: number >= TIDE - 1)
            there.set()
            await asyncio.gather(*crowd)
            await self._containers(lambda number: number <= 1)
        finally:
            there.set()
            gone.set()
            await asyncio.gather(*crowd, last)

    async def _containers(self, right: Callable[[int], bool]) -> None:
        """Wait until the tide's are as many as is right."""
        while True:
            info = json.loads(await self._portico("app", "info", "bench-rollouts", "--json"))
            if right(next(int(each["containers"]) for each in info["functions"] if each["name"] == "tide")):
                return

    async def _portico(self, *arguments: str) -> str:
        command = await asyncio.create_subprocess_exec(
            *PORTICO, *arguments, env=self._here.env, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await command.communicate()
        if command.returncode:
            raise RuntimeError(f"portico {' '.join(arguments)}: exit code {command.returncode}")
        return out.decode()

    def _next(self, app: str) -> Path:
        number = next(self._numbers)
        self._versions[app].append(number)
        return self._write(app, number)

    def _write(self, app: str, number: int) -> Path:
        text = (APPS / "rollouts_app.py").read_text()
        file = self._folder / app / f"{app}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text.replace("VERSION = 0", f"VERSION = {number}").replace("bench-rollouts", app))
        return file

    @contextlib.asynccontextmanager
    async def _served(self) -> AsyncIterator[str]:
        """The host of the app that is served, until the end of the block."""
        file = self._write("bench-reloads", 0)
        serve = await asyncio.create_subprocess_exec(
            *PORTICO, "serve", str(file), env=self._here.env, stdout=asyncio.subprocess.PIPE
        )
        assert serve.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                while b"-web" not in (line := await serve.stdout.readline()) or b"http://" not in line:
                    assert line, "serve has ended"
            reading = asyncio.create_task(serve.stdout.read())
            yield host_of(line.decode()[line.decode().index("http:") :])
        finally:
            serve.send_signal(signal.SIGINT)
            await serve.wait()
        await reading

    # -- clients --------------------------------------------------------------------------------------------------
    async def _ask(self, host: str, ending: asyncio.Event | None = None) -> None:
        """One request after the other, on one connection."""
        ending = ending or self._ending
        async with kept(self._here.port) as connection:
            while not ending.is_set():
                began = time.perf_counter()
                try:
                    async with asyncio.timeout(PATIENCE):
                        status, _, body = await connection.request(host, "/", b"")
                    end = "good" if status == 200 and body.isdigit() else f"{status} {body[:60].decode()}"
                except (OSError, EOFError) as error:  # a TimeoutError is an OSError
                    connection.close()
                    end = type(error).__name__
                self.answers += 1
                self.latencies.append(time.perf_counter() - began)
                if end != "good":
                    self.failed[end] += 1

    @contextlib.asynccontextmanager
    async def _across(self, app: str, host: str) -> AsyncIterator[None]:
        """Streams and WebSockets that begin before what is done in the block, and end when it is seen by others."""
        gate = self._folder / f"gate-{sum(self.changes.values())}"
        before = str(self._versions[app][-1])
        streams = [await self._stream(host, gate, before) for _ in range(HELD)]
        async with contextlib.AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(self._websocket(host)) for _ in range(HELD)]
            await self._talk(sockets, before)
            yield
            await self._until(app, host)
            await self._talk(sockets, before)
        self.held["WebSockets"] += HELD
        gate.touch()
        for reading in streams:
            pieces = await reading
            if set(pieces.split(";")) != {before, ""}:
                raise RuntimeError(f"a stream of version {before} has become {pieces[-60:]!r}")
        self.held["streams"] += HELD

    async def _stream(self, host: str, gate: Path, before: str) -> asyncio.Task[str]:
        """A stream that has begun, to its proper end."""
        begun = asyncio.Event()

        async def read() -> str:
            connection = Connection(self._here.port)
            _, _, body = await connection.request(host, f"/stream?gate={gate}", b"", begun)
            connection.close()
            return body.decode()

        reading = asyncio.create_task(read())
        await begun.wait()
        return reading

    def _websocket(self, host: str) -> websocket:
        port = self._here.port
        return websocket(f"ws://{host}:{port}/ws", host="127.0.0.1", port=port, proxy=None)

    async def _talk(self, sockets: list[ClientConnection], version: str) -> None:
        for ws in sockets:
            await ws.send("?")
            if (said := await ws.recv()) != version:
                raise RuntimeError(f"a WebSocket of version {version} says {said!r}")

    async def _until(self, app: str, host: str) -> None:
        """Wait until the latest version answers."""
        async with kept(self._here.port) as connection:
            while (await connection.request(host, "/", b""))[2] != str(self._versions[app][-1]).encode():
                await asyncio.sleep(0.005)

    def _table(self, seconds: float) -> Table:
        failed = sum(self.failed.values())
        return Table(
            "requests while versions change",
            {
                "answers": self.answers,
                "failed": dict(self.failed) or 0,
                "changes": dict(self.changes),
                "open across a change": dict(self.held),
                "p99, ms": round(quantile(self.latencies, 0.99) * 1000, 1),
                "longest, ms": round(max(self.latencies) * 1000, 1),
                "seconds": round(seconds),
            },
            (Goal("requests that fail while versions change", failed, "", at_most=0, ours=f"of {self.answers:,}"),),
        )
