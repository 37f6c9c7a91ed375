"""A further ingress process of a server: it has connections, and the pools of the functions that are its own.

All else is the first process's: control plane, containers, and what hosts mean. Here is remembered what that has said.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from portico.api.services import Target
from portico.core.tokens import ProxyToken
from portico.engines.groups import Groups
from portico.ingress import pages
from portico.ingress.door import CALLS, DOOR, FRONT, IngressOptions
from portico.ingress.front import Front
from portico.ingress.moving import Passenger
from portico.ingress.ports import Lease, Refusal, Route
from portico.model.errors import Error, StartError
from portico.model.limits import Limits
from portico.model.policy import Policies
from portico.model.ports import ContainerStart
from portico.model.proxies import parse_networks
from portico.server import shard_messages as messages
from portico.server.away import Elsewhere, Share
from portico.server.dataplane import DataPlane, Release, Served, Sockets
from portico.server.descriptors import allow_many_descriptors
from portico.server.endpoint import FunctionEndpoint, MethodEndpoint
from portico.server.functions import about, update
from portico.server.packets import Packets
from portico.server.pools import Pools
from portico.server.remote_engine import RemoteEngine
from portico.server.shared_buckets import SharedBuckets
from portico.server.supervisor import Supervisor
from portico.wire.control import Problem

log = logging.getLogger("portico.shard")

USES_AFTER: Final = 1.0  # seconds from the use of a proxy token until the first process is told
FIRST: Final = 0  # the process that knows everything


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """All that a shard needs at its start. Numbers of descriptors: its door, its channel, its own end for connections
    that come, and the ends of all processes for those that go; then what it is like the first process in."""

    process: int
    door: int
    channel: int
    incoming: int
    outgoing: list[int]
    run_dir: str
    buckets: str
    domain: str
    machine: str
    limits: Limits
    max_message: int | None
    trusted_proxies: str
    redirect_after: int | None
    rate_limit: float | None
    https_port: int | None
    groups: dict[str, Any]


class ShardPlane(DataPlane):
    """The data path of a shard: where hosts lead is what it was told."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.told: dict[tuple[str, str], messages.Told] = {}

    def find(self, host: str) -> Route | Refusal:
        """See `ingress.ports.Directory`."""
        endpoint = self.led(DOOR, host)
        if isinstance(endpoint, FunctionEndpoint | MethodEndpoint):
            return self._admission.route(endpoint, endpoint.place, protected=endpoint.is_protected)
        assert isinstance(endpoint, Elsewhere)
        return Route(endpoint)

    def led(self, entrance: str, host: str) -> Served | Elsewhere:
        """What this host leads to: a function here, or another process. What is unknown, the first one knows."""
        told = self.told.get((entrance, host))
        if told is None:
            return Elsewhere(FIRST)
        if told.process != self.share.process:
            return Elsewhere(told.process)
        return self.endpoint(told.app_id, told.function) or Elsewhere(FIRST)

    def secures(self, host: str) -> bool:
        """See `DataPlane`: what leads to a function here is live."""
        return (DOOR, host) in self.told

    def with_secrets(self, start: ContainerStart) -> ContainerStart:
        """The first process adds them."""
        return start

    def drop(self, release: Release, supervisors: dict[str, Supervisor | Pools]) -> None:
        """It was proved, and does not come."""
        self._discard(release, supervisors)

    async def cut(self, app_id: str) -> None:
        """End what runs of it, and return when that has gone."""
        if (app := self._apps.get(app_id)) is not None:
            await self._cut(app)

    def switch(self, release: Release, supervisors: dict[str, Supervisor | Pools]) -> None:
        """What was proved answers from now on."""
        self._switch(release, supervisors)

    def _token_used(self) -> None:
        self._loop.call_later(USES_AFTER, self.on_tokens_used)

    def _lead(self, owner: object, names: object, hosts: object) -> None:
        self.ingress.routes_changed()


class CallsHere:
    """What the hosts of calls mean."""

    def __init__(self, plane: ShardPlane) -> None:
        self._plane = plane

    def find(self, host: str) -> Route | Refusal:
        """See `ingress.ports.Directory`."""
        return Route(self._plane.led(CALLS, host))


class RemoteSeat:
    """A stored call that the first process carries; it queues up here. See `ingress.ports.Waiter`."""

    wants_desk = False

    def __init__(self, shard: Shard, asked: messages.SeatAsked) -> None:
        self.door = ""
        self.target = asked.target
        self.lease: Lease | None = None
        self._shard = shard
        self._asked = asked
        self._endpoint: Served | None = None

    def ask(self, endpoint: Served) -> None:
        """Queue up."""
        self._endpoint = endpoint
        answer = endpoint.lease(self, self._asked.input_id)
        if isinstance(answer, Refusal):
            self.refused(answer)
        elif answer is not None:
            self.granted(answer)

    def granted(self, lease: Lease) -> None:
        """See `ingress.ports.Waiter`."""
        self.lease = lease
        container_id = lease.member.container.container.id  # type: ignore[attr-defined]
        self._shard.send(
            messages.SeatGranted(
                self._asked.seat, container_id, lease.address, self.door, lease.is_foreign, lease.queued
            )
        )

    def refused(self, refusal: Refusal) -> None:
        """See `ingress.ports.Waiter`."""
        self._shard.seats.pop(self._asked.seat, None)
        self._shard.send(messages.SeatRefused(self._asked.seat, refusal))

    def timed_out(self) -> None:
        """See `ingress.ports.Waiter`."""
        assert self.lease is not None
        self._shard.send(messages.SeatTimedOut(self._asked.seat, self.lease.queued))

    def moved(self, target: Route | Refusal) -> None:
        """See `ingress.ports.Waiter`: no host has led it here."""

    def elsewhere(self, process: int) -> None:
        """See `ingress.ports.Waiter`: it asks only what lives here."""

    def leave(self) -> None:
        """It waits no longer; a lease that is on its way is given back."""
        if self.lease is not None:
            self.lease.release()
        elif self._endpoint is not None:
            self._endpoint.leave(self)


class Shard:
    """One, from its start to its end."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Event()
        self._ending = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._adopting: set[asyncio.Task[None]] = set()
        self._proving: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._proved: dict[tuple[str, int], tuple[Release, dict[str, Supervisor | Pools]]] = {}
        self.seats: dict[int, RemoteSeat] = {}
        run_dir = Path(begin.run_dir)
        self._engine = RemoteEngine(self.send, Groups.of(begin.groups))
        self._plane = ShardPlane(
            begin.domain,
            Sockets.inside(run_dir),
            self._engine,
            lambda *line: self.send(messages.Noted(*line)),
            begin.limits,
            IngressOptions(
                max_message=begin.max_message,
                trusted=parse_networks(begin.trusted_proxies, "PORTICO_TRUSTED_PROXIES"),
                redirect_after=begin.redirect_after,
                max_connections=allow_many_descriptors(),
            ),
            begin.machine,
            begin.rate_limit,
            share=Share(begin.process, len(begin.outgoing)),
            new_bucket=SharedBuckets(Path(begin.buckets)).new,
        )
        self._channel = Packets(socket.socket(fileno=begin.channel), self._hear, self._orphaned)
        self._incoming = Packets(socket.socket(fileno=begin.incoming), self._take)
        self._incoming.rest()
        self._outgoing = [Packets(socket.socket(fileno=descriptor)) for descriptor in begin.outgoing]
        self._front: Front | None = None

    async def serve(self) -> None:
        """Until the first process says that it is over."""
        plane, begin = self._plane, self._begin
        plane.on_tokens_used = self._token_used
        ingress = plane.ingress
        ingress.mover = self._move
        ingress.on_resting = self._rest
        ingress.enter(CALLS, CallsHere(plane))
        if begin.https_port is not None:
            self._front = Front(begin.https_port, plane.secures)
            ingress.enter(FRONT, front=self._front)
        self.send(messages.Hello())
        door = socket.socket(fileno=begin.door)
        await self._begun.wait()
        self._incoming.read_on()
        if not self._ending.is_set():
            await ingress.listen(door)
        gc.freeze()
        await self._ending.wait()
        await self._channel.flushed()

    def send(self, message: messages.Message, descriptors: Sequence[int] = ()) -> None:
        """Tell the first process."""
        self._channel.send(messages.encode(message), descriptors)

    # -- connections ----------------------------------------------------------------------------------------------
    def _move(self, leaving: Passenger, process: int) -> None:
        self._outgoing[process].send(messages.moved(leaving), (leaving.descriptor,))

    def _take(self, packet: bytes, descriptors: list[int]) -> None:
        self._run(self._plane.ingress.adopt(messages.passenger(packet, descriptors)), self._adopting)

    def _rest(self, resting: bool) -> None:
        if resting:
            self._incoming.rest()
        else:
            self._incoming.read_on()

    # -- the first process ----------------------------------------------------------------------------------------
    def _hear(self, packet: bytes, descriptors: list[int]) -> None:
        message = messages.to_shard(packet)
        plane = self._plane
        match message:
            case messages.ContainerNews():
                self._engine.heard(message)
            case messages.Begun():
                self._begun.set()
            case messages.Told():
                if message.process == FIRST:
                    plane.told.pop((message.entrance, message.host), None)
                else:
                    plane.told[message.entrance, message.host] = message
                plane.ingress.routes_changed()
            case messages.Failing() if self._front is not None:
                self._front.set_failed(message.host, message.failed)
            case messages.PoliciesSet():
                plane.set_policies(Policies(message.policies))
            case messages.Token():
                plane.put_token(message.made(), message.rate_limit)
            case messages.TokensGone():
                self._remove_tokens(message.ids)
            case messages.AppVerb():
                getattr(plane, message.verb)(message.app_id)
            case messages.Install():
                self._install(message.release)
            case messages.Discard():
                if (proving := self._proving.pop((message.app_id, message.version), None)) is not None:
                    proving.cancel()
                if (found := self._proved.pop((message.app_id, message.version), None)) is not None:
                    plane.drop(*found)
            case messages.Prove():
                key = message.release.app_id, message.release.version
                self._proving[key] = self._run(self._answer(message), self._tasks)
            case messages.Cut() | messages.Ask():
                self._run(self._answer(message), self._tasks)
            case messages.SeatAsked():
                self._seat(message)
            case messages.SeatVerb():
                self._unseat(message)

    def _orphaned(self) -> None:
        os._exit(1)  # the kernel does as much, by the tether

    def _remove_tokens(self, ids: list[str] | None) -> None:
        if ids is None:
            nothing: list[tuple[ProxyToken, float | None]] = []
            self._plane.set_tokens(nothing)
        for token_id in ids or ():
            self._plane.remove_token(token_id)

    def _token_used(self) -> None:
        self._run(self._tell_uses(), self._tasks)

    async def _tell_uses(self) -> None:
        if used := await self._plane.used_tokens():
            self.send(messages.TokensUsed(used))

    def _install(self, release: Release) -> None:
        proved = self._proved.pop((release.app_id, release.version), None)
        if proved is None:
            self._plane.install(release)
        else:
            self._plane.switch(release, proved[1])

    async def _answer(self, message: messages.Prove | messages.Cut | messages.Ask) -> None:
        value, problem, container_id = None, None, None
        try:
            value = await self._do(message)
        except Error as error:
            problem = Problem(code=error.code, message=error.message, hint=error.hint, detail=error.detail)
            container_id = error.container_id if isinstance(error, StartError) else None
        except Exception:
            log.exception("could not do: %s", type(message).__name__)
            problem = Problem(code="internal", message="An ingress process could not do it: see the server's log.")
        self.send(messages.Reply(message.number, value, problem, container_id))
        if isinstance(message, messages.Ask) and message.what == "finish":
            self._ending.set()

    async def _do(self, message: messages.Prove | messages.Cut | messages.Ask) -> Any:
        plane = self._plane
        match message:
            case messages.Prove(number, release):
                supervisors = await plane.prove(release, lambda name: self.send(messages.Proved(number, name)))
                self._proving.pop((release.app_id, release.version), None)
                self._proved[release.app_id, release.version] = release, supervisors
            case messages.Cut(_, app_id):
                await plane.cut(app_id)
            case messages.Ask(_, "counts", [app_id]):
                counts = await plane.counts(app_id)
                return {name: [c.starting, c.ready, c.running, c.queued] for name, c in counts.items()}
            case messages.Ask(_, "about", [app_id, function, what, parameters]):
                return about(plane, Target(app_id, function, False), what, parameters)
            case messages.Ask(_, "update", [app_id, function, settings, parameters]):
                return update(plane, Target(app_id, function, False), settings, parameters)
            case messages.Ask(_, "uses"):
                return await plane.used_tokens()
            case messages.Ask(_, "refuse"):
                plane.ingress.refuse()
                for outgoing in self._outgoing:
                    await outgoing.flushed()
            case messages.Ask(_, "finish", [grace]):
                self._incoming.drain()  # who sent something here did so before we were asked
                if self._adopting:
                    await asyncio.wait(self._adopting)
                await plane.close(grace)
                await self._tell_uses()
        return None

    # -- stored calls ---------------------------------------------------------------------------------------------
    def _seat(self, asked: messages.SeatAsked) -> None:
        seat = self.seats[asked.seat] = RemoteSeat(self, asked)
        endpoint = self._plane.endpoint(asked.app_id, asked.function)
        if endpoint is None:
            seat.refused(pages.INVALID_CALL)
        else:
            seat.ask(endpoint)

    def _unseat(self, message: messages.SeatVerb) -> None:
        seat = self.seats.pop(message.seat, None)
        if seat is None:
            return
        if message.verb == "leave":
            seat.leave()
        elif seat.lease is not None:
            getattr(seat.lease, message.verb)()

    def _run(self, work: Any, among: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)
        return task


async def _serve(begin: Begin) -> None:
    await Shard(begin).serve()


def main() -> None:
    """Run the shard that the only argument describes."""
    begin = msgspec.json.decode(sys.argv[1], type=Begin)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(begin))


if __name__ == "__main__":
    main()
