"""The further ingress processes of a server, from its first one: started, told what holds, and started again.

Laws:
1. A function lives in one process (`Share`), so whatever is counted is counted in one place. It never moves.
2. A shard has no state that is not also here: one that dies is replaced, and the next one is told everything anew. Its
   containers are ended, for nobody knows what runs in them; its door stays open meanwhile, and connections wait there.
3. The first process alone knows what hosts mean. What it has told the others of a host it tells them again whenever
   that changes; what they have not been told of, they send here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from portico.core.backoff import Backoff
from portico.core.tokens import ProxyToken
from portico.edge.keeper import tie
from portico.ingress import pages
from portico.ingress.door import CALLS, DOOR
from portico.ingress.front import Front
from portico.ingress.head import host_of
from portico.ingress.moving import Passenger
from portico.ingress.ports import Refusal, Route, Waiter
from portico.model import errors
from portico.model.errors import Error, StartError, StateError
from portico.model.policy import Policies
from portico.model.ports import Container, Engine
from portico.server import shard_messages as messages
from portico.server.away import AwayEndpoint
from portico.server.dataplane import DataPlane, Release, SystemLog
from portico.server.packets import Packets, pair
from portico.server.remote_engine import Reporter, obey
from portico.server.seat import Seat
from portico.server.shard import Begin
from portico.server.supervisor import Counts

log = logging.getLogger("portico.shards")

START_TIMEOUT: Final = 20.0  # seconds for a shard to start
PATIENCE: Final = 5.0  # seconds for a shard to hear what it was told
REFUSE_TIMEOUT: Final = 2.0  # seconds for a shard to close its door
LAST_WORDS: Final = 35.0  # seconds beyond the grace for a shard to end
MOST_TOLD: Final = 4096  # hosts that shards have been told of
COMMAND: Final = (sys.executable, "-P", "-m", "portico.server.shard")


@dataclass(slots=True)
class _Shard:
    """One of them, or the place where the next one will be."""

    process: int
    door: socket.socket
    popen: subprocess.Popen[bytes] | None = None
    pidfd: int = -1
    tether: int = -1
    channel: Packets | None = None
    hello: asyncio.Future[None] | None = None
    asked: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    proofs: dict[int, Callable[[str], None]] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    snapshots: set[str] = field(default_factory=set)  # that its functions' containers are forked from
    seats: dict[int, Seat] = field(default_factory=dict)
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # its process is
    backoff: Backoff = field(default_factory=Backoff)

    def __repr__(self) -> str:
        return f"<shard {self.process} pid={self.popen and self.popen.pid} {len(self.containers)} containers>"


class Shards:
    """All of them. doors: a listening socket for each. begin: what they need, but for numbers of descriptors."""

    def __init__(
        self,
        data: DataPlane,
        engine: Engine,
        system_log: SystemLog,
        doors: Sequence[socket.socket],
        begin: Begin,
        front: Front | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._data = data
        self._engine = engine
        self._system_log = system_log
        self._begin = begin
        self._front = front
        self._shards = [_Shard(process, door) for process, door in enumerate(doors, 1)]
        self._ends = [pair() for _ in range(len(doors) + 1)]  # for connections: where they come out, where they go in
        self._incoming = Packets(self._ends[0][0].dup(), self._take)
        self._outgoing = [Packets(end.dup()) for _, end in self._ends]
        self._numbers = itertools.count(1)
        self._told: dict[tuple[str, str], messages.Told] = {}
        self._policies: messages.PoliciesSet | None = None
        self._tokens: dict[str, messages.Token] = {}
        self._held: set[str] = set()
        self._waiting: dict[Waiter, tuple[_Shard, int]] = {}  # seats
        self._unsettled: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._adopting: set[asyncio.Task[None]] = set()
        self._ending = False

    def __repr__(self) -> str:
        return f"<Shards {self._shards}>"

    def join(self) -> None:
        """From now on the data path reckons with them; before it listens."""
        ingress = self._data.ingress
        ingress.mover = self._move
        ingress.on_routes_changed = self._tell_again
        ingress.on_resting = self._rest
        if self._front is not None:
            self._front.on_failed = lambda host, failed: self._broadcast(messages.Failing(host, failed))
        self._data.shards = self._data.keeper = self

    async def start(self) -> None:
        """All of them, at once; StateError when one does not start."""
        await asyncio.gather(*(self._start(shard) for shard in self._shards))

    # -- for the data path ----------------------------------------------------------------------------------------
    async def prove(self, release: Release, on_ready: Callable[[str], None]) -> None:
        """See `OtherShards`."""
        try:
            async with asyncio.TaskGroup() as proofs:
                for shard in self._shards:
                    if any(self._data.share.owner(release, f.name) == shard.process for f in release.spec.functions):
                        proofs.create_task(self._prove(shard, release, on_ready))
        except BaseExceptionGroup as errors_:
            raise errors_.exceptions[0] from None

    def install(self, release: Release) -> None:
        """See `OtherShards`."""
        self._held.discard(release.app_id)
        self._broadcast(messages.Install(release))

    def discard(self, release: Release) -> None:
        """See `OtherShards`."""
        self._broadcast(messages.Discard(release.app_id, release.version))

    def tell(self, verb: str, app_id: str) -> None:
        """See `OtherShards`."""
        if verb == "hold":
            self._held.add(app_id)
        else:
            self._held.discard(app_id)
        self._broadcast(messages.AppVerb(verb, app_id))

    def set_policies(self, policies: Policies) -> None:
        """See `OtherShards`."""
        self._policies = messages.PoliciesSet(policies.all)
        self._broadcast(self._policies)

    def put_token(self, token: ProxyToken, rate_limit: float | None) -> None:
        """See `OtherShards`."""
        message = messages.Token(
            token.id, token.digest, token.expires_at, token.environments, token.endpoints, rate_limit
        )
        self._tokens[token.id] = message
        self._broadcast(message)

    def remove_tokens(self, ids: list[str] | None) -> None:
        """See `OtherShards`."""
        for token_id in list(self._tokens) if ids is None else ids:
            self._tokens.pop(token_id, None)
        self._broadcast(messages.TokensGone(ids))

    async def cut(self, app_id: str) -> None:
        """See `OtherShards`."""
        self._held.add(app_id)
        await asyncio.gather(*(self._request(shard, messages.Cut, app_id, dead=None) for shard in self._shards))

    async def counts(self, app_id: str) -> dict[str, Counts]:
        """See `OtherShards`."""
        nothing: dict[str, list[int]] = {}
        found = await asyncio.gather(*(self._ask(shard, "counts", app_id, dead=nothing) for shard in self._shards))
        return {name: Counts(*numbers) for counts in found for name, numbers in counts.items()}

    async def used_tokens(self) -> list[dict[str, float]]:
        """See `OtherShards`."""
        nothing: dict[str, float] = {}
        found: list[dict[str, float]] = await asyncio.gather(
            *(self._ask(shard, "uses", dead=nothing) for shard in self._shards)
        )
        return found

    async def settle(self) -> None:
        """See `OtherShards`."""
        behind = [shard for shard in self._shards if shard.process in self._unsettled]
        self._unsettled.clear()
        if behind:
            with contextlib.suppress(asyncio.TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(*(self._ask(shard, "ping", dead=None) for shard in behind))

    async def refuse(self) -> None:
        """See `OtherShards`."""
        self._ending = True
        asked = [self._loop.create_task(self._ask(shard, "refuse", dead=None)) for shard in self._shards]
        for shard in self._shards:
            shard.door.close()
        await asyncio.wait(asked, timeout=REFUSE_TIMEOUT)
        self._incoming.drain()
        if self._adopting:
            await asyncio.wait(self._adopting)

    async def finish(self, grace: float) -> None:
        """See `OtherShards`."""
        self._ending = True
        ends = [self._loop.create_task(self._end(shard, grace)) for shard in self._shards]
        await asyncio.wait(ends)
        for task in self._tasks:
            task.cancel()
        self._incoming.close()
        for outgoing in self._outgoing:
            outgoing.close()
        for ends_of_one in self._ends:
            for end in ends_of_one:
                end.close()

    # -- for functions that live elsewhere ------------------------------------------------------------------------
    async def about(self, endpoint: AwayEndpoint, what: str, parameters: bytes) -> dict[str, Any]:
        """See `Keeper`."""
        shard = self._shards[endpoint.process - 1]
        found: dict[str, Any] = await self._ask(
            shard, "about", endpoint.app_id, endpoint.function.name, what, parameters
        )
        return found

    async def update(
        self, endpoint: AwayEndpoint, settings: dict[str, float | None], parameters: bytes
    ) -> dict[str, Any]:
        """See `Keeper`."""
        shard = self._shards[endpoint.process - 1]
        found: dict[str, Any] = await self._ask(
            shard, "update", endpoint.app_id, endpoint.function.name, settings, parameters
        )
        return found

    def seat(self, seat: Seat, endpoint: AwayEndpoint, input_id: str) -> None:
        """See `Keeper`."""
        shard, number = self._shards[endpoint.process - 1], next(self._numbers)
        if shard.channel is None:
            seat.refused(BUSY)
            return
        shard.seats[number] = seat
        self._waiting[seat] = shard, number
        self._send(shard, messages.SeatAsked(number, endpoint.app_id, endpoint.function.name, input_id, seat.target))

    def leave(self, waiter: Waiter) -> None:
        """See `Keeper`."""
        found = self._waiting.pop(waiter, None)
        if found is not None:
            shard, number = found
            shard.seats.pop(number, None)
            self._send(shard, messages.SeatVerb(number, "leave"))

    # -- connections ----------------------------------------------------------------------------------------------
    def _move(self, leaving: Passenger, process: int) -> None:
        name = host_of(leaving.host)
        if name is not None:
            self._tell_of(CALLS if leaving.entrance == CALLS else DOOR, name)
        self._outgoing[process].send(messages.moved(leaving), (leaving.descriptor,))

    def _take(self, packet: bytes, descriptors: list[int]) -> None:
        self._run(self._data.ingress.adopt(messages.passenger(packet, descriptors)), self._adopting)

    def _rest(self, resting: bool) -> None:
        if resting:
            self._incoming.rest()
        else:
            self._incoming.read_on()

    def _tell_of(self, entrance: str, host: str) -> None:
        if (entrance, host) in self._told:
            return
        told = self._look_up(entrance, host)
        if not told.process:
            return
        while len(self._told) >= MOST_TOLD:
            self._broadcast(messages.Told(*next(iter(self._told)), process=0))
            self._told.pop(next(iter(self._told)))
        self._told[entrance, host] = told
        self._broadcast(told)

    def _tell_again(self) -> None:
        """Routes have changed."""
        for (entrance, host), told in list(self._told.items()):
            now = self._look_up(entrance, host)
            if now != told:
                self._broadcast(now)
                if now.process:
                    self._told[entrance, host] = now
                else:
                    del self._told[entrance, host]

    def _look_up(self, entrance: str, host: str) -> messages.Told:
        found = self._data.calls.find(host) if entrance == CALLS else self._data.find(host)
        endpoint = found.endpoint if isinstance(found, Route) else None
        if isinstance(endpoint, AwayEndpoint):
            return messages.Told(entrance, host, endpoint.process, endpoint.app_id, endpoint.function.name)
        return messages.Told(entrance, host, 0)

    # -- processes ------------------------------------------------------------------------------------------------
    async def _start(self, shard: _Shard) -> None:
        """Have it run, told everything; StateError when it does not."""
        ours, theirs = pair()
        tethered, tether = os.pipe()
        number = shard.process
        outgoing = [end.fileno() for _, end in self._ends]
        begin = msgspec.structs.replace(
            self._begin,
            process=number,
            door=shard.door.fileno(),
            channel=theirs.fileno(),
            incoming=self._ends[number][0].fileno(),
            outgoing=outgoing,
        )
        shard.hello = self._loop.create_future()
        try:
            await self._loop.run_in_executor(None, self._spawn, shard, begin, tethered)
        except OSError as error:
            ours.close()
            os.close(tether)
            raise StateError(f"An ingress process cannot be started: {error}.") from None
        finally:
            theirs.close()
            os.close(tethered)
        shard.tether = tether
        shard.gone.clear()
        shard.channel = Packets(ours, lambda packet, descriptors: self._hear(shard, packet, descriptors))
        self._loop.add_reader(shard.pidfd, self._reap, shard)
        self._tell_everything(shard)
        try:
            await asyncio.wait_for(asyncio.shield(shard.hello), START_TIMEOUT)
        except TimeoutError:
            raise StateError("An ingress process does not start.", hint="See the server's log.") from None

    def _spawn(self, shard: _Shard, begin: Begin, tethered: int) -> None:
        popen = subprocess.Popen(
            [*COMMAND, msgspec.json.encode(begin).decode()],
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=(tethered, begin.door, begin.channel, begin.incoming, *begin.outgoing),
            start_new_session=True,
        )
        tie(tethered, popen.pid)
        shard.popen, shard.pidfd = popen, os.pidfd_open(popen.pid)

    def _tell_everything(self, shard: _Shard) -> None:
        known: list[messages.Message] = [] if self._policies is None else [self._policies]
        known += self._tokens.values()
        if self._front is not None:
            known += [messages.Failing(host, failed=True) for host in self._front.failed]
        known += [messages.Install(release) for release in self._data.living()]
        known += [messages.AppVerb("hold", app_id) for app_id in self._held]
        known += self._told.values()
        for message in (*known, messages.Begun()):
            self._send(shard, message)

    def _reap(self, shard: _Shard) -> None:
        """It has ended."""
        assert shard.popen is not None
        assert shard.channel is not None
        self._loop.remove_reader(shard.pidfd)
        os.close(shard.pidfd)
        os.close(shard.tether)
        shard.channel.drain()
        shard.channel.close()
        shard.channel = None
        status = shard.popen.wait()
        shard.gone.set()
        if shard.hello is not None and not shard.hello.done():
            shard.hello.set_exception(StateError("An ingress process does not start.", hint="See the server's log."))
            shard.hello.exception()
        gone = StateError("An ingress process has ended, and is started again.", hint="Try it once more.")
        asked, shard.asked = shard.asked, {}
        for answer in asked.values():
            if not answer.done():
                answer.set_exception(gone)
        shard.proofs.clear()
        containers, shard.containers = shard.containers, {}
        for container in containers.values():
            container.kill()
        for snapshot in list(shard.snapshots):
            self._dismiss(shard, snapshot)
        seats, shard.seats = shard.seats, {}
        for seat in seats.values():
            if self._waiting.pop(seat, None) is not None:
                seat.refused(BUSY)
        if not self._ending:
            log.error("the ingress process %d has ended (%d), and is started again", shard.process, status)
            self._run(self._restart(shard), self._tasks)

    async def _restart(self, shard: _Shard) -> None:
        while not self._ending:
            await asyncio.sleep(shard.backoff.remaining(self._loop.time()))
            shard.backoff.failed(self._loop.time())
            try:
                await self._start(shard)
            except StateError as error:
                log.error("%s", error.message)
                if shard.channel is not None:
                    assert shard.popen is not None
                    shard.popen.kill()  # and it is started again when it is gone
                    return
            else:
                return

    async def _end(self, shard: _Shard, grace: float) -> None:
        try:
            async with asyncio.timeout(grace + LAST_WORDS):
                await self._ask(shard, "finish", grace, dead=None)
                await shard.gone.wait()
        except (Error, TimeoutError):
            if shard.popen is not None:
                shard.popen.kill()
                await shard.gone.wait()

    # -- messages -------------------------------------------------------------------------------------------------
    def _send(self, shard: _Shard, message: messages.Message, packet: bytes | None = None) -> None:
        if shard.channel is not None:
            self._unsettled.add(shard.process)
            shard.channel.send(packet or messages.encode(message))

    def _broadcast(self, message: messages.Message) -> None:
        packet = messages.encode(message)
        for shard in self._shards:
            self._send(shard, message, packet)

    async def _prove(self, shard: _Shard, release: Release, on_ready: Callable[[str], None]) -> None:
        number = next(self._numbers)
        shard.proofs[number] = on_ready
        try:
            await self._request(shard, messages.Prove, release, number=number)
        finally:
            shard.proofs.pop(number, None)

    async def _ask(self, shard: _Shard, what: str, *arguments: Any, dead: Any = ...) -> Any:
        return await self._request(shard, messages.Ask, what, list(arguments), dead=dead)

    async def _request(
        self, shard: _Shard, make: Callable[..., messages.Message], *arguments: Any, number: int = 0, dead: Any = ...
    ) -> Any:
        """The answer, or its error. dead: what it is when there is nobody to answer; else that is a StateError."""
        number = number or next(self._numbers)
        answer: asyncio.Future[Any] = self._loop.create_future()
        if shard.channel is None:
            answer.set_exception(StateError("An ingress process is being started.", hint="Try it once more."))
        else:
            shard.asked[number] = answer
            shard.channel.send(messages.encode(make(number, *arguments)))
        try:
            return await answer
        except StateError:
            if dead is ...:
                raise
            return dead
        finally:
            shard.asked.pop(number, None)

    def _hear(self, shard: _Shard, packet: bytes, descriptors: list[int]) -> None:
        message = messages.from_shard(packet)
        match message:
            case messages.ContainerVerb():
                obey(shard.containers.get(message.container_id), message, descriptors)
            case messages.Start():
                self._start_container(shard, message)
            case messages.Dismiss():
                self._dismiss(shard, message.snapshot)
            case messages.Reply():
                self._answered(shard, message)
            case messages.Hello():
                assert shard.hello is not None
                if not shard.hello.done():
                    shard.hello.set_result(None)
            case messages.Proved():
                if (on_ready := shard.proofs.get(message.number)) is not None:
                    on_ready(message.function)
            case messages.Noted():
                self._system_log(message.app_id, message.function, message.container_id, message.text)
            case messages.TokensUsed():
                self._data.tokens_used(message.used)
            case messages.SeatGranted() | messages.SeatRefused() | messages.SeatTimedOut():
                self._seated(shard, message)

    def _answered(self, shard: _Shard, reply: messages.Reply) -> None:
        answer = shard.asked.get(reply.number)
        if answer is None or answer.done():
            return
        if (problem := reply.problem) is None:
            answer.set_result(reply.value)
        else:
            error = errors.by_code(problem.code, problem.message, hint=problem.hint, detail=problem.detail)
            if isinstance(error, StartError):
                error.container_id = reply.container_id
            answer.set_exception(error)

    def _start_container(self, shard: _Shard, message: messages.Start) -> None:
        container_id = message.start.container_id
        channel = shard.channel  # a later shard has not asked for it

        def tell(news: messages.Message) -> None:
            assert isinstance(news, messages.ContainerNews)
            if shard.channel is channel:
                if news.event == "exited":
                    shard.containers.pop(container_id, None)
                self._send(shard, news)

        try:
            start = self._data.with_secrets(message.start)
        except Error as error:  # one of its secrets is not there any more
            tell(messages.ContainerNews(container_id, "failed", [error.message, "", False]))
            tell(messages.ContainerNews(container_id, "exited", ["it was not started", False, False]))
            return
        if start.snapshot is not None:
            shard.snapshots.add(start.snapshot)
        shard.containers[container_id] = self._engine.start(start, Reporter(tell))

    def _dismiss(self, shard: _Shard, snapshot: str) -> None:
        shard.snapshots.discard(snapshot)
        self._engine.dismiss(snapshot)

    def _seated(
        self,
        shard: _Shard,
        message: messages.SeatGranted | messages.SeatRefused | messages.SeatTimedOut,
    ) -> None:
        seat = shard.seats.get(message.seat)
        if seat is None:
            return
        match message:
            case messages.SeatGranted():
                self._waiting.pop(seat, None)
                seat.door = message.door
                seat.granted(_RemoteLease(self, shard, message))
            case messages.SeatRefused():
                del shard.seats[message.seat]
                self._waiting.pop(seat, None)
                known = (pages.STOPPED, pages.INVALID_CALL)  # which are told by what they are
                seat.refused(next((refusal for refusal in known if refusal == message.refusal), message.refusal))
            case messages.SeatTimedOut():
                seat.timed_out(message.queued)

    def end_lease(self, shard: _Shard, number: int, verb: str) -> None:
        """What a stored call's lease comes to."""
        if shard.seats.pop(number, None) is not None:
            self._send(shard, messages.SeatVerb(number, verb))

    # -- inside ---------------------------------------------------------------------------------------------------
    def _run(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> None:
        task = self._loop.create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)


# an input that a dead shard had queued may well begin with the next one: what carries it asks again
BUSY: Final = Refusal(503, "modal-http: an ingress process has ended", retry_after=1, code="exhausted")


class _RemoteLease:
    """The lease of a stored call whose function lives in a shard. See `ingress.ports.Lease`."""

    takes_connections = False
    stopping = False  # a stored call has no WebSocket, to whose end this matters

    def __init__(self, shards: Shards, shard: _Shard, granted: messages.SeatGranted) -> None:
        self.address = granted.address
        self.is_foreign = granted.is_foreign
        self.queued = granted.queued
        self._shards = shards
        self._shard = shard
        self._number = granted.seat
        self._container = shard.containers.get(granted.container_id)

    @property
    def overran(self) -> bool:
        """See `Lease`."""
        return self._container is not None and self._container.overran

    def release(self) -> None:
        """See `Lease`."""
        self._shards.end_lease(self._shard, self._number, "release")

    def hold(self) -> None:
        """See `Lease`."""
        self._shards.end_lease(self._shard, self._number, "hold")

    def cancel(self) -> None:
        """See `Lease`."""
        self._shards.end_lease(self._shard, self._number, "cancel")

    def broken(self) -> None:
        """See `Lease`."""
        self._shards.end_lease(self._shard, self._number, "broken")

    def hand_over(self, descriptor: int, head: bytes) -> None:
        """A stored call has no connection."""
        os.close(descriptor)

    def kill(self) -> None:
        """End the container."""
        if self._container is not None:
            self._container.kill()
