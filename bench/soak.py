"""A soak: everything at once, at 70 % of what is possible, while versions change and containers are killed.

Every answer is counted. What may be lost is what docs/reliability.md says, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import resource
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from bench.clients import Connection, kept
from bench.results import Goal, Run, Table
from bench.stand import APPS, PORTICO, Stand, get, memory, quantile, stand

SHARE: Final = 0.7  # of the measured maximum
WORKERS: Final = 32
UPLOAD: Final = b"x" * 100_000
MIX: Final = ("quick",) * 12 + ("slow", "stream", "upload", "upload", "ws", "call", "call", "quick")
# what may become of each, beside a good answer, where its container is killed
ALLOWED: Final = {"stream": {"cut"}, "upload": {"502 with an id"}, "ws": {"closed"}}
PATIENCE: Final = 60.0  # seconds for one answer
KEEPERS: Final = 50
BEAT: Final = 30.0  # seconds between two requests on a connection that is only held: less than the server's 75

Latencies = dict[str, list[float]]


def main(run: Run) -> Iterator[Table]:
    """A server of its own; the maximum is measured first, by the same clients with the same mix."""
    seconds = 60 * run.minutes if run.minutes else 12 if run.quick else 600
    held = 50 if run.quick else 10_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder, stand(alone=True) as here:
        host = here.deploy(_version(Path(folder), 0))["web"]
        get(here.port, host, "/quick")
        yield asyncio.run(Soak(here, host, Path(folder)).run(seconds, held, warm=1 if run.quick else 20))


class Soak:
    """Clients, what disturbs them, and what was seen."""

    def __init__(self, here: Stand, host: str, folder: Path) -> None:
        self._here, self._host, self._folder = here, host, folder
        self.ended: Counter[tuple[str, str]] = Counter()
        self.latencies: Latencies = defaultdict(list)
        self.kills = self.deploys = 0
        self._samples: list[tuple[float, float, int]] = []  # seconds since the start, MB, descriptors
        self._kinds = itertools.cycle(MIX)

    async def run(self, seconds: float, held: int, warm: float) -> Table:
        """Find the maximum, then go on for so long at a share of it, with so many idle connections beside."""
        most = await self._load(warm, None)
        self.ended.clear()
        self.latencies.clear()
        connections = await self._hold(held)
        stop = asyncio.Event()
        beside = [
            asyncio.create_task(work)
            for work in (self._disturb(stop, seconds), self._watch(stop), self._keep(stop, connections))
        ]
        rate = await self._load(seconds, SHARE * most)
        stop.set()
        _, _, alive = await asyncio.gather(*beside)
        for connection in connections:
            connection.close()
        return self._table(most, rate, held, alive, seconds)

    async def _load(self, seconds: float, rate: float | None) -> float:
        """All workers, for so long; at most so many requests per second; how many there were per second."""
        began = time.monotonic()
        before = self.ended.total()
        turns = itertools.count()

        async def work() -> None:
            async with kept(self._here.port) as connection:
                while time.monotonic() < began + seconds:
                    if rate is not None:
                        await asyncio.sleep(began + next(turns) / rate - time.monotonic())
                    await self._one(connection, next(self._kinds))

        await asyncio.gather(*(work() for _ in range(WORKERS)))
        return (self.ended.total() - before) / (time.monotonic() - began)

    async def _one(self, connection: Connection, kind: str) -> None:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE):
                end = await (self._talk() if kind == "ws" else self._ask(connection, kind))
        except TimeoutError:
            connection.close()
            end = "no answer"
        self.ended[kind, end] += 1
        self.latencies[kind].append(time.perf_counter() - began)

    async def _ask(self, connection: Connection, kind: str) -> str:
        body = UPLOAD if kind == "upload" else b""
        expected = {"call": b"42", "stream": b"piece;" * 20, "upload": b"%d" % len(UPLOAD)}.get(
            kind, b'"%b"' % kind.encode()
        )
        try:
            status, head, answer = await connection.request(self._host, f"/{kind}", body)
        except (OSError, EOFError):
            connection.close()
            return "cut"
        if status == 200:
            return "good" if answer == expected else "wrong"
        request_id = head.lower().partition(b"x-request-id: ")[2].partition(b"\r\n")[0]
        return f"{status} with an id" if request_id and request_id in answer else f"{status}"

    async def _talk(self) -> str:
        url = f"ws://{self._host}:{self._here.port}/echo"
        try:
            async with websocket(url, host="127.0.0.1", port=self._here.port, proxy=None) as ws:
                for number in range(5):
                    await ws.send(str(number))
                    if await ws.recv() != str(number):
                        return "wrong"
        except (OSError, EOFError, ConnectionClosed, InvalidMessage):  # the last where the container accepts, and dies
            return "closed"
        except InvalidStatus as refused:
            return f"{refused.response.status_code}"
        return "good"

    async def _disturb(self, stop: asyncio.Event, seconds: float) -> None:
        """By turns, a new version and the death of a container."""
        chance, pause = random.Random(11), min(5.0, seconds / 8)
        for number in itertools.count(1):
            if await _stopped(stop, pause):
                return
            if number % 2:
                file = _version(self._folder, number)
                command = await asyncio.create_subprocess_exec(
                    *PORTICO, "deploy", str(file), env=self._here.env, stdout=-3, stderr=-3
                )
                assert await command.wait() == 0, "a deploy failed"
                self.deploys += 1
            elif pids := self._here.container_pids():
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(chance.choice(pids)).kill()
                    self.kills += 1

    async def _watch(self, stop: asyncio.Event) -> None:
        began, server = time.monotonic(), self._here.server
        while not await _stopped(stop, 0.5):
            self._samples.append((time.monotonic() - began, memory(server.pid)["uss"], server.num_fds()))

    async def _keep(self, stop: asyncio.Event, connections: list[Connection]) -> int:
        """Ask once in a while on each; how many are still open at the end."""

        async def some(kept: list[Connection]) -> None:
            while True:
                for connection in kept:
                    if await _stopped(stop, BEAT / len(kept)):
                        return
                    if connection.is_open:
                        with contextlib.suppress(OSError, EOFError):
                            await connection.request(self._host, "/quick", b"")

        groups = [connections[n::KEEPERS] for n in range(KEEPERS)]
        await asyncio.gather(*(some(group) for group in groups if group))
        return sum(connection.is_open for connection in connections)

    async def _hold(self, number: int) -> list[Connection]:
        """Connections with one request behind them each."""
        connections = [Connection(self._here.port) for _ in range(number)]
        for connection in connections:
            await connection.request(self._host, "/quick", b"")
        return connections

    def _table(self, most: float, rate: float, held: int, alive: int, seconds: float) -> Table:
        bad = {
            f"{kind}: {end}": n
            for (kind, end), n in self.ended.items()
            if end != "good" and end not in ALLOWED.get(kind, ())
        }
        forgiven = {f"{kind}: {end}": n for (kind, end), n in self.ended.items() if end in ALLOWED.get(kind, ())}
        third, last = self._part(2 / 10, 3 / 10, seconds), self._part(9 / 10, 1, seconds)
        growth, descriptors = last[0] / third[0], last[1] - third[1]
        total = self.ended.total()
        return Table(
            f"a soak of {seconds / 60:g} minutes",
            {
                "maximum, per second": round(most),
                "asked, per second": round(rate),
                "answers": total,
                "deploys": self.deploys,
                "containers killed": self.kills,
                "lost, as the rules allow": forgiven or 0,
                "lost against the rules": bad or 0,
                "server's memory, MB": {"third tenth": round(third[0], 1), "last tenth": round(last[0], 1)},
                "server's descriptors": {"third tenth": third[1], "last tenth": last[1]},
                "connections held": f"{alive} of {held}",
                "p99, ms": {
                    kind: round(quantile(times, 0.99) * 1000, 1) for kind, times in sorted(self.latencies.items())
                },
            },
            (
                Goal("soak: answers lost against the rules", sum(bad.values()), "", at_most=0, ours=f"of {total:,}"),
                Goal(
                    "soak: server's memory, last tenth to third tenth", growth, at_most=1.05, ours=f"{last[0]:.1f} MB"
                ),
                Goal("soak: more descriptors at the end", descriptors, "", at_most=20, ours=f"{last[1]}"),
                Goal("soak: idle connections lost", held - alive, "", at_most=0, ours=f"of {held:,}"),
            ),
        )

    def _part(self, begin: float, end: float, seconds: float) -> tuple[float, int]:
        """Median memory and descriptors of a part of the time."""
        part = [sample for sample in self._samples if begin * seconds <= sample[0] <= end * seconds] or self._samples
        return statistics.median(mb for _, mb, _ in part), int(statistics.median(fds for *_, fds in part))


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for so long, or until it is time to stop; whether it is."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()


def _version(folder: Path, number: int) -> Path:
    file = folder / "soak_app.py"
    file.write_text((APPS / "soak_app.py").read_text().replace("VERSION = 0", f"VERSION = {number}"))
    return file
